"""nerfstudio's full-image data manager, which also tells the model about the cameras."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nerfstudio.data.datamanagers.full_images_datamanager import (
    FullImageDatamanager,
    FullImageDatamanagerConfig,
)

from scene4d.integrations.nerfstudio.cameras import scene_from_dataset

SCENE_KEY = "scene4d_scene"
"""Where in the training set's metadata the model finds the Scene."""


@dataclass
class SceneDatamanagerConfig(FullImageDatamanagerConfig):
    """Options of :class:`SceneDatamanager`: nerfstudio's own."""

    _target: type = field(default_factory=lambda: SceneDatamanager)


class SceneDatamanager(FullImageDatamanager):
    """Puts the Scene into the metadata, the one thing of the data that nerfstudio gives a model.

    A model is told the number of training images, but not where the cameras are; the scene's
    extent and random starting points need that.
    """

    def __init__(self, config: SceneDatamanagerConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        metadata = self.train_dataparser_outputs.metadata
        seed_points = None
        if "points3D_xyz" in metadata:
            seed_points = (metadata["points3D_xyz"], metadata["points3D_rgb"])
        self.train_dataset.metadata[SCENE_KEY] = scene_from_dataset(
            self.train_dataset, root=self.get_datapath(), seed_points=seed_points
        )

    def create_eval_dataset(self) -> Any:
        """The validation images; a capture that has none is evaluated on its test images.

        nerfstudio's Blender parser wants ``transforms_val.json``, which many captures, also our
        sample scene, do without.
        """
        try:
            return super().create_eval_dataset()
        except FileNotFoundError:
            self.test_split: str = "test"
            return super().create_eval_dataset()
