"""The bundle kind ``splats4d``: Gaussians of which some move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scene4d.bundle.coding import Coded
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind, splats_line
from scene4d.bundle.splats import default_importance
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.deformable.bundle_content import (
    MotionQuantisation,
    decode_moving,
    encode_splats4d,
)
from scene4d.methods.deformable.bundle_manifest import KIND, entry_faults, motion_rate

if TYPE_CHECKING:
    from scene4d.methods.deformable.deformable import DeformableSplats


class Splats4dKind(BundleKind):
    """Gaussians, and the motion of some of them in chunks of time."""

    name = KIND
    made_of_splats = True
    leaves_out = True

    def __init__(self, shown: Callable[[], np.ndarray] | None = None) -> None:
        """``shown``: how much of what one sees each Gaussian is; None: by opacity and size."""
        self.shown = shown

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
        """As they are when the motion begins, in coding order."""
        found = decode_moving(bundle, stages=stages)
        return found.at(found.moving.start_s)

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """The number of splats, and how long they move at how many bytes a second."""
        return f"{splats_line(manifest)}, {self.motion_line(manifest)}"

    def motion_line(self, manifest: Mapping[str, Any]) -> str:
        """For how long, and how many bytes a second that takes."""
        duration, (_, rate) = manifest[KIND]["duration"], motion_rate(manifest)
        if not manifest[KIND]["nodes"]:
            return "nothing moves"
        return f"moving for {duration:g} s at {rate / 1e3:.1f} kB a second"

    def faults(self, manifest: Mapping[str, Any]) -> list[str]:
        """Of the chunks of time."""
        return list(entry_faults(manifest))

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """The motion's time, nodes, chunks and bytes."""
        entry = bundle.manifest[KIND]
        size, rate = motion_rate(bundle.manifest)
        return {
            "times": [entry["start"], entry["start"] + entry["duration"]],
            "nodes": entry["nodes"],
            "chunks": len(entry["chunks"]),
            "motion_bytes": size,
            "motion_kb_per_second": round(rate / 1e3, 2),
        }

    def takes(self, representation: Any) -> bool:
        """Whether it is splats of which some follow nodes."""
        from scene4d.methods.deformable.deformable import DeformableSplats

        return isinstance(representation, DeformableSplats)

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """With the default steps, ``factor`` times coarser."""
        return encode_splats4d(representation.moving(), MotionQuantisation().coarser(factor))

    def in_order(self, shown: Callable[[], np.ndarray]) -> Splats4dKind:
        """What shows most is kept."""
        return Splats4dKind(shown)

    def reduced(self, representation: Any, most: int, sh_degree: int) -> DeformableSplats:
        """Without what shows least, whenever that is seen; what is left still moves."""
        from scene4d.exporters.edit import with_sh_degree
        from scene4d.methods.deformable.deformable import DeformableSplats

        moving = representation.moving()
        if len(moving) > most:
            score = self.shown() if self.shown else default_importance(moving.cloud)
            order = np.argsort(-score, kind="stable")
            moving = moving.taken(np.sort(order[:most]))
        return DeformableSplats.of(replace(moving, cloud=with_sh_degree(moving.cloud, sh_degree)))

    def open(self, bundle: Bundle) -> DeformableSplats:
        """As what moves."""
        from scene4d.methods.deformable.deformable import DeformableSplats

        return DeformableSplats.of(decode_moving(bundle).moving)
