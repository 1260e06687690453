"""Compares what a generator makes of captions with the captioned meshes, picture by picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.camera import Camera
from scene4d.methods.text_mesh.assets import Asset, read_assets
from scene4d.methods.text_mesh.method import AssetOptions
from scene4d.methods.text_mesh.text_meshes import TextMeshes
from scene4d.rendering.mesh.rasterization import Atlas, Mesh, rasterize
from scene4d.rendering.render import DEPTH, Render
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step


class AssetPictures(Objective):
    """Colour, alpha and depth of generated scenes against those of the meshes; both are rendered
    at cameras drawn anew each step, all around."""

    options: AssetOptions
    needs_views = False

    def __init__(self, options: AssetOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` for a folder without meshes that can be used."""
        super().__init__(options, inputs)
        self.assets = [drawable(asset) for asset in read_assets(options.folder)]
        self.generator, self.device = inputs.generator, inputs.device
        self.own = inputs.processes.rows(options.captions, "captions")
        assert isinstance(inputs.task.poses, CamerasOnSphere)
        self.poses = replace(inputs.task.poses, azimuths=(0.0, 360.0), views=1)

    def __call__(self, step: Step) -> Term:
        """The mean over captions and cameras; in the log its parts."""
        options = self.options
        assert isinstance(step.trainable, TextMeshes)
        size = options.volume_size if step.trainable.draws_volumes else options.mesh_size
        poses = replace(self.poses, size=size)
        chosen = torch.randint(
            len(self.assets), (options.captions,), generator=self.generator
        ).tolist()
        cameras = [poses.draw(self.generator, options.pictures) for _ in chosen]
        own = [
            self._errors(step, number, camera)
            for number, several in list(zip(chosen, cameras, strict=True))[self.own]
            for camera in several
        ]
        means = step.processes.gathered(torch.stack(own)).mean(dim=0)
        weights = (options.colour_weight, options.alpha_weight, options.depth_weight)
        log = dict(zip(("asset_colour", "asset_alpha", "asset_depth"), means, strict=True))
        return Term(loss=(means * means.new_tensor(weights)).sum(), log=log)

    def _errors(self, step: Step, number: int, camera: Camera) -> Float[Tensor, " 3"]:
        """Mean squares of colour and alpha, which unlike absolute errors do not rest at the median
        colour of all texts; the mean absolute error of depth, where both show something."""
        caption, mesh = self.assets[number]
        truth = true_picture(mesh, camera, step.background.cpu())
        render = step.render(camera.to(self.device), condition=caption, want=DEPTH)
        assert render.depth is not None and truth.depth is not None
        alpha = truth.alpha.to(self.device)
        wrong = (render.depth - truth.depth.to(self.device)).abs()
        return torch.stack(
            [
                (render.rgb - truth.rgb.to(self.device)).square().mean(),
                (render.alpha - alpha).square().mean(),
                (alpha * render.alpha * wrong).mean(),
            ]
        )


def drawable(asset: Asset) -> tuple[str, Mesh]:
    """The caption, and the mesh as the rasteriser takes it."""
    found = asset.mesh
    atlas = Atlas(
        uv=torch.from_numpy(found.uv).float(),
        triangles=found.uv_triangles,
        texture=torch.from_numpy(found.texture).float(),
    )
    vertices = torch.from_numpy(found.vertices).float()
    return asset.caption, Mesh(vertices=vertices, triangles=found.triangles, atlas=atlas)


@torch.no_grad()
def true_picture(mesh: Mesh, camera: Camera, background: Float[Tensor, " 3"]) -> Render:
    """What a camera sees of a mesh."""
    seen = rasterize(
        mesh, camera.viewmat, camera.K, width=camera.width, height=camera.height, depths=True
    )
    rgb = seen.rgb + (1 - seen.alpha)[..., None] * background
    return Render(rgb=rgb, alpha=seen.alpha, depth=seen.depths)
