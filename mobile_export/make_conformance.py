"""Makes the conformance bundles again: ``python mobile_export/make_conformance.py``.

``conformance/good``: bundles (and one unpacked folder) with ``NAME.json`` beside each: the codes of
every array, and the splats or maps of pictures that a decoder must get. ``conformance/bad``:
bundles that must be refused; ``errors.json`` says why, and a part of the text that scene4d's error
has.
"""

from __future__ import annotations

import copy
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conformance_light import expected_maps, light_fields, light_info
from conformance_scenes import cloud, crowded, families

from scene4d.bundle.arrays import Codebook, CodedArray, uniform
from scene4d.bundle.coding import decode_scene, encode_scene
from scene4d.bundle.columns import quantised
from scene4d.bundle.container import Bundle, BundleWriter, open_bundle
from scene4d.bundle.kinds import decoded_splats
from scene4d.bundle.light_slab import encode_light_slab
from scene4d.bundle.lpgs import encode_lpgs
from scene4d.bundle.quantise import lloyd_max, quantise_codebook
from scene4d.bundle.scene_info import SceneInfo, default_info, info_from, png
from scene4d.bundle.splats import (
    KIND,
    SplatQuantisation,
    bundle_writer,
    quantise_points,
    uniform_array,
    write_splats_bundle,
)
from scene4d.splat_cloud import SplatCloud

HERE = Path(__file__).resolve().parent / "conformance"
KINDS = ("lpgs_family", "lightslab_three", "lightslab_sheets")
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
    for name, parts in families().items():
        settings = SplatQuantisation(stages=(0.4, 1.0) if name == "lpgs_family" else (1.0,))
        coded = encode_lpgs(parts, settings)
        bundle_writer("lpgs", coded, info(splats)).write(folder / f"{name}.s4d")
    for name, light in light_fields().items():
        coded = encode_light_slab(light)
        bundle_writer("lightslab", coded, light_info(info(splats))).write(folder / f"{name}.s4d")
    made = (*scenes, *families(), *light_fields(), "codebooks")
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
    else:
        document["splats"] = splat_values(decoded_splats(bundle))
    return json.dumps(document, separators=(",", ":")) + "\n"


def scene_of(bundle: Bundle) -> SceneInfo:
    """The description in the manifest."""
    return info_from(bundle.manifest, {name: bundle.read(name) for name in bundle.names()})


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


class Altered(BundleWriter):
    """Writes a manifest that was changed after its offsets were set."""

    def __init__(self, path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
        bundle = open_bundle(path)
        super().__init__({})
        self.manifest = copy.deepcopy(bundle.manifest)
        del self.manifest["members"]
        self.data = {name: bundle.read(name) for name in bundle.names()}
        self.alter = alter

    def replace_member(self, name: str, data: bytes) -> None:
        """Another content of a member, with the fitting length and hash."""
        self.data[name] = data

    def manifest_bytes(self) -> bytes:
        """The altered manifest, in the room that the original needs."""
        sound = BundleWriter({**self.manifest, "room": "-" * 1024})
        for name, data in self.data.items():
            sound.add(name, data)
        text = sound.manifest_bytes()
        document = json.loads(text)
        del document["room"]
        told = self.alter(document)
        if isinstance(told, tuple):
            changed = text.replace(*told)
        else:
            changed = json.dumps(document, separators=(",", ":")).encode()
        return changed.ljust(len(text))[: max(len(text), len(changed))]

    def to_bytes(self) -> bytes:
        """The whole file."""
        self._members = self.data
        return super().to_bytes()


def bad(folder: Path, source: Path, family: Path, light: Path, sheets: Path) -> None:
    """Writes the bad bundles and errors.json; ``family`` is a sound bundle of kind lpgs, ``light``
    of kind lightslab, ``sheets`` one with sheets."""
    folder.mkdir(parents=True)
    errors: dict[str, dict[str, str]] = {}

    def save(name: str, data: bytes, reason: str, error: str) -> None:
        (folder / f"{name}.s4d").write_bytes(data)
        errors[f"{name}.s4d"] = {"reason": reason, "error": error}

    sound = source.read_bytes()
    for name, (data, reason, error) in broken_files(sound, source).items():
        save(name, data, reason, error)
    for name, (alter, reason, error) in broken_manifests().items():
        save(name, Altered(source, alter).to_bytes(), reason, error)
    for name, (alter, reason, error) in broken_families().items():
        save(name, Altered(family, alter).to_bytes(), reason, error)
    for name, (alter, reason, error) in broken_lights().items():
        save(name, Altered(light, alter).to_bytes(), reason, error)
    for name, (alter, reason, error) in broken_sheets().items():
        save(name, Altered(sheets, alter).to_bytes(), reason, error)
    told = ("a tile less than is counted", "tiles of sheets are stored, not")
    save("sheets_one_less", one_tile_less(sheets), *told)
    for name, (member, data, reason, error) in broken_members(source).items():
        writer = Altered(source, lambda m: None)
        writer.replace_member(member, data)
        save(name, writer.to_bytes(), reason, error)
    (folder / "errors.json").write_text(json.dumps(errors, indent=1) + "\n", encoding="ascii")


def broken_files(sound: bytes, source: Path) -> dict[str, tuple[bytes, str, str]]:
    """Damage to the file as a whole."""
    entry = open_bundle(source).manifest["members"][1]
    flipped = bytearray(sound)
    flipped[entry["offset"] + 5] ^= 4
    in_manifest = bytearray(sound)
    in_manifest[sound.index(b'"near":') + 9] ^= 1
    return {
        "empty": (b"", "no bytes", "does not start as a ZIP"),
        "not_a_zip": (b"ply\nformat ascii 1.0\n" * 9, "another format", "does not start as a ZIP"),
        "truncated_manifest": (sound[:200], "cut off in the manifest", "cut off"),
        "truncated_member": (sound[: len(sound) // 2], "cut off in a member", "cut off"),
        "truncated_directory": (sound[:-30], "cut off in the ZIP directory", "cut off"),
        "trailing_data": (sound + b"\0" * 64, "data behind the ZIP directory", "data behind it"),
        "bit_flip_member": (bytes(flipped), "a changed bit in a member", "SHA-256"),
        "bit_flip_manifest": (bytes(in_manifest), "a changed bit in the manifest", "CRC-32"),
        "deflated_manifest": (deflated(sound, first=True), "the manifest is compressed",
                              "compressed"),
        "deflated_member": (deflated(sound, first=False), "a member is compressed", "compressed"),
        "huge_manifest": (sound[:18] + struct.pack("<2I", 1 << 30, 1 << 30) + sound[26:],
                          "a manifest of 1 GiB is declared", "at most 16777216"),
        "other_first_member": (sound.replace(b"manifest.json", b"manifest.txt_"),
                               "a ZIP without a manifest", "first member is not manifest.json"),
    }  # fmt: skip


def deflated(sound: bytes, *, first: bool) -> bytes:
    """The file with compression method 8 in the headers of one member."""
    data = bytearray(sound)
    at = 0 if first else data.index(b"PK\3\4", 4)
    struct.pack_into("<H", data, at + 8, 8)
    directory = data.index(b"PK\1\2")
    if not first:
        directory = data.index(b"PK\1\2", directory + 4)
    struct.pack_into("<H", data, directory + 10, 8)
    return bytes(data)


def setter(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the entry at ``path[:-1]`` to ``path[-1]``."""

    def alter(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in path[:-2]:
            target = target[key]
        target[path[-2]] = path[-1]

    return alter


def array(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of one array."""
    return next(a for a in manifest["arrays"] if a["name"] == name)


def on_array(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes entries of one array."""
    return lambda manifest: array(manifest, name).update(changes)


def grow(manifest: dict[str, Any]) -> None:
    """Far too many points."""
    manifest["stages"][-1]["points"] += 1 << 27
    manifest["count"] += 1 << 27


def one_more(manifest: dict[str, Any]) -> None:
    """A point that is not there."""
    manifest["stages"][-1]["points"] += 1
    manifest["count"] += 1


def lengthen(change: int) -> Callable[[dict[str, Any]], None]:
    """Another length of the stream with the opacities."""

    def alter(manifest: dict[str, Any]) -> None:
        manifest["stages"][0]["streams"][1]["length"] += change

    return alter


def shift_last(manifest: dict[str, Any]) -> None:
    """The last member one byte further."""
    manifest["members"][-1]["offset"] += 1


def forget_array(manifest: dict[str, Any]) -> None:
    """An array that no stream has."""
    for stage in manifest["stages"]:
        for stream in stage["streams"]:
            if "rotation" in stream.get("arrays", ()):
                stream["arrays"].remove("rotation")


def broken_manifests() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Manifests that lie; the hash of every member is right unless it is the lie."""
    return {**broken_entries(), **broken_coding()}


def broken_entries() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Lies about the format, the scene and the members."""
    return {
        "wrong_format": (setter("format", "s5d"), "format is not s4d", "format 's4d'"),
        "unknown_version": (setter("version", "2.0"), "version 2.0", "version '2.0'"),
        "unknown_kind": (setter("kind", "hologram"), "a kind that nobody knows", "'hologram'"),
        "not_json": (lambda m: (b'"kind"', b'"kind'), "broken JSON", "not valid JSON"),
        "nested_json": (lambda m: (b'"near":', b'"x":' + b"[" * 99999 + b"]" * 99999 + b',"near":'),
                        "100,000 nested lists", "not valid JSON"),
        "nan_number": (lambda m: (b'"near":', b'"near":NaN,"x":'), "NaN in JSON", "NaN"),
        "infinite_number": (lambda m: (b'"near":', b'"near":1e999,"x":'), "a number beyond double",
                            "1e999"),
        "repeated_key": (lambda m: (b'"near":', b'"near":0,"near":'), "a key twice", "twice"),
        "no_poster": (lambda m: m.pop("poster") and None, "poster is missing", "poster is missing"),
        "poster_absent": (setter("poster", "nothing.png"), "the poster is no member",
                          "no member 'nothing.png'"),
        "no_cameras": (setter("cameras", []), "no camera", "cameras has 0 items"),
        "text_as_number": (setter("count", "60"), "a number as text", "count must be of type"),
        "negative_step": (on_array("opacity", quantiser={"type": "uniform", "step": [-1],
                                                         "offset": [0]}),
                          "a step below 0", "none of the allowed forms"),
        "infinite_step": (on_array("opacity", quantiser={"type": "uniform", "step": [1e300],
                                                         "offset": [0]}),
                          "values beyond float32", "beyond float32"),
        "lying_length": (setter("members", 1, "length", 7), "a member is longer than declared",
                         "directory"),
        "lying_hash": (setter("members", 1, "sha256", "0" * 64), "another hash", "SHA-256"),
        "member_beyond_file": (setter("members", -1, "length", 1 << 31), "a member of 2 GiB",
                               "beyond the file"),
        "member_overlap": (setter("members", 1, "offset", 16), "a member within the manifest",
                           "overlaps"),
        "member_unaligned": (shift_last, "a member is not aligned", "not aligned"),
        "member_traversal": (setter("members", 1, "name", "../../tables.bin"),
                             "a name that leaves the folder", "does not match"),
        "member_absolute": (setter("members", 1, "name", "/etc/passwd"), "an absolute name",
                            "does not match"),
        "member_twice": (lambda m: m["members"][1].update(name=m["members"][0]["name"]),
                         "a name twice", "listed twice"),
    }  # fmt: skip


def broken_coding() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Lies about stages, streams and arrays, and how they are coded."""
    context = {"of": ["log_scales.2"], "edges": [0]}
    none = [None, None]

    def on_dc(of: str, edges: list[int]) -> Callable[[dict[str, Any]], None]:
        return on_array("dc", contexts=[{"of": [of], "edges": edges}, *none])

    return {
        "huge_count": (grow, "134 million points in a small file", "are believed"),
        "huge_items": (on_array("dc_basis", items=1 << 28), "268 million rows in a small file",
                       "are believed"),
        "count_differs": (setter("count", 39), "count is not that of the stages", "39 splats"),
        "one_point_more": (one_more, "more points than coded", "points|damaged"),
        "stream_beyond_member": (setter("stages", 0, "streams", 0, "length", 1 << 20),
                                 "a stream of 1 MiB", "beyond its member"),
        "stream_too_short": (lengthen(-2), "the last word of a stream is missing", "damaged"),
        "stream_too_long": (lengthen(2), "a word more than the symbols need", "damaged"),
        "octree_too_deep": (setter("stages", 0, "streams", 0, "depth", 21),
                            "an octree deeper than its bits", "deeper"),
        "octree_one_level_less": (
            lambda m: m["stages"][0]["streams"][0].update(
                depth=m["stages"][0]["streams"][0]["depth"] - 1),
            "one level of the octree is not read", "damaged|the octree holds"),
        "array_missing": (forget_array, "an array is not coded", "it should code"),
        "array_twice": (lambda m: m["arrays"].append(m["arrays"][-1]), "an array twice",
                        "listed twice"),
        "array_renamed": (lambda m: array(m, "dc_basis").update(name="dc_basiz"),
                          "an array that is not coded", "it should code"),
        "table_beyond": (on_array("opacity", tables=[4000]), "a table that does not exist",
                         "tables that do not exist"),
        "uneven_lists": (on_array("dc", low=[0, 0]), "two entries for three components",
                         "3 components but 2"),
        "context_of_later": (on_array("log_scales", contexts=[context, *none]),
                             "a context that is decoded later", "not decoded before it"),
        "context_unknown": (on_dc("what.0", [0]),
                            "a context that does not exist", "not decoded before it"),
        "context_unsorted": (on_dc("opacity.0", [3, 1]),
                             "edges that do not rise", "unsorted"),
        "context_endless": (on_dc("opacity.0-9999", [0]),
                            "a context of 10,000 channels", "more than 256"),
        "basis_circle": (on_array("dc_basis", basis="dc_basis"), "a basis that is its own basis",
                         "itself"),
        "basis_of_other_size": (on_array("dc", basis="opacity"), "a basis with other rows", "rows"),
        "codebook_too_small": (on_array("dc", quantiser={"type": "codebook", "array": "opacity"}),
                               "codes outside the codebook", "outside its book"),
        "degree_differs": (setter("sh_degree", 2), "an SH degree that the array does not have",
                           "should be"),
        "mirror_transform": (setter("transform", 0, [-1.0, 0.0, 0.0, 0.0]),
                             "a transform that mirrors", "not a similarity"),
    }  # fmt: skip


def rename_array(name: str, other: str) -> Callable[[dict[str, Any]], None]:
    """Another name of an array, also where it is coded."""

    def alter(manifest: dict[str, Any]) -> None:
        array(manifest, name)["name"] = other
        for stream in manifest["stages"][0]["streams"]:
            names = stream.get("arrays", [])
            names[:] = [other if n == name else n for n in names]

    return alter


def broken_families() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Manifests of kind lpgs that lie about the network."""
    far = {"type": "uniform", "step": [1e30], "offset": [0.0]}
    return {
        "lpgs_no_entry": (lambda m: m.pop("lpgs") and None, "the entry lpgs is missing",
                          "no entry 'lpgs'"),
        "lpgs_no_radius": (lambda m: m["lpgs"].pop("radius") and None, "lpgs.radius is missing",
                           "lpgs.radius is missing"),
        "lpgs_hidden_huge": (setter("lpgs", "hidden", 257), "a width above 256",
                             "lpgs.hidden is out of range"),
        "lpgs_hidden_none": (setter("lpgs", "hidden", 0), "a network of width 0", "hidden is 0"),
        "lpgs_hidden_lies": (setter("lpgs", "hidden", 13), "a width that the arrays do not have",
                             "layer 'token' does not have"),
        "lpgs_grid_lies": (setter("lpgs", "grid", "rows", [729, 65]),
                           "a grid with rows that its array does not have",
                           "array 'grid' does not have"),
        "lpgs_grid_uneven": (setter("lpgs", "grid", "rows", [793]), "two levels, rows of one",
                             "as many rows"),
        "lpgs_layer_missing": (rename_array("net_attend_bias", "net_attend_bios"),
                               "a layer without its bias", "'net_attend_bias' is missing"),
        "lpgs_count": (lambda m: m.update(count=m["count"] + 1), "a Gaussian that is not there",
                       "Gaussians, but has"),
        "lpgs_more_bits": (setter("lpgs", "num_children", 2), "children beyond num_children",
                           "bits beyond"),
        "lpgs_member_missing": (setter("stages", 1, "member", "nothing.bin"),
                                "a stage whose member is not there", "nothing.bin"),
        "lpgs_outside": (setter("positions", "origin", [0.9, 0.5, 0.5]),
                         "positions outside the contracted ball", "outside the contracted space"),
        "lpgs_far_child": (on_array("net_place_bias", quantiser=far), "a child at 10^30",
                           "too far away"),
    }  # fmt: skip


def broken_lights() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Manifests of kind lightslab that lie."""
    slab, plane = ("lightslab", "slabs", 0), ("lightslab", "planes", 0)
    return {
        "light_no_entry": (lambda m: m.pop("lightslab") and None, "the entry lightslab is missing",
                           "no entry 'lightslab'"),
        "light_width_lies": (setter("lightslab", "decoder", "width", 9),
                             "a width that the arrays do not have", "should be 180 x"),
        "light_plane_lies": (setter(*plane, "columns", 6), "a plane of another size",
                             "array 'plane_0' should be"),
        "light_axis": (setter(*plane, "axes", [0, 6]), "an axis beyond the slab's coordinates",
                       "axis beyond"),
        "light_samples": (setter("lightslab", "decoder", "samples", 3), "3 samples",
                          "no power of 2"),
        "light_turn": (setter(*slab, "rotation", 0, [0.0, 0.0, 0.0]), "a rotation that is none",
                       "no rotation"),
        "light_empty_range": (lambda m: m["lightslab"]["slabs"][0].update(
                                  low=m["lightslab"]["slabs"][0]["high"]),
                              "a range of width 0", "not below its high"),
        "light_stages": (setter(*plane, "stage", 1), "no plane in the first stage",
                         "do not rise from 0"),
        "light_uneven": (setter(*slab, "disparities", [0.1, 0.2]), "slabs of unlike depths",
                         "another number of planes"),
        "light_points": (setter("count", 1), "a light field with a point", "has no points"),
    }  # fmt: skip


def broken_sheets() -> dict[str, tuple[Callable[[dict[str, Any]], Any], str, str]]:
    """Manifests of light fields with sheets that lie about these."""
    entry = ("lightslab", "sheets")
    plain = {"type": "uniform", "step": [1.0], "offset": [0.0]}

    def one_more_tile(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["sheets"]["tiles"] += 1

    def at_infinity(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["slabs"][0]["disparities"][0] = 0.0

    def turned(manifest: dict[str, Any]) -> None:
        """As many places, of which other ones are stored than are counted."""
        array(manifest, "sheet_tiles")["low"] = [1]

    def brighter(manifest: dict[str, Any]) -> None:
        array(manifest, "sheet_texels")["low"][0] += 100

    def wider(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["sheets"].update(columns=4096, rows=4096)
        slab = manifest["lightslab"]["slabs"][0]
        slab["disparities"] += range(1, 13)
        slab["low"] += [[0, 0]] * 12
        slab["high"] += [[1, 1]] * 12

    return {
        "sheets_count_lies": (one_more_tile, "a tile more than the arrays have",
                              "array 'sheet_texels' should be"),
        "sheets_not_whole": (setter(*entry, "rows", 20), "rows that are no multiple of 8",
                             "no whole tiles"),
        "sheets_other_size": (setter(*entry, "columns", 32), "columns that the tiles do not have",
                              "array 'sheet_tiles' should be"),
        "sheets_no_tiles": (rename_array("sheet_tiles", "sheet_tides"), "no array sheet_tiles",
                            "'sheet_tiles' is missing"),
        "sheets_no_texels": (rename_array("sheet_texels", "sheet_taxes"), "no array sheet_texels",
                             "'sheet_texels' is missing"),
        "sheets_at_infinity": (at_infinity, "a sheet at disparity 0", "at infinity"),
        "sheets_tiles_two": (turned, "tiles that are stored twice", "neither stored nor not"),
        "sheets_out_of_range": (brighter, "texels above 255", "outside 0 to 255"),
        "sheets_fine_step": (setter(*entry, "step", 0.5), "a step below 1", "out of range"),
        "sheets_no_step": (lambda m: m["lightslab"]["sheets"].pop("step") and None, "no step",
                           "step is missing"),
        "sheets_quantiser": (on_array("sheet_tiles", quantiser=plain), "a quantiser of tiles",
                             "must not have"),
        "sheets_huge": (wider, "places for 285 million texels", "places of tiles"),
        "sheets_falling": (setter("lightslab", "slabs", 0, "disparities",
                                  [0.5, 0.4, 0.3, 0.2, 0.1]),
                           "disparities that fall", "do not rise"),
    }  # fmt: skip


def one_tile_less(path: Path) -> bytes:
    """The bundle, with the place of its first tile marked as empty."""
    bundle = open_bundle(path)
    arrays = decode_scene(bundle).arrays
    tiles = arrays["sheet_tiles"].codes.copy()
    tiles[int(np.argmax(tiles))] = 0
    arrays["sheet_tiles"] = replace(arrays["sheet_tiles"], codes=tiles)
    coded = encode_scene(None, list(arrays.values()))
    entries = {name: bundle.manifest[name] for name in ("count", "sh_degree", "lightslab")}
    coded = replace(coded, manifest={**entries, **coded.manifest})
    return bundle_writer("lightslab", coded, scene_of(bundle)).to_bytes()


def broken_members(source: Path) -> dict[str, tuple[str, bytes, str, str]]:
    """Members with other content under a hash that fits."""
    bundle = open_bundle(source)
    tables = zlib.decompress(bundle.read("tables.bin"))
    stage = bundle.read("stage0.bin")
    wrong_sum = bytearray(tables)
    wrong_sum[1] ^= 1
    states = bytes(16) + stage[16:]
    return {
        "tables_not_zlib": ("tables.bin", b"\0" * 50, "no zlib stream", "inflated"),
        "tables_bomb": ("tables.bin", zlib.compress(bytes(1 << 24), 9), "16 MiB of tables",
                        "larger than"),
        "tables_cut_off": ("tables.bin", zlib.compress(tables[:-3]), "the last table is cut off",
                           "cut off|sums to|longer than"),
        "tables_sum": ("tables.bin", zlib.compress(bytes(wrong_sum)), "a table sums to 4095",
                       "not 4096"),
        "tables_long_number": ("tables.bin", zlib.compress(b"\x80\x80\x01"), "a varint of 3 bytes",
                               "longer than two bytes"),
        "tables_many": ("tables.bin", zlib.compress(b"\x01\x80\x20" * 4097), "4097 tables",
                        "at most 4096"),
        "stream_states": ("stage0.bin", states, "states below 65536", "impossible state"),
    }  # fmt: skip


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
