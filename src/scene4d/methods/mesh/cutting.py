"""Cuts out triangles that photographs with alpha see through, while a mesh is trained.

Depths join thin things to sheets as wide as several, and no move of vertices opens a sheet. What is
left stays opaque, so every file and viewer shows it as it was trained. Photographs without alpha do
not say that nothing is there, and cutting by them opened holes (methods/mesh/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.evaluation.protocol import composited
from scene4d.methods.mesh.judging import Judgement
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.rendering.mesh.edges import Edges
from scene4d.rendering.mesh.rasterization import Mesh, Picture, rasterize
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy

_ROUNDS = ((0.3, 0.55), (0.6, 0.8))
"""Shares of the training in which triangles are judged; at the end of each some go."""
_NO_EDGES = Edges(
    ends=np.zeros((0, 2), np.int64), starts=np.zeros(1, np.int64), opposite=np.zeros(0, np.int64)
)


class Cutting(Strategy):
    """A triangle goes where the pictures that show it look more like what lies behind."""

    representation: TexturedMesh

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._judgement = Judgement(len(self.representation.triangles))

    def after_step(self, step: Step) -> None:
        """Judges in rounds, and cuts after each."""
        if any(first <= step.progress < last for first, last in _ROUNDS):
            with torch.no_grad():
                for view in step.views:
                    if view.alpha is not None:
                        self._judge(view, step)
        elif bool(self._judgement.looks.any()):
            gone = self._judgement.seen_through()
            if not bool(gone.all()):
                self.representation.cut(gone.numpy())
            self._judgement = Judgement(len(self.representation.triangles))

    def state_tensors(self) -> dict[str, Tensor]:
        """How each triangle was judged in this round."""
        return {"gains": self._judgement.gains, "looks": self._judgement.looks}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """As it was judged before."""
        self._judgement.gains, self._judgement.looks = tensors["gains"], tensors["looks"]

    def _judge(self, view: View, step: Step) -> None:
        camera = view.camera
        if step.adjustments is not None:
            camera = step.adjustments.refined(camera, view.index)
        whole = replace(self.representation.surface(), given_edges=_NO_EDGES)
        near = _picture(whole, camera)
        behind = np.ones(len(whole.triangles), dtype=bool)
        behind[near.faces[near.faces >= 0].cpu().numpy()] = False
        assert whole.atlas is not None, "a textured mesh has one"
        atlas = replace(whole.atlas, triangles=whole.atlas.triangles[behind])
        far = _picture(replace(whole, triangles=whole.triangles[behind], atlas=atlas), camera)
        counts = near.faces >= 0
        if view.mask is not None:
            counts &= view.mask
        shown, beyond = (
            seen.rgb + (1 - seen.alpha)[..., None] * step.background for seen in (near, far)
        )
        self._judgement.look(
            near.faces, counts,
            photograph=composited(view, step.background), shown=shown, behind=beyond,
        )  # fmt: skip


def _picture(mesh: Mesh, camera: Camera) -> Picture:
    return rasterize(
        mesh, camera.viewmat, camera.K, width=camera.width, height=camera.height, depths=False
    )
