"""Makes the conformance bundles again: ``python mobile_export/make_conformance.py``.

``conformance/good``: bundles (and one unpacked folder) with ``NAME.json`` beside each: the codes of
every array, and the splats, the maps of pictures or the mesh that a decoder must get.
``conformance/bad``: bundles that must be refused; ``errors.json`` says why, and a part of the text
that scene4d's error has.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conformance_bad import bad
from conformance_light import expected_maps, light_fields, light_info
from conformance_mesh import expected_mesh, meshes
from conformance_motion import TIMES, moving_scenes
from conformance_scenes import cloud, crowded, families, scene_of

from scene4d.bundle.arrays import Codebook, CodedArray, uniform
from scene4d.bundle.coding import decode_scene, encode_scene
from scene4d.bundle.columns import quantised
from scene4d.bundle.container import BundleWriter, as_json, open_bundle
from scene4d.bundle.kinds import decoded_splats
from scene4d.bundle.quantise import lloyd_max, quantise_codebook
from scene4d.bundle.scene_info import SceneInfo, default_info, png
from scene4d.bundle.splats import (
    KIND,
    SplatQuantisation,
    bundle_writer,
    quantise_points,
    uniform_array,
    write_splats_bundle,
)
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.deformable.bundle_content import decode_moving, encode_splats4d
from scene4d.methods.lightslab.bundle_content import encode_light_slab
from scene4d.methods.lpgs.bundle_content import encode_lpgs

HERE = Path(__file__).resolve().parent / "conformance"
KINDS = ("lpgs_family", "lightslab_three", "lightslab_mpi_least", "motion_windows", "mesh_seams")
"""Sound bundles that bad ones of other kinds than splats are made of."""


def good(folder: Path) -> None:
    """Writes the good bundles and what they must give; files of other kinds stay."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = SplatQuantisation(position_bits=14)
    scenes = {
        "sh3_two_stages": (cloud(100, 3, 1), replace(steps, stages=(0.3, 1.0), sh_transform=True)),
        "sh2_plain": (cloud(120, 2, 2), replace(steps, sh_transform=False)),
        "sh1_fine_positions": (cloud(80, 1, 3), replace(steps, position_bits=21, dc_step=1e-5)),
        "sh0_three_stages": (cloud(250, 0, 4), replace(steps, stages=(0.1, 0.4, 1.0))),
        "one_splat": (cloud(1, 1, 5), steps),
        "no_splats": (cloud(0, 1, 6), steps),
        "same_place": (crowded(200), replace(steps, position_bits=4)),
    }
    for name, (splats, settings) in scenes.items():
        write_splats_bundle(folder / f"{name}.s4d", splats, settings, info(splats))
    splats = cloud(60, 1, 7)
    write_splats_bundle(folder / "unpacked", splats, steps, info(splats), folder=True)
    codebooks(cloud(140, 1, 8)).write(folder / "codebooks.s4d")
    (folder / "plain_manifest.s4d").write_bytes(plain_manifest(codebooks(cloud(20, 1, 9))))
    for name, parts in families().items():
        settings = SplatQuantisation(stages=(0.4, 1.0) if name == "lpgs_family" else (1.0,))
        coded = encode_lpgs(parts, settings)
        bundle_writer("lpgs", coded, info(splats)).write(folder / f"{name}.s4d")
    for name, light in light_fields().items():
        coded = encode_light_slab(light)
        bundle_writer("lightslab", coded, light_info(info(splats))).write(folder / f"{name}.s4d")
    for name, (moving, motion) in moving_scenes().items():
        coded = encode_splats4d(moving, motion)
        bundle_writer("splats4d", coded, info(moving.cloud)).write(folder / f"{name}.s4d")
    for name, coded in meshes().items():
        bundle_writer("mesh", coded, info(splats)).write(folder / f"{name}.s4d")
    made = (
        *scenes,
        *families(),
        *light_fields(),
        *moving_scenes(),
        *meshes(),
        "codebooks",
        "plain_manifest",
    )
    for name in (*(f"{name}.s4d" for name in made), "unpacked"):
        text = expected(folder / name)
        (folder / name).with_suffix(".json").write_text(text, encoding="ascii")


def info(splats: SplatCloud) -> SceneInfo:
    """A description with a transform, a reference and a moment in time."""
    found = default_info(splats)
    view = replace(found.cameras[0], name="later", time=1.5)
    turn = (
        (0.0, -2.0, 0.0, 5.0),
        (2.0, 0.0, 0.0, -1.0),
        (0.0, 0.0, 2.0, 0.5),
        (0.0, 0.0, 0.0, 1.0),
    )
    tiny = png(np.full((4, 6, 3), 90, dtype=np.uint8))
    return replace(
        found, cameras=(*found.cameras, view), transform=turn, references=((1, tiny),),
        poster=png(np.full((9, 16, 3), 40, dtype=np.uint8)), background=(0.1, 0.2, 0.3),
    )  # fmt: skip


def codebooks(splats: SplatCloud) -> BundleWriter:
    """Scalar codebooks, an SH palette, a mean, an offset: what other writers may choose."""
    points = quantise_points(splats.means, 12, (np.arange(len(splats)) % 2).astype(np.int64))
    order = points.order()
    alpha = 1 / (1 + np.exp(-splats.logit_opacities[order].astype(np.float64)))
    book = lloyd_max(splats.log_scales, 32)
    rest = splats.sh[order, 1:].reshape(len(splats), 9)
    palette, labels = rest[::20], np.arange(len(splats))[:, None] // 20
    dc = splats.sh[order, 0]
    centred = CodedArray(
        name="dc", mean="dc_mean", hints=("opacity.0",), quantiser=uniform(0.02, 3),
        codes=quantised(dc - dc.mean(axis=0), np.full(3, 0.02), np.zeros(3), 0.5),
    )  # fmt: skip
    shifted = CodedArray(
        name="opacity", quantiser=uniform(0.01, 1, offset=0.005),
        codes=quantised(alpha[:, None], np.full(1, 0.01), np.full(1, 0.005), 0.5),
    )  # fmt: skip
    scales = quantise_codebook(splats.log_scales[order], book)
    arrays = [
        fixed("scale_book", book[:, None], 1e-3),
        fixed("sh_palette", palette, 0.01),
        fixed("dc_mean", dc.mean(axis=0)[None], 1e-3),
        shifted,
        CodedArray(name="log_scales", codes=scales, quantiser=Codebook(array="scale_book")),
        uniform_array("rotation", np.zeros((len(splats), 3)), 0.1),
        centred,
        CodedArray(
            name="sh", codes=labels.astype(np.int32), quantiser=Codebook(array="sh_palette"),
            stream="sh", hints=("log_scales.0",),
        ),
    ]  # fmt: skip
    coded = encode_scene(points, arrays)
    manifest = {"count": len(splats), "sh_degree": 1, **coded.manifest}
    return bundle_writer(KIND, replace(coded, manifest=manifest), info(splats))


def plain_manifest(writer: BundleWriter) -> bytes:
    """A file whose manifest is stored as it is."""
    room = len(as_json(writer.manifest()))
    manifest = writer.manifest(spare=room)
    return writer.file_of(as_json(manifest), manifest["members"], deflated=False)


def fixed(name: str, values: np.ndarray, step: float) -> CodedArray:
    """An array that belongs to the first stage as a whole."""
    return replace(uniform_array(name, values.astype(np.float64), step), stage=0, stream="fixed")


def expected(path: Path) -> str:
    """What a good bundle must give as JSON, splats as the shortest text of a float32."""
    bundle = open_bundle(path)
    document: dict[str, Any] = {
        "codes": {name: a.codes.tolist() for name, a in decode_scene(bundle).arrays.items()}
    }
    if bundle.manifest["kind"] == "lightslab":
        document["maps"] = expected_maps(path, scene_of(bundle).cameras)
    elif bundle.manifest["kind"] == "mesh":
        document["mesh"] = expected_mesh(bundle)
    else:
        document["splats"] = splat_values(decoded_splats(bundle))
    if bundle.manifest["kind"] == "splats4d":
        document["at"] = [
            {"time": time, **moved_values(decode_moving(bundle).at(time))} for time in TIMES
        ]
    return json.dumps(document, separators=(",", ":")) + "\n"


def moved_values(splats: SplatCloud) -> dict[str, list[float]]:
    """The attributes that may change with time."""
    values = splat_values(splats)
    return {name: values[name] for name in ("means", "quats", "opacity")}


def splat_values(splats: SplatCloud) -> dict[str, list[float]]:
    """Every attribute, row by row."""
    logits = splats.logit_opacities.astype(np.float64)
    values = {
        "means": splats.means, "quats": splats.quats, "log_scales": splats.log_scales,
        "opacity": (1 / (1 + np.exp(-logits))).astype(np.float32), "sh": splats.sh,
    }  # fmt: skip
    return {name: [digits(v) for v in value.ravel()] for name, value in values.items()}


def digits(value: np.float32) -> float:
    """The shortest decimal that is this float32."""
    return float(np.format_float_positional(value, unique=True))


def main() -> None:
    """Makes all files again."""
    shutil.rmtree(HERE / "bad", ignore_errors=True)
    shutil.rmtree(HERE / "good" / "unpacked", ignore_errors=True)
    good(HERE / "good")
    sound = [HERE / "good" / f"{name}.s4d" for name in KINDS]
    bad(HERE / "bad", _base(), *sound)
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{len(list(HERE.rglob('*')))} files, {size:,} bytes")


def _base() -> Path:
    """The sound bundle from which the bad ones are made."""
    path = HERE / "good" / "base.s4d"
    splats = cloud(40, 1, 10)
    settings = SplatQuantisation(position_bits=12, stages=(0.5, 1.0))
    write_splats_bundle(path, splats, settings, info(splats))
    path.with_suffix(".json").write_text(expected(path), encoding="ascii")
    return path


if __name__ == "__main__":
    main()
