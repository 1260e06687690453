"""Manifests that lie, for the bad bundles: the hash of every member is right unless it is the lie.

Each table gives, by the file's name, what changes a sound manifest, the reason for which it must be
refused, and a part of scene4d's error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Alter = Callable[[dict[str, Any]], Any]
"""Changes a manifest, or gives two pieces of its text, of which the second replaces the first."""
Lies = dict[str, tuple[Alter, str, str]]


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
    manifest["stages"][-1]["points"] += 1 << 23
    manifest["count"] += 1 << 23


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


def rename_array(name: str, other: str) -> Callable[[dict[str, Any]], None]:
    """Another name of an array, also where it is coded."""

    def alter(manifest: dict[str, Any]) -> None:
        array(manifest, name)["name"] = other
        for stream in manifest["stages"][0]["streams"]:
            names = stream.get("arrays", [])
            names[:] = [other if n == name else n for n in names]

    return alter


def broken_entries() -> Lies:
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


def broken_coding() -> Lies:
    """Lies about stages, streams and arrays, and how they are coded."""
    context = {"of": ["log_scales.2"], "edges": [0]}
    none = [None, None]

    def on_dc(of: str, edges: list[int]) -> Callable[[dict[str, Any]], None]:
        return on_array("dc", contexts=[{"of": [of], "edges": edges}, *none])

    return {
        "huge_count": (grow, "8.4 million points in a small file", "are believed"),
        "huge_items": (on_array("dc_basis", items=1 << 28), "268 million rows in a small file",
                       "are believed"),
        "count_differs": (setter("count", 39), "count is not that of the stages", "39 splats"),
        "one_point_more": (one_more, "more points than coded", "points|damaged"),
        "stream_beyond_member": (setter("stages", 0, "streams", 0, "length", 1 << 20),
                                 "a stream of 1 MiB", "beyond its member"),
        "stage_twice": (setter("stages", 1, "member", "stage0.bin"),
                        "two stages of one member", "used elsewhere"),
        "stage_is_poster": (lambda m: m["stages"][1].update(member=m["poster"]),
                            "a stage whose member is the poster", "used elsewhere"),
        "streams_overlap": (setter("stages", 0, "streams", 1, "offset", 0),
                            "two streams of the same bytes", "one behind the other"),
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


def broken_families() -> Lies:
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
                           "array 'grid' should be 794 x 2"),
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


def broken_lights() -> Lies:
    """Manifests of kind lightslab that lie."""
    slab, plane = ("lightslab", "slabs", 0), ("lightslab", "feature_planes", 0)
    return {
        "light_no_entry": (lambda m: m.pop("lightslab") and None, "the entry lightslab is missing",
                           "no entry 'lightslab'"),
        "light_width_lies": (setter("lightslab", "decoder", "width", 9),
                             "a width that the arrays do not have", "should be 180 x"),
        "light_plane_lies": (setter(*plane, "columns", 6), "a plane of another size",
                             "array 'feature_plane_0' should be"),
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


def broken_mpi() -> Lies:
    """Manifests of light fields with MPIs that lie about these."""
    entry = ("lightslab", "mpi")
    plain = {"type": "uniform", "step": [1.0], "offset": [0.0]}

    def one_more_block(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["mpi"]["blocks"] += 1

    def one_more_frequency(manifest: dict[str, Any]) -> None:
        for steps in manifest["lightslab"]["mpi"]["steps"]:
            steps.append(9)

    def at_infinity(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["slabs"][0]["disparities"][0] = 0.0

    def turned(manifest: dict[str, Any]) -> None:
        """As many places, of which other ones are stored than are counted."""
        array(manifest, "mpi_blocks")["low"] = [1]

    def wider(manifest: dict[str, Any]) -> None:
        manifest["lightslab"]["mpi"].update(columns=4096, rows=4096)
        slab = manifest["lightslab"]["slabs"][0]
        slab["disparities"] += range(1, 16)
        slab["low"] += [[0, 0]] * 15
        slab["high"] += [[1, 1]] * 15

    return {
        "mpi_count_lies": (one_more_block, "a block more than the arrays have",
                              "array 'mpi_levels' should be"),
        "mpi_too_many": (setter(*entry, "blocks", 200_001), "200,001 blocks", "out of range"),
        "mpi_not_whole": (setter(*entry, "rows", 20), "rows that are no multiple of 8",
                             "no whole blocks"),
        "mpi_other_size": (setter(*entry, "columns", 32), "columns that the blocks do not have",
                              "array 'mpi_blocks' should be"),
        "mpi_no_blocks": (rename_array("mpi_blocks", "mpi_tides"), "no array mpi_blocks",
                            "'mpi_blocks' is missing"),
        "mpi_no_levels": (rename_array("mpi_levels", "mpi_levers"), "no array mpi_levels",
                             "'mpi_levels' is missing"),
        "mpi_no_frequencies": (rename_array("mpi_frequencies", "mpi_texels"),
                                  "no array mpi_frequencies", "'mpi_frequencies' is missing"),
        "mpi_at_infinity": (at_infinity, "an MPI plane at disparity 0", "at infinity"),
        "mpi_blocks_two": (turned, "blocks that are stored twice", "neither stored nor not"),
        "mpi_no_steps": (lambda m: m["lightslab"]["mpi"].pop("steps") and None, "no steps",
                            "steps is missing"),
        "mpi_uneven_steps": (lambda m: m["lightslab"]["mpi"]["steps"][2].pop() and None,
                                "a channel with a frequency less", "different numbers"),
        "mpi_steps_lie": (one_more_frequency, "a frequency more than the array has",
                             "array 'mpi_frequencies' should be"),
        "mpi_three_channels": (lambda m: m["lightslab"]["mpi"]["steps"].pop() and None,
                                  "steps of three channels", "steps has 3 items"),
        "mpi_empty_steps": (setter(*entry, "steps", [[]] * 4), "no frequency at all",
                               "has 0 items"),
        "mpi_many_steps": (setter(*entry, "steps", 0, [9] * 65), "65 frequencies",
                              "has 65 items"),
        "mpi_step_0": (setter(*entry, "steps", 3, 1, 0), "a step of 0", "out of range"),
        "mpi_large_step": (setter(*entry, "steps", 0, 0, 32768), "a step of 32768",
                              "out of range"),
        "mpi_broken_step": (setter(*entry, "steps", 0, 0, 7.5), "a step that is not whole",
                               "must be of type integer"),
        "mpi_quantiser": (on_array("mpi_levels", quantiser=plain), "a quantiser of levels",
                             "must not have"),
        "mpi_huge": (wider, "places for 285 million texels", "places of blocks"),
        "mpi_falling": (setter("lightslab", "slabs", 0, "disparities", [0.5, 0.1]),
                           "disparities that fall", "do not rise"),
    }  # fmt: skip
