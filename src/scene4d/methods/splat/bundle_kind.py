"""The bundle kind ``splats``: plain Gaussians, quantised and coded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from scene4d.bundle.coding import Coded
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind, splats_line
from scene4d.bundle.splats import (
    KIND,
    SplatQuantisation,
    coarser_steps,
    decode_splats,
    encode_splats,
    shares_of_stages,
)
from scene4d.formats.splat_cloud import SplatCloud

if TYPE_CHECKING:
    import numpy as np

    from scene4d.representations.gaussians import GaussianSplats


class SplatsKind(BundleKind):
    """Gaussians, each with all its attributes."""

    name = KIND
    made_of_splats = True

    def __init__(self, shown: Callable[[], np.ndarray] | None = None) -> None:
        """``shown``: how much of what one sees each splat is; None: by opacity and size."""
        self.shown = shown

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
        """In coding order."""
        return decode_splats(bundle, stages=stages)

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """The number of splats and their harmonics."""
        return splats_line(manifest)

    def takes(self, representation: Any) -> bool:
        """Whether it is plain splats; what else is made of splats becomes such if need be."""
        from scene4d.representations.gaussians import GaussianSplats

        return isinstance(representation, GaussianSplats)

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """With the default steps of :class:`SplatQuantisation`, ``factor`` times coarser."""
        steps = coarser_steps(SplatQuantisation(), factor)
        cloud = representation.splats()
        staged = len(shares_of_stages(len(cloud), steps)) > 1
        importance = self.shown() if staged and self.shown else None
        return encode_splats(cloud, steps, importance=importance)

    def in_order(self, shown: Callable[[], np.ndarray]) -> SplatsKind:
        """By what shows."""
        return SplatsKind(shown)

    def open(self, bundle: Bundle) -> GaussianSplats:
        """As they are."""
        from scene4d.representations.gaussians import GaussianSplats

        return GaussianSplats.of(self.decode(bundle))
