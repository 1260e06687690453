"""Every fault of a bundle at once, for ``scene4d validate``; readers stop at the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene4d.bundle.container import Bundle, open_bundle
from scene4d.bundle.kinds import kind_of
from scene4d.bundle.manifest import manifest_faults
from scene4d.bundle.scene_info import image_extension
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import split_similarity

_MOST = 50


def bundle_faults(path: Path) -> list[str]:
    """What is wrong with the bundle, one line each; empty when it is sound."""
    try:
        bundle = open_bundle(path)
    except DataError as error:
        return [error.what]
    kind = kind_of(bundle)
    found = list(dict.fromkeys(manifest_faults(bundle.manifest, kind)))[:_MOST]
    found += _member_faults(bundle)
    found += _scene_faults(bundle)
    if not found:
        try:
            kind.decode(bundle)
        except DataError as error:
            found.append(error.what)
    return found


def describe(path: Path) -> str:
    """One line about a sound bundle."""
    bundle = open_bundle(path)
    m = bundle.manifest
    return (
        f"{path}: a sound bundle of kind {m['kind']}, version {m['version']}: "
        f"{kind_of(bundle).describe(m)} in {len(m['stages'])} stages, {bundle.size:,} bytes"
    )


def _member_faults(bundle: Bundle) -> list[str]:
    found = []
    for name in bundle.names():
        try:
            bundle.read(name)
        except DataError as error:
            found.append(error.what)
    return found


def _scene_faults(bundle: Bundle) -> list[str]:
    """Faults of the scene's description that the schema cannot express."""
    manifest, found = bundle.manifest, []
    try:
        split_similarity(np.array(manifest["transform"], dtype=np.float64))
    except DataError as error:
        found.append(f"transform: {error.what}")
    for name in ("content", "cameras"):
        low, high = manifest["limits"][name]
        if any(a > b for a, b in zip(low, high, strict=True)):
            found.append(f"limits.{name} has its corners exchanged")
    for number, camera in enumerate(manifest["cameras"]):
        if camera["c2w"][3] != [0, 0, 0, 1]:
            found.append(f"cameras[{number}].c2w does not end with the row 0 0 0 1")
    for number, reference in enumerate(manifest["references"]):
        if reference["camera"] >= len(manifest["cameras"]):
            found.append(f"references[{number}] is of a camera that does not exist")
    for name in (manifest["poster"], *(r["member"] for r in manifest["references"])):
        if name in bundle.names():
            try:
                image_extension(bundle.read(name))
            except DataError:
                found.append(f"member {name!r} is neither PNG, JPEG nor WebP, or is damaged")
    return list(dict.fromkeys(found))
