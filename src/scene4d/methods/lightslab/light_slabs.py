"""A light field on slabs: a picture is decoded from the features of a coarse bundle of its rays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import Rays, rays_at
from scene4d.errors import DataError
from scene4d.methods.lightslab.block_transform import FREQUENCIES as MOST_FREQUENCIES
from scene4d.methods.lightslab.block_transform import steps_for
from scene4d.methods.lightslab.decoder import HALO, Decoder, DecoderShape
from scene4d.methods.lightslab.first_slabs import MPI_SHARE, placed, sizes
from scene4d.methods.lightslab.mpi import BLOCK, CHANNELS, MultiplaneImages, seen_by
from scene4d.methods.lightslab.planes import FeaturePlanesShape, rounded
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.methods.lightslab.stored_mpi import (
    FINEST,
    FREQUENCIES,
    RoundedTexels,
    fitting_steps,
)
from scene4d.plain import from_table
from scene4d.ranges import NotNegative, Positive, Within
from scene4d.rendering.fields.plane_lookup import lookup_planes
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.content import find_content
from scene4d.representations.method import downscale_at
from scene4d.representations.saved import Form, form, module_forms

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.lightslab.method import LightSlabMethod

SAME_SCALE = 1.05
"""Pictures whose scale differs from the trained one's by less are decoded as they are."""
MAX_SHRINK = 4.0
"""Pictures are decoded at most this many times larger than they are asked for."""
OPAQUE = 3.0
"""Added to alpha before its sigmoid where nothing is transparent."""
MPI_MACS = 18
"""Of a ray on an MPI plane: bilinear, then over, of 4 channels, and transmittance and depth."""
MAX_SINH = 6.0
"""Bound of the depth head before sinh: 200 times the content's size."""


@dataclass(frozen=True, kw_only=True)
class LightSlabsSettings:
    """What is neither a tensor nor a size."""

    planes_lr: NotNegative = 0.02
    decoder_lr: NotNegative = 2e-3
    quantise_at: NotNegative = 2.0
    """Share of training from which planes are rounded."""
    bits: Annotated[int, Within(2, 8)] = 8
    content_radius: Positive = 1.0
    """Unit of depths, scene units."""
    opaque: bool = True
    """Training starts from an opaque picture."""
    mpi_lr: NotNegative = 3e-3
    mpi_steps: Sequence[Sequence[Annotated[int, Within(0, 1 << 24)]]] = field(
        default_factory=lambda: steps_for(FINEST, FREQUENCIES).tolist()
    )
    """[4, frequencies]: of what MPIs hold, as it is stored."""
    mpi_bytes: NotNegative = 0.0
    """Of a bundle for MPIs, about: when rounding starts, the steps become such; 0: they stay."""
    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """The method's, of its training pictures."""
    full_resolution_at: NotNegative = 0.0
    """The method's, of its training pictures."""

    def downscale(self, progress: float) -> int:
        """How many times smaller the training pictures are at ``progress`` (0..1)."""
        return downscale_at(progress, self.coarsest_downscale, self.full_resolution_at)

    def __post_init__(self) -> None:
        sizes = [len(steps) for steps in self.mpi_steps]
        if sizes not in [[count] * CHANNELS for count in range(1, MOST_FREQUENCIES + 1)]:
            raise ValueError(
                f"MPIs have {sizes} steps, expected as many for each of {CHANNELS} channels, "
                f"1 to {MOST_FREQUENCIES}"
            )


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """:meth:`LightSlabs.plain_data`, as it may be."""

    planes: FeaturePlanesShape
    decoder: DecoderShape
    settings: LightSlabsSettings
    overlap: Positive
    progress: NotNegative

    def __post_init__(self) -> None:
        if self.decoder.inputs != self.planes.feature_planes().width:
            raise ValueError(f"the decoder takes {self.decoder.inputs} features of other planes")


class LightSlabs(Representation):
    """Feature planes of light slabs, and the one decoder of all of them."""

    content_centre: Tensor
    focal: Tensor
    """Of the pictures that it is trained on, at their full size, in pixels; 0: not known."""

    def __init__(
        self,
        *,
        slabs: Slabs,
        planes: FeaturePlanesShape,
        decoder: DecoderShape,
        settings: LightSlabsSettings,
        content_centre: Float[Tensor, " 3"],
        mpi: MultiplaneImages | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """With ``mpi``, the decoder adds to what is seen of them, at first nothing."""
        super().__init__()
        self.slabs = slabs
        self.planes = planes
        self.settings = settings
        self.register_buffer("content_centre", content_centre)
        self.register_buffer("focal", torch.zeros(()))
        self.feature_planes = planes.feature_planes()
        texels, features = self.feature_planes.texels, self.feature_planes.features
        start = torch.rand(texels, features, generator=generator) * 0.2 - 0.1
        self.table = nn.Parameter(start)
        self.decoder = Decoder(decoder, generator=generator)
        self.mpi = mpi
        self._rounded = RoundedTexels()
        if mpi is not None:
            self.decoder.start_from_nothing()
        self.progress = 0.0

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``; where no training camera saw such rays, the background.

        ``features`` is the coverage, 1 channel: 1 where rays were seen, 0 where nobody knows.
        """
        seen = self._at_trained_scale(camera)
        batch = camera.c2w.shape[:-2]
        flat = replace(
            seen, c2w=seen.c2w.reshape(-1, 4, 4), K=seen.K.expand(*batch, 3, 3).reshape(-1, 3, 3)
        )
        maps = self._shown(flat, depth=want.depth)
        picture = _resized(torch.cat(maps, dim=1), camera.width, camera.height)
        picture = picture.permute(0, 2, 3, 1).reshape(*batch, camera.height, camera.width, -1)
        rgb, alpha = picture[..., :3], picture[..., 3]
        if background is not None:
            rgb = rgb + (1 - alpha)[..., None] * background
        return Render(
            rgb=rgb,
            alpha=alpha,
            depth=picture[..., 5] if want.depth else None,
            features=picture[..., 4:5],
        )

    def _shown(self, camera: Camera, *, depth: bool) -> list[Tensor]:
        """Premultiplied colour, alpha, coverage and, if asked for, depth: [n, _, height, width]."""
        raw, coverage = self._decoded(camera)
        if self.mpi is None:
            alpha = torch.sigmoid(raw[:, 3]) * coverage
            maps = [torch.sigmoid(raw[:, :3]) * alpha[:, None], alpha[:, None], coverage[:, None]]
            return [*maps, self._depth(camera, raw[:, 4], alpha)[:, None]] if depth else maps
        seen, coverage, distance = self._on_mpi(camera)
        added = seen + raw[:, :4]
        # Clamped with the gradient of what is not, or nothing could bring back what is beyond.
        added = added.clamp(0, 1).detach() + (added - added.detach())
        shown = added * coverage[:, None]
        maps = [shown[:, :3], shown[:, 3:], coverage[:, None]]
        return [*maps, (distance * (coverage > 0))[:, None]] if depth else maps

    def _on_mpi(self, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """Colour and alpha [n, 4, height, width], coverage and depth [n, height, width]."""
        assert self.mpi is not None
        rays = _bundle(camera, 1.0, camera.height, camera.width, 0)
        found = self.slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        values = seen_by(self.mpi, found, self.slabs, texels=self.shown_texels())
        forward = -camera.c2w[:, :3, 2]
        cosine = (rays.directions * forward[:, None]).sum(dim=-1).reshape(-1)
        distance = values[:, 4] * cosine / values[:, 3].clamp_min(1e-6)
        size = (camera.c2w.shape[0], camera.height, camera.width)
        colours = values[:, :4].view(*size, 4).permute(0, 3, 1, 2)
        return colours, found.coverage.view(size), distance.clamp_min(0).view(size)

    def shown_texels(self) -> Float[Tensor, "blocks 8 8 4"]:
        """Of the MPIs: as they are, and late in training and after it as they are stored."""
        assert self.mpi is not None
        if self.progress < self.settings.quantise_at:
            texels: Tensor = self.mpi.texels
            return texels
        return self._rounded.of(self.mpi)

    def _at_trained_scale(self, camera: Camera) -> Camera:
        """The camera at the resolution that the decoder knows: it makes blocks of pixels, and how
        much of the scene a block shows is learned, of pictures as large as training has them."""
        focal = camera.K[..., 0, 0].detach().mean()
        learned = self.focal / self.settings.downscale(self.progress)
        ratio = min(float(learned / focal), MAX_SHRINK)
        if ratio == 0 or abs(math.log(ratio)) < math.log(SAME_SCALE):
            return camera
        size = (max(1, round(n * ratio)) for n in (camera.width, camera.height))
        return camera.resized(*size)

    def _decoded(self, camera: Camera) -> tuple[Tensor, Tensor]:
        """Raw outputs [n, 5, height, width] and coverage [n, height, width]."""
        shape = self.decoder.shape
        step, per = shape.upsampling, shape.samples
        rows, columns = -(-camera.height // step) * per, -(-camera.width // step) * per
        features, covered = self._features(_bundle(camera, step / per, rows, columns, HALO * per))
        size = (camera.c2w.shape[0], rows + 2 * HALO * per, columns + 2 * HALO * per)
        raw = self.decoder(features.view(*size, -1))[..., : camera.height, : camera.width]
        start = raw.new_tensor([0, 0, 0, OPAQUE if self.settings.opaque else 0.0, 0])
        covered = interpolate(
            covered.view(size[0], 1, *size[1:]),
            scale_factor=step // per,
            mode="bilinear",
            align_corners=False,
        )
        covered = covered[:, 0, step * HALO :, step * HALO :]
        covered = covered[:, : camera.height, : camera.width]
        return raw + start[:, None, None], covered

    def _features(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Blended features [rays, width] and coverage [rays]."""
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        found = self.slabs(origins, directions)
        values = lookup_planes(found.coordinates, self._table(), self.feature_planes, found.slab)
        if self.planes.slabs == 1:
            return values, found.coverage
        blended = torch.zeros(
            len(origins), values.shape[1], dtype=values.dtype, device=values.device
        )
        return blended.index_add(0, found.ray, values * found.weight[:, None]), found.coverage

    def _table(self) -> Tensor:
        if self.progress < self.settings.quantise_at:
            return self.table
        return rounded(self.table, self.feature_planes, self.settings.bits)

    def _depth(self, camera: Camera, raw: Tensor, alpha: Tensor) -> Tensor:
        """Along the viewing axis: the ray's point next to the content's centre, moved along the
        ray by sinh(raw) times the content's radius, which no slab or camera changes."""
        rays = _bundle(camera, 1.0, camera.height, camera.width, 0)
        nearest = ((self.content_centre - rays.origins) * rays.directions).sum(dim=-1)
        move = torch.sinh(raw.clamp(-MAX_SINH, MAX_SINH)) * self.settings.content_radius
        along = nearest.reshape(raw.shape) + move
        forward = -camera.c2w[:, :3, 2]
        cosine = (rays.directions * forward[:, None]).sum(dim=-1).reshape(raw.shape)
        return torch.where(alpha > 0, (along * cosine).clamp_min(0), torch.zeros_like(along))

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        options: LightSlabMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> LightSlabs:
        """Untrained, placed by the scene's training cameras and what is known of its surfaces."""
        cameras = scene.train_cameras()
        content = find_content(scene, teacher)
        slabs, first = placed(cameras, content, options, teacher)
        shape, decoder = sizes(options, slabs)
        centre = content.points.median(dim=0).values
        radius = float((content.points - centre).norm(dim=-1).median())
        settings = LightSlabsSettings(
            planes_lr=options.planes_lr,
            decoder_lr=options.decoder_lr,
            quantise_at=options.quantise_at,
            bits=options.bits,
            content_radius=max(radius, 1e-6),
            opaque=first is None and not content.bounded,
            mpi_lr=options.mpi_lr,
            mpi_bytes=options.max_mb * 1e6 * MPI_SHARE,
            coarsest_downscale=options.coarsest_downscale,
            full_resolution_at=options.full_resolution_at,
        )
        if first is not None:
            settings = replace(settings, mpi_steps=first.steps.tolist())
        built = cls(
            slabs=slabs,
            planes=shape,
            decoder=decoder,
            settings=settings,
            content_centre=centre,
            mpi=None if first is None else first.mpi,
            generator=generator,
        )
        built.focal.copy_(torch.stack([camera.K[0, 0] for camera in cameras]).mean())
        return built

    def parameter_groups(self) -> list[ParameterGroup]:
        """Planes, decoder and MPIs."""
        mpi = (
            []
            if self.mpi is None
            else [
                ParameterGroup(
                    name="mpi",
                    parameters=[self.mpi.texels],
                    learning_rate=self.settings.mpi_lr,
                )
            ]
        )
        return [
            *mpi,
            ParameterGroup(
                name="planes", parameters=[self.table], learning_rate=self.settings.planes_lr
            ),
            ParameterGroup(
                name="decoder",
                parameters=list(self.decoder.parameters()),
                learning_rate=self.settings.decoder_lr,
                eps=1e-8,
            ),
        ]

    def plain_data(self) -> Mapping[str, Any]:
        """Sizes and settings."""
        return {
            "planes": self.planes.plain(),
            "decoder": self.decoder.shape.plain(),
            "settings": dict(self.settings.__dict__),
            "overlap": self.slabs.overlap,
            "progress": self.progress,
        }

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> LightSlabs:
        """Built again from a checkpoint."""
        saved = from_table(_Saved, plain, where="settings")
        if float(tensors["focal"]) < 0:
            raise DataError(f"is {float(tensors['focal']):g}, and lengths are positive",
                            where="focal")  # fmt: skip
        names = ("rotations", "viewpoints", "disparities", "low", "high")
        scene = cls(
            slabs=Slabs(**{k: tensors[f"slabs.{k}"] for k in names}, overlap=saved.overlap),
            planes=saved.planes,
            decoder=saved.decoder,
            settings=saved.settings,
            content_centre=tensors["content_centre"],
            mpi=_saved_mpi(tensors),
        )
        scene.load_state_dict(dict(tensors))
        scene.progress = saved.progress
        scene.round_mpi()
        return scene

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """As many slabs and planes as the sizes say; MPIs on all of them, or none."""
        saved = from_table(_Saved, plain, where="settings")
        slabs, planes = saved.planes.slabs, saved.planes.depths
        texels = saved.planes.feature_planes()
        has_mpi = {
            "mpi.stored": form(f"{slabs} {planes} down across", torch.bool, optional=True),
            "mpi.levels": form("blocks", torch.uint8, optional=True),
            "mpi.texels": form(f"blocks {BLOCK} {BLOCK} {CHANNELS}", optional=True),
        }
        return {
            "slabs.rotations": form(f"{slabs} 3 3"),
            "slabs.viewpoints": form(f"{slabs} 3"),
            "slabs.disparities": form(f"{slabs} {planes}"),
            "slabs.low": form(f"{slabs} {planes} 2"),
            "slabs.high": form(f"{slabs} {planes} 2"),
            "content_centre": form("3"),
            "focal": form(""),
            "table": form(f"{texels.texels} {texels.features}"),
            **module_forms(partial(Decoder, saved.decoder), within="decoder"),
            **has_mpi,
        }

    def on_progress(self, progress: float) -> None:
        """Planes and MPIs are rounded late in training; MPIs are kept between 0 and 1."""
        begins = self.progress < self.settings.quantise_at <= progress
        self.progress = progress
        if self.mpi is None:
            return
        with torch.no_grad():
            self.mpi.texels.clamp_(0, 1)
        if begins and self.settings.mpi_bytes:
            # What was learned takes more of a file than what training started from.
            steps = fitting_steps(self.mpi, self.settings.mpi_bytes)
            self.settings = replace(self.settings, mpi_steps=steps.tolist())
        if progress >= self.settings.quantise_at:
            self._rounded.refresh(self.mpi, np.array(self.settings.mpi_steps))

    def round_mpi(self) -> None:
        """Takes the MPIs as they are stored, where they are shown so."""
        if self.mpi is not None and self.progress >= self.settings.quantise_at:
            steps = np.array(self.settings.mpi_steps)
            self._rounded.refresh(self.mpi, steps, exactly=True)

    def macs(self, width: int, height: int) -> int:
        """Multiply-accumulates for a picture whose rays are in one slab: of the decoder, and of
        reading and compositing MPIs; look-ups of features not counted."""
        mpi = 0 if self.mpi is None else MPI_MACS * self.slabs.num_planes * width * height
        return self.decoder.shape.macs(width, height) + mpi

    def num_bytes(self, bits: int = 8) -> int:
        """Of planes and decoder at ``bits`` a value, before entropy coding."""
        values = self.table.numel() + sum(p.numel() for p in self.decoder.parameters())
        return values * bits // 8

    def describe(self) -> dict[str, float]:
        """Slabs, megabytes at 8 bits, and GMAC of a frame of 800 x 800."""
        return {
            "slabs": float(self.planes.slabs),
            "mpi_blocks": 0.0 if self.mpi is None else float(self.mpi.num_blocks),
            "planes_and_decoder_mb": self.num_bytes() / 1e6,
            "gmac_800": self.macs(800, 800) / 1e9,
        }


def _bundle(camera: Camera, step: float, rows: int, columns: int, ring: int) -> Rays:
    """Rays through the middles of squares of ``step`` pixels, ``ring`` of them beyond each edge:
    [n, (rows + 2 ring) * (columns + 2 ring), 3]."""
    K = camera.K
    y = (torch.arange(-ring, rows + ring, device=K.device) + 0.5) * step
    x = (torch.arange(-ring, columns + ring, device=K.device) + 0.5) * step
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2).to(K.dtype)
    return rays_at(camera, pixels.expand(K.shape[0], -1, 2))


def _resized(
    maps: Float[Tensor, "n channels _ _"], width: int, height: int
) -> Float[Tensor, "n channels {height} {width}"]:
    if maps.shape[-2:] == (height, width):
        return maps
    return interpolate(
        maps, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )


def _saved_mpi(tensors: Mapping[str, Tensor]) -> MultiplaneImages | None:
    if "mpi.stored" not in tensors:
        return None
    names = ("stored", "texels", "levels")
    lacking = [name for name in names if f"mpi.{name}" not in tensors]
    if lacking:
        raise DataError(f"lacks the {', '.join(lacking)} of its MPIs")
    return MultiplaneImages(**{name: tensors[f"mpi.{name}"] for name in names})
