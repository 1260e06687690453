"""The bundle kind ``splats``: plain Gaussians, quantised and coded."""

from __future__ import annotations

from collections.abc import Mapping
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
)
from scene4d.formats.splat_cloud import SplatCloud

if TYPE_CHECKING:
    from scene4d.representations.gaussians import GaussianSplats


class SplatsKind(BundleKind):
    """Gaussians, each with all its attributes."""

    name = KIND
    made_of_splats = True

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
        return encode_splats(representation.splats(), steps)

    def open(self, bundle: Bundle) -> GaussianSplats:
        """As they are."""
        from scene4d.representations.gaussians import GaussianSplats

        return GaussianSplats.of(self.decode(bundle))
