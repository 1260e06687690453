"""Bundles that must be refused: damaged files, manifests that lie, members with other content."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from conformance_bombs import bombs
from conformance_lies import (
    Alter,
    broken_coding,
    broken_entries,
    broken_families,
    broken_lights,
    broken_mpi,
)
from conformance_mesh import broken_mesh, broken_mesh_codes, broken_textures
from conformance_motion import broken_codes, broken_motion, motion_bombs
from conformance_scenes import scene_of

from scene4d.bundle.coding import decode_scene, encode_scene
from scene4d.bundle.container import BundleWriter, as_json, open_bundle
from scene4d.bundle.splats import bundle_writer


class Altered:
    """Writes a manifest that was changed after its offsets were set."""

    def __init__(self, path: Path, alter: Alter) -> None:
        bundle = open_bundle(path)
        self.manifest = {k: v for k, v in bundle.manifest.items() if k != "members"}
        self.data = {name: bundle.read(name) for name in bundle.names()}
        self.alter = alter

    def replace_member(self, name: str, data: bytes) -> None:
        """Another content of a member, with the fitting length and hash."""
        self.data[name] = data

    def to_bytes(self) -> bytes:
        """The whole file."""
        writer = BundleWriter(self.manifest)
        for name, data in self.data.items():
            writer.add(name, data)
        sound = writer.manifest(spare=1024)
        document = copy.deepcopy(sound)
        told = self.alter(document)
        if isinstance(told, tuple):
            text = as_json(sound).replace(*told)
        else:
            text = json.dumps(document, separators=(",", ":")).encode()
        return writer.file_of(text, sound["members"])


def bad(
    folder: Path, source: Path, family: Path, light: Path, mpi: Path, motion: Path, mesh: Path
) -> None:
    """Writes the bad bundles and errors.json; ``family`` is a sound bundle of kind lpgs, ``light``
    of kind lightslab, ``mpi`` one with MPIs, ``motion`` of kind splats4d, ``mesh`` of kind mesh."""
    folder.mkdir(parents=True)
    errors: dict[str, dict[str, str]] = {}

    def save(name: str, data: bytes, reason: str, error: str) -> None:
        (folder / f"{name}.s4d").write_bytes(data)
        errors[f"{name}.s4d"] = {"reason": reason, "error": error}

    sound = source.read_bytes()
    for name, (data, reason, error) in broken_files(sound, source).items():
        save(name, data, reason, error)
    lies = [(source, {**broken_entries(), **broken_coding()}), (family, broken_families()),
            (light, broken_lights()), (mpi, broken_mpi()), (motion, broken_motion()),
            (mesh, broken_mesh())]  # fmt: skip
    for path, table in lies:
        for name, (alter, reason, error) in table.items():
            save(name, Altered(path, alter).to_bytes(), reason, error)
    for name, (array, component, value, reason, error) in broken_blocks().items():
        save(name, with_code(mpi, array, component, value), reason, error)
    for name, (member, data, reason, error) in broken_members(source).items():
        writer = Altered(source, lambda m: None)
        writer.replace_member(member, data)
        save(name, writer.to_bytes(), reason, error)
    texture = open_bundle(mesh).manifest["mesh"]["texture"]["member"]
    for name, (data, reason, error) in broken_textures().items():
        writer = Altered(mesh, lambda m: None)
        writer.replace_member(texture, data)
        save(name, writer.to_bytes(), reason, error)
    for name, (data, reason, error) in {
        **broken_mesh_codes(mesh), **broken_codes(motion), **bombs(light, mpi), **motion_bombs()
    }.items():  # fmt: skip
        save(name, data, reason, error)
    (folder / "errors.json").write_text(json.dumps(errors, indent=1) + "\n", encoding="ascii")


def broken_files(sound: bytes, source: Path) -> dict[str, tuple[bytes, str, str]]:
    """Damage to the file as a whole."""
    packed, name, extra = struct.unpack_from("<I4x2H", sound, 18)
    start = 30 + name + extra
    entry = open_bundle(source).manifest["members"][1]
    flipped = bytearray(sound)
    flipped[entry["offset"] + 5] ^= 4
    in_manifest = bytearray(sound)
    in_manifest[14] ^= 1
    return {
        "empty": (b"", "no bytes", "does not start as a ZIP"),
        "not_a_zip": (b"ply\nformat ascii 1.0\n" * 9, "another format", "does not start as a ZIP"),
        "truncated_manifest": (sound[:200], "cut off in the manifest", "cut off"),
        "truncated_member": (sound[: len(sound) // 2], "cut off in a member", "cut off"),
        "truncated_directory": (sound[:-30], "cut off in the ZIP directory", "cut off"),
        "trailing_data": (sound + b"\0" * 64, "data behind the ZIP directory", "data behind it"),
        "bit_flip_member": (bytes(flipped), "a changed bit in a member", "SHA-256"),
        "bit_flip_manifest": (bytes(in_manifest), "a changed bit in the manifest's sum", "CRC-32"),
        "manifest_of_method_12": (with_method(sound, 12, first=True),
                                  "the manifest is compressed by bzip2",
                                  "otherwise than by deflate"),
        "manifest_said_stored": (with_method(sound, 0, first=True),
                                 "a deflated manifest that is said to be stored",
                                 "otherwise than by deflate"),
        "manifest_longer": (with_length(sound, -1), "a manifest that inflates to a byte more",
                            "does not inflate to its"),
        "manifest_shorter": (with_length(sound, 1), "a manifest that inflates to a byte less",
                             "does not inflate to its"),
        "manifest_stream_cut": (sound[:18] + struct.pack("<I", packed - 1) + sound[22:],
                                "a manifest whose stream has no end", "does not inflate to its"),
        "manifest_no_stream": (sound[:start] + b"\xff" * 8 + sound[start + 8 :],
                               "a manifest that is no deflate stream", "cannot be inflated"),
        "deflated_member": (with_method(sound, 8, first=False), "a member is compressed",
                            "compressed"),
        "huge_manifest": (sound[:18] + struct.pack("<2I", 1 << 30, 1 << 30) + sound[26:],
                          "a manifest of 1 GiB is declared", "at most 16777216"),
        "other_first_member": (sound.replace(b"manifest.json", b"manifest.txt_"),
                               "a ZIP without a manifest", "first member is not manifest.json"),
    }  # fmt: skip


def with_method(sound: bytes, method: int, *, first: bool) -> bytes:
    """The file with another compression method in the headers of one member."""
    data = bytearray(sound)
    at = 0 if first else data.index(b"PK\3\4", 4)
    struct.pack_into("<H", data, at + 8, method)
    directory = data.index(b"PK\1\2")
    if not first:
        directory = data.index(b"PK\1\2", directory + 4)
    struct.pack_into("<H", data, directory + 10, method)
    return bytes(data)


def with_length(sound: bytes, more: int) -> bytes:
    """The file whose manifest is said to have so many bytes ``more`` as text."""
    length = struct.unpack_from("<I", sound, 22)[0]
    return sound[:22] + struct.pack("<I", length + more) + sound[26:]


def broken_blocks() -> dict[str, tuple[str, int, int, str, str]]:
    """An array and a component of MPIs, and a value there that must not be."""
    beyond = 1 << 20
    return {
        "mpi_one_less": ("mpi_blocks", 0, 0, "a block less than is counted",
                            "blocks of MPIs are stored, not"),
        "mpi_level_8": ("mpi_levels", 0, 8, "a block of level 8", "level outside 0 to 7"),
        "mpi_level_below": ("mpi_levels", 0, -1, "a block of level -1", "level outside 0 to 7"),
        "mpi_large_frequency": ("mpi_frequencies", 0, beyond // 6 + 1,
                                   "a frequency of 1,048,578", "frequency of a block is too large"),
        "mpi_huge_frequency": ("mpi_frequencies", 11, -beyond, "a frequency far below -2^20",
                                  "frequency of a block is too large"),
    }  # fmt: skip


def with_code(path: Path, name: str, component: int, value: int) -> bytes:
    """The bundle with another code in the first item of an array that is not 0 there; of the
    blocks' frequencies, in the first block of level 0."""
    bundle = open_bundle(path)
    arrays = decode_scene(bundle).arrays
    codes = arrays[name].codes.copy()
    there = codes[:, 0] != 0
    if name == "mpi_frequencies":
        there = arrays["mpi_levels"].codes[:, 0] == 0
    codes[int(np.argmax(there)), component] = value
    arrays[name] = replace(arrays[name], codes=codes)
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
        "stage_padded": ("stage0.bin", stage + bytes(4096), "a stage with zeros behind its streams",
                         "do not fill"),
        "stream_states": ("stage0.bin", states, "states below 65536", "impossible state"),
    }  # fmt: skip
