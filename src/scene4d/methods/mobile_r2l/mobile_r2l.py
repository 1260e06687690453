"""MobileR2L (arXiv 2212.08057) as a representation: the baseline of light slabs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import pixel_centres, rays_at
from scene4d.errors import DataError
from scene4d.methods.mobile_r2l.network import HALO, Network, NetworkShape
from scene4d.methods.mobile_r2l.ray_points import Kind, RayPoints, place_points
from scene4d.plain import from_table
from scene4d.ranges import NotNegative, Positive, Within
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.content import find_content
from scene4d.representations.saved import Form, form, module_forms

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.mobile_r2l.method import MobileR2lMethod


@dataclass(frozen=True, kw_only=True)
class _SavedPoints:
    kind: Kind
    near: Positive
    far: Positive
    scale: Positive


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """:meth:`MobileR2l.plain_data`, as it may be."""

    shape: NetworkShape
    ray_points: _SavedPoints
    points: Annotated[int, Within(1, 4096)]
    frequencies: Annotated[int, Within(1, 64)]
    learning_rate: NotNegative
    freeze_at: NotNegative


class MobileR2l(Representation):
    """A network from encoded points on rays to colours; it has no depth.

    A crop's picture is the picture's crop, to float rounding, where crops start at multiples of
    ``upsampling`` and outside of training, when running statistics normalise.
    """

    def __init__(
        self,
        shape: NetworkShape,
        ray_points: RayPoints,
        *,
        points: int,
        frequencies: int,
        learning_rate: float = 5e-4,
        freeze_at: float = 0.8,
        generator: torch.Generator | None = None,
    ) -> None:
        """Raises ValueError where ``shape.inputs`` is not what the encoding gives."""
        super().__init__()
        if shape.inputs != encoded_width(points, frequencies):
            raise ValueError(f"{shape.inputs} inputs, {encoded_width(points, frequencies)} given")
        self.ray_points = ray_points
        self.points, self.frequencies = points, frequencies
        self.learning_rate, self.freeze_at = learning_rate, freeze_at
        self.network = Network(shape, generator=generator)
        self.eval()  # until it is told of training's progress

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``; opaque unless the network was built with alpha.

        ``Render.depth`` stays None: the published network has none.
        """
        batch = camera.c2w.shape[:-2]
        c2w, K = camera.c2w.reshape(-1, 4, 4), camera.K.expand(*batch, 3, 3).reshape(-1, 3, 3)
        out = self.network(self._encoded(replace(camera, c2w=c2w, K=K)))
        out = out[..., : camera.height, : camera.width].permute(0, 2, 3, 1)
        shape = (*batch, camera.height, camera.width)
        if out.shape[-1] == 3:
            return Render(rgb=out.reshape(*shape, 3), alpha=out.new_ones(shape))
        rgb, alpha = out[..., :3] * out[..., 3:], out[..., 3]
        if background is not None:
            rgb = rgb + (1 - alpha)[..., None] * background
        return Render(rgb=rgb.reshape(*shape, 3), alpha=alpha.reshape(shape))

    def _encoded(self, camera: Camera) -> Float[Tensor, "n inputs rows columns"]:
        shape = self.network.shape
        columns, rows = (side + 2 * HALO for side in shape.bundle(camera.width, camera.height))
        corner = (pixel_centres(columns, rows, device=camera.K.device) - HALO) * shape.upsampling
        pixels = corner.reshape(-1, 2).to(camera.K.dtype).expand(len(camera.K), -1, -1)
        points = self.ray_points(rays_at(camera, pixels), self.points)
        values = encoded(points.flatten(2), self.frequencies)
        return values.reshape(len(points), rows, columns, -1).permute(0, 3, 1, 2)

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        options: MobileR2lMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> MobileR2l:
        """Untrained. Raises :class:`DataError` where there is no training camera."""
        cameras = scene.train_cameras()
        if not cameras:
            raise DataError("there is no training camera to place points by", where=scene.root)
        content = find_content(scene, teacher)
        shape = NetworkShape(
            inputs=encoded_width(options.points, options.frequencies),
            width=options.width,
            blocks=options.blocks,
            upsampling=options.upsampling,
            outputs=4 if options.alpha else 3,
            activation=options.activation,
        )
        return cls(
            shape,
            place_points(cameras, content, scene.bounds),
            points=options.points,
            frequencies=options.frequencies,
            learning_rate=options.network_lr,
            freeze_at=options.freeze_at,
            generator=generator,
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The network."""
        parameters = list(self.network.parameters())
        return [
            ParameterGroup(
                name="network", parameters=parameters, learning_rate=self.learning_rate, eps=1e-8
            )
        ]

    def plain_data(self) -> Mapping[str, Any]:
        """Sizes, and where points lie."""
        return {
            "shape": self.network.shape.plain(),
            "ray_points": self.ray_points.plain(),
            "points": self.points,
            "frequencies": self.frequencies,
            "learning_rate": self.learning_rate,
            "freeze_at": self.freeze_at,
        }

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> MobileR2l:
        """Built again from a checkpoint."""
        saved = from_table(_Saved, plain, where="settings")
        ray_points = RayPoints(
            centre=tensors["ray_points.centre"],
            rotation=tensors["ray_points.rotation"],
            **vars(saved.ray_points),
        )
        names = ("points", "frequencies", "learning_rate", "freeze_at")
        network = cls(saved.shape, ray_points, **{name: getattr(saved, name) for name in names})
        network.load_state_dict(dict(tensors))
        return network

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """As the network's sizes say."""
        saved = from_table(_Saved, plain, where="settings")
        return {
            "ray_points.centre": form("3"),
            "ray_points.rotation": form("3 3"),
            **module_forms(partial(Network, saved.shape), within="network"),
        }

    def on_progress(self, progress: float) -> None:
        """Batches' own statistics normalise where gradients are taken, until late in training."""
        self.train(progress < self.freeze_at)

    def macs(self, width: int, height: int) -> int:
        """Multiply-accumulates for a picture, as published: without the halo."""
        return self.network.shape.macs(width, height)

    def num_bytes(self, bits: int = 8) -> int:
        """Of the network at ``bits`` a value, before entropy coding."""
        return self.network.shape.parameters() * bits // 8

    def describe(self) -> dict[str, float]:
        """Megabytes at 8 bits, and GMAC of a frame of 800 x 800."""
        return {
            "mb_at_8_bits": self.num_bytes() / 1e6,
            "gmac_800": self.macs(800, 800) / 1e9,
        }


def encoded_width(points: int, frequencies: int) -> int:
    """Channels of :func:`encoded` for points of three coordinates."""
    return points * 3 * (1 + 2 * frequencies)


def encoded(values: Float[Tensor, "*n c"], frequencies: int) -> Float[Tensor, "*n k"]:
    """The values, and sine and cosine of 1, 2, 4, ... times them (NeRF, section 5.1; as in R2L
    without the factor pi)."""
    octaves = 2.0 ** torch.arange(frequencies, device=values.device, dtype=values.dtype)
    angles = (values[..., None] * octaves).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
