"""The kinds of bundle that hold Gaussians, and how each is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scene4d.bundle import lpgs, splats
from scene4d.bundle.container import Bundle
from scene4d.splat_cloud import SplatCloud

DECODERS: Mapping[str, Callable[..., SplatCloud]] = {
    splats.KIND: splats.decode_splats,
    lpgs.KIND: lpgs.decode_splats,
}


def decoded_splats(bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
    """The Gaussians of a bundle of any kind, in bundle coordinates; of its first ``stages``."""
    return DECODERS[bundle.manifest["kind"]](bundle, stages=stages)
