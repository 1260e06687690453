"""The method ``text-mesh``: one network that makes textured meshes of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from scene4d.errors import UsageError
from scene4d.ranges import Rate, Share, Weight, Within
from scene4d.representations.method import GuidanceOptions, Method, ObjectiveOptions

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Poses, Task, World


@dataclass(frozen=True, kw_only=True)
class AssetOptions(ObjectiveOptions):
    """Compares what captions become with the captioned meshes (--assets)."""

    implementation: ClassVar[str] = "scene4d.methods.text_mesh.objective:AssetPictures"
    folder: Path = Path()
    """Set by --assets."""
    captions: Annotated[int, Within(1, 256)] = 8
    """Captions a step."""
    pictures: Annotated[int, Within(1, 64)] = 1
    """Pictures of each caption a step."""
    colour_weight: Weight = 3.0
    """Weight of the mean square of colours."""
    alpha_weight: Weight = 1.0
    """Weight of the mean square of alpha."""
    depth_weight: Weight = 0.5
    """Weight of the mean error of depth."""
    volume_size: Annotated[int, Within(8, 1024)] = 24
    """Width and height in pixels of pictures that are volume rendered."""
    mesh_size: Annotated[int, Within(8, 4096)] = 64
    """Width and height in pixels of pictures of the mesh."""


@dataclass(frozen=True, kw_only=True)
class TextMeshMethod(Method):
    """One network for all texts: a mesh within seconds, of texts that it never saw, too."""

    name: ClassVar[str] = "text-mesh"
    description: ClassVar[str] = "A network from texts to textured meshes"
    representation: ClassVar[str] = "scene4d.methods.text_mesh.text_meshes:TextMeshes"
    needs_capture: ClassVar[bool] = False
    default_steps: ClassVar[int] = 2000

    assets: Path | None = None
    """Folder of captioned .glb or .gltf files that it learns from; docs/mesh.md."""
    texts: Path | None = None
    """Text file with a text a line, where a prior (--prior) teaches in place of meshes."""
    text_encoder: str = ""
    """Folder or hub name of a text encoder of transformers, which knows all words; by default
    the words of the captions are learned."""
    word_vectors: Path | None = None
    """File of word vectors (.npz with words and vectors, or GloVe's .txt), by which words that no
    caption has are read as the nearest that one has."""
    word_width: Annotated[int, Within(8, 4096)] = 64
    """Numbers that stand for a word that is learned."""
    channels: Annotated[int, Within(32, 4096)] = 64
    """Channels of the network, a multiple of 32."""
    blocks: tuple[str, ...] = ("cc", "ct", "ct")
    """Blocks of each stage of the network: c convolutions, t attention; the planes double their
    size after each."""
    features: Annotated[int, Within(1, 256)] = 16
    """Channels of a plane."""
    neurons: Annotated[int, Within(8, 1024)] = 32
    """Of the hidden layers between planes, distances and colours."""
    resolution: Annotated[int, Within(8, 256)] = 32
    """Cubes along a side, of which surfaces are made."""
    texture_size: Annotated[int, Within(16, 8192)] = 512
    """Texels along a side of the texture of a mesh that is written."""
    volume_until: Share = 0.7
    """Share of training in which pictures are made by volume rendering; then of the mesh."""
    distance: Annotated[float, Within(1.5, 100.0)] = 3.6
    """Of cameras from the middle of what is made, which reaches from -1 to 1."""
    lowest: Annotated[float, Within(-90.0, 90.0)] = -30.0
    """Least elevation of cameras, degrees."""
    highest: Annotated[float, Within(-90.0, 90.0)] = 75.0
    """Largest elevation of cameras, degrees."""
    views: Annotated[int, Within(1, 64)] = 1
    """Cameras evenly around what is made, whose pictures a prior sees as one, in a square: 1, 4
    or 9."""
    azimuths: tuple[Annotated[float, Within(-360, 360)], Annotated[float, Within(-360, 360)]] = (
        0.0,
        360.0,
    )
    """Where the first of them stands, degrees from x to z; assets are seen from all around."""
    lr: Rate = 2e-3
    """Learning rate, after a warm-up over a fiftieth of the training; it falls as a cosine."""
    pictures: AssetOptions = field(default_factory=AssetOptions)
    guidance: GuidanceOptions = field(
        default_factory=lambda: GuidanceOptions(
            weight=1.0, start=0.0, crop="none", size=32, difference="squared"
        )
    )
    """Counts where there is a prior."""

    def __post_init__(self) -> None:
        if self.lowest > self.highest:
            raise UsageError(f"elevations from {self.lowest} to {self.highest} degrees")
        if self.text_encoder and self.word_vectors is not None:
            raise UsageError(
                "a text encoder reads all words by itself",
                fix="leave --word-vectors out, or --text-encoder",
            )
        if math.isqrt(self.views) ** 2 != self.views:
            raise UsageError(f"{self.views} views make no square", fix="give --views 1, 4 or 9")

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """An untrained network, which makes balls."""
        if self.assets is None and task.prior is None:
            raise UsageError(
                "nothing tells it what texts look like", where=f"the method {self.name!r}",
                fix="give --assets FOLDER of captioned meshes, or --prior and --texts",
            )  # fmt: skip
        meshes: Any = self.representation_class()
        return meshes.untrained(task, self, generator)

    def world(self) -> World:
        """White behind what is made."""
        from scene4d.representations.task import World

        return World(background=(1.0, 1.0, 1.0), extent=1.0)

    def conditions(self) -> Sequence[str]:
        """The captions, or the lines of the file of texts."""
        from scene4d.files import read_text
        from scene4d.methods.text_mesh.assets import read_captions

        if self.texts is not None:
            lines = read_text(self.texts).splitlines()
            return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        return () if self.assets is None else read_captions(self.assets)

    def poses(self) -> Poses:
        """All around."""
        from scene4d.cameras.around import CamerasOnSphere

        return CamerasOnSphere(
            distance=self.distance, view_angle=math.radians(40.0), size=self.guidance.size or 32,
            lowest=self.lowest, highest=self.highest, azimuths=self.azimuths, views=self.views,
        )  # fmt: skip

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The meshes, where there are some."""
        return [] if self.assets is None else [replace(self.pictures, folder=self.assets)]

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Up, then down to a hundredth."""
        return min(1.0, progress / 0.02) * (0.01 + 0.495 * (1 + math.cos(math.pi * progress)))


TEXT_MESH = TextMeshMethod
