"""The bundle kind ``lightslab``: feature planes of light slabs, their decoder, and their MPIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scene4d.bundle.coding import Coded
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind
from scene4d.methods.lightslab.bundle_content import (
    KIND,
    LightSlabArrays,
    content_of,
    decode_light_slab,
    encode_light_slab,
)

if TYPE_CHECKING:
    from scene4d.methods.lightslab.light_slabs import LightSlabs

_CONTENT_REACH = 2.0
"""The box of a light field's content, in its radii, within which half of its points lie."""


_EARLIER_NAMES = {"sheets", "planes"}  # of an earlier version's entry; now mpi, feature_planes


class LightSlabKind(BundleKind):
    """A light field: a picture costs the same whatever the size of the file."""

    name = KIND

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> LightSlabArrays:
        """Planes, layers and texels."""
        return decode_light_slab(bundle, stages=stages)

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """The numbers of slabs, planes and blocks."""
        return content_of(manifest)

    def from_earlier_version(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the entry has names from before format 1.0."""
        entry = manifest.get(KIND)
        return isinstance(entry, dict) and not _EARLIER_NAMES.isdisjoint(entry)

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """Sizes of slabs, planes, MPIs and network."""
        shape = bundle.manifest[KIND]
        slabs, features = len(shape["slabs"]), shape["features"]
        mpi = shape.get("mpi")
        texels = sum(plane["columns"] * plane["rows"] for plane in shape["feature_planes"])
        return {
            "slabs": slabs,
            "depths": len(shape["slabs"][0]["disparities"]),
            "feature_planes": len(shape["feature_planes"]),
            "plane_values": slabs * features * texels,
            "mpi": mpi and f"{mpi['columns']} x {mpi['rows']}, {mpi['blocks']:,} blocks",
            "network": shape["decoder"],
            "focal_length": shape["focal"],
        }

    def takes(self, representation: Any) -> bool:
        """Whether it is a light field on slabs."""
        from scene4d.methods.lightslab.light_slabs import LightSlabs

        return isinstance(representation, LightSlabs)

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """At the trained steps, ``factor`` times coarser."""
        from scene4d.methods.lightslab.bundle_parts import light_slab_parts

        return encode_light_slab(light_slab_parts(representation, factor=factor))

    def open(self, bundle: Bundle) -> LightSlabs:
        """The light field at the bits that it was stored with."""
        from scene4d.methods.lightslab.bundle_parts import light_slabs_of

        return light_slabs_of(self.decode(bundle))

    def content_box(self, representation: Any) -> tuple[np.ndarray, np.ndarray]:
        """A cube around the content's centre."""
        centre = representation.content_centre.cpu().double().numpy()
        reach = _CONTENT_REACH * representation.settings.content_radius
        return centre - reach, centre + reach

    def stored_line(self, representation: Any) -> str:
        """The numbers of slabs, planes and blocks."""
        count = representation.planes.slabs
        told = f"a light field of {count} slab{'s' * (count > 1)}"
        told += f" and {len(representation.feature_planes.planes)} planes"
        mpi = representation.mpi
        return told + (f", with {mpi.num_blocks:,} blocks of MPIs" if mpi else "")
