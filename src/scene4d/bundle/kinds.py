"""The kinds of bundle, and how each is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scene4d.bundle import light_slab, lpgs, splats
from scene4d.bundle.container import Bundle
from scene4d.errors import DataError
from scene4d.splat_cloud import SplatCloud

SPLATS: Mapping[str, Callable[..., SplatCloud]] = {
    splats.KIND: splats.decode_splats,
    lpgs.KIND: lpgs.decode_splats,
}
"""Kinds that hold Gaussians."""
DECODERS: Mapping[str, Callable[..., Any]] = {
    **SPLATS,
    light_slab.KIND: light_slab.decode_light_slab,
}


def content_of(manifest: Mapping[str, Any]) -> str:
    """What a bundle of any kind holds, for people."""
    if manifest["kind"] in SPLATS:
        return f"{manifest['count']:,} splats of SH degree {manifest['sh_degree']}"
    return light_slab.content_of(manifest)


def decoded(bundle: Bundle, *, stages: int | None = None) -> Any:
    """What a bundle of any kind holds, in bundle coordinates; its first ``stages``.

    Raises :class:`DataError` where it is not sound.
    """
    return DECODERS[bundle.manifest["kind"]](bundle, stages=stages)


def decoded_splats(bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
    """The Gaussians of a bundle, in bundle coordinates; of its first ``stages``.

    Raises :class:`DataError` where it is not sound or of a kind without Gaussians.
    """
    kind = bundle.manifest["kind"]
    if kind not in SPLATS:
        raise DataError(
            f"is of kind {kind!r}, which is not made of splats",
            where=bundle.path,
            fix=f"play it as it is: scene4d view {bundle.path}",
        )
    return SPLATS[kind](bundle, stages=stages)
