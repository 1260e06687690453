"""Settings of the exporters that have any; light to import, for the command line's help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from scene4d.errors import UsageError
from scene4d.ranges import Count, Positive, Share, Within

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")


@dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """How a mesh is made from rendered depth (format mesh)."""

    voxel: Positive | None = None
    """Edge of a voxel in scene units; None: 1.5 pixels wide at the median depth."""
    depth_limit: Positive | None = None
    """Surfaces farther from a camera are left out, scene units; None: 3 times the median depth."""
    max_cameras: Count = 200
    """Training cameras to render from, evenly spread when there are more."""
    min_cluster: Share = 0.05
    """Connected parts with fewer triangles than this share of the largest part's are dropped."""

    def __post_init__(self) -> None:
        for name in ("voxel", "depth_limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"--{name.replace('_', '-')} must be positive, got {value}")
        if self.max_cameras < 1 or not 0 <= self.min_cluster <= 1:
            raise UsageError("--max-cameras must be 1 or more, --min-cluster from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class GlbOptions:
    """How a textured mesh is written (format glb)."""

    profile: Literal["ar", "web"] = "ar"
    """ar: float32 and JPEG, which every viewer reads; web: a third as large, for viewers that know
    KHR_mesh_quantization, EXT_meshopt_compression and EXT_texture_webp."""
    unlit: bool = True
    """Colours are shown as they were photographed; --no-unlit: light falls on them once more."""
    stands: bool = False
    """Turned as the photographs were held, with its foot at the origin, as it stands in AR; USDZ
    always does. Otherwise in the capture's own frame, whose y down is turned up."""


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """How a bundle is written (format bundle)."""

    target_mb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Size of the file in MB (10^6 bytes), met within 2% by coarser or finer steps, of what moves
    also without the Gaussians that show least."""

    def __post_init__(self) -> None:
        if self.target_mb is not None and not 0 < self.target_mb < float("inf"):
            raise UsageError(f"--target-mb must be positive, got {self.target_mb}")


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """How a scene that moves is written picture by picture (format ply-sequence)."""

    sequence_fps: Annotated[float, Within(0.0, 1000.0, above=True)] = 24.0
    """Files for a second of the scene."""


@dataclass(frozen=True, kw_only=True)
class StraightOptions:
    """How curved motion becomes straight pieces (format 4dgs)."""

    straight_error: Annotated[float, Within(0.0, 100.0, above=True)] = 0.25
    """How far a splat may be off before its time is cut in two, in its own standard deviations."""


@dataclass(frozen=True, kw_only=True)
class TargetBudget:
    """What a kind of device draws smoothly and loads without a long wait; by default no limit."""

    splats: int = 1 << 62
    sh_degree: int = 3
    size_mb: float = float("inf")
    """MB (10^6 bytes) of the bundle."""


TARGETS: dict[str, TargetBudget] = {
    "phone": TargetBudget(splats=1_000_000, sh_degree=2, size_mb=20),
    "phone-low": TargetBudget(splats=250_000, sh_degree=1, size_mb=5),
    "desktop": TargetBudget(splats=2_500_000, sh_degree=3, size_mb=100),
    "headset": TargetBudget(splats=500_000, sh_degree=1, size_mb=20),
}
"""Budgets by kind of device. phone and desktop: the numbers of splats that Spark, another player of
splats, allows on Android and on desktops; phone-low: a quarter of it, for phones of 3 to 4 GB of
memory; headset: half, because both eyes are drawn. 20 MB take 8 s at 20 Mbit/s. Judgements, not
measured on devices."""


@dataclass(frozen=True, kw_only=True)
class PlayerOptions:
    """How a scene is written with the web player (format player)."""

    target: Literal["phone", "phone-low", "desktop", "headset"] | None = None
    """Keep within what such a device plays: phone 1,000,000 splats, SH degree 2, 20 MB; phone-low
    250,000, 1, 5 MB; desktop 2,500,000, 3, 100 MB; headset 500,000, 1, 20 MB. None: no limits."""
    single_file: bool = False
    """One HTML file with everything in it, instead of a folder; opens from a disk, too."""
    title: str | None = None
    """Name on the page and under the icon; None: the run's experiment or the file's name."""
    embed: tuple[str, ...] = ()
    """Origins (https://example.org) of pages that may steer the player in a frame; others may
    frame it, and only look."""

    def __post_init__(self) -> None:
        for origin in self.embed:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"{origin!r} is no origin", fix="name it like https://example.org, without path"
                )
