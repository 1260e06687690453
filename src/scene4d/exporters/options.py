"""Settings of the exporters that have any; light to import, for the command line's help."""

from __future__ import annotations

from dataclasses import dataclass

from scene4d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """How a mesh is made from rendered depth (format mesh)."""

    voxel: float | None = None
    """Edge of a voxel in scene units; None: 1.5 pixels wide at the median depth."""
    depth_limit: float | None = None
    """Surfaces farther from a camera are left out, scene units; None: 3 times the median depth."""
    max_cameras: int = 200
    """Training cameras to render from, evenly spread when there are more."""
    min_cluster: float = 0.05
    """Connected parts with fewer triangles than this share of the largest part's are dropped."""

    def __post_init__(self) -> None:
        for name in ("voxel", "depth_limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"--{name.replace('_', '-')} must be positive, got {value}")
        if self.max_cameras < 1 or not 0 <= self.min_cluster <= 1:
            raise UsageError("--max-cameras must be 1 or more, --min-cluster from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """How a bundle is written (format bundle)."""

    target_mb: float | None = None
    """Size of the file in MB (10^6 bytes), met within 2% by coarser or finer steps."""

    def __post_init__(self) -> None:
        if self.target_mb is not None and not 0 < self.target_mb < float("inf"):
            raise UsageError(f"--target-mb must be positive, got {self.target_mb}")
