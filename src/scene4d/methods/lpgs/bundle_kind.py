"""The bundle kind ``lpgs``: parent/child splats, with the network that predicts children."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scene4d.bundle.coding import Coded
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind, splats_line
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lpgs.bundle_content import KIND, decode_splats, encode_lpgs

if TYPE_CHECKING:
    from scene4d.representations.gaussians import GaussianSplats


class LpgsKind(BundleKind):
    """Parents' codes, masks of their children, and a network; decoded once into plain splats."""

    name = KIND
    made_of_splats = True
    trains_sizes = True

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
        """Parents, then children."""
        return decode_splats(bundle, stages=stages)

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """The number of splats and their harmonics."""
        return splats_line(manifest)

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """The number of parents, and the network's shape."""
        manifest = bundle.manifest
        parents = sum(stage["points"] for stage in manifest["stages"])
        return {"parents": parents, "network": manifest[KIND]}

    def takes(self, representation: Any) -> bool:
        """Whether it is a parent/child scene."""
        from scene4d.methods.lpgs.parent_child import ParentChildSplats

        return isinstance(representation, ParentChildSplats)

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """At the trained steps, ``factor`` times coarser."""
        from scene4d.methods.lpgs.bundle_parts import lpgs_parts

        return encode_lpgs(lpgs_parts(representation, factor=factor))

    def reduced(self, representation: Any, most: int, sh_degree: int) -> Any:
        """Without the parents whose masks are lowest, and their children; of fewer harmonics as
        plain splats, as the network tells all of them."""
        from scene4d.methods.lpgs.bundle_parts import without_least

        if sh_degree < representation.structure.sh_degree:
            return None
        return without_least(representation, most)

    def open(self, bundle: Bundle) -> GaussianSplats:
        """As plain splats."""
        from scene4d.representations.gaussians import GaussianSplats

        return GaussianSplats.of(self.decode(bundle))

    def trained_mb(self, representation: Any) -> float | None:
        """The method's ``target_mb``."""
        size: float | None = representation.settings.target_mb
        return size
