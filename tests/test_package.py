"""What holds for the package as a whole: start-up times, extras, and DESIGN.md's house rules."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scene4d.files import read_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "scene4d"
SOURCES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "cameras": set(),
    "formats": set(),
    "data": {"cameras", "formats"},
    "rendering": {"cameras"},
    "bundle": {"formats"},
    "representations": {"rendering", "data", "bundle"},
    "priors": {"rendering"},
    "evaluation": {"cameras", "data"},
    "training": {"representations", "data", "priors", "evaluation"},
    "methods": {"training", "exporters"},
    "exporters": {"training", "bundle", "formats"},
    "viewer": {"training"},
    "player": {"bundle"},
    "pipeline": {"exporters", "training", "player"},
}
"""DESIGN.md's table of rooms, direct imports; what these may import comes with them."""
BEYOND_THE_TABLE = {
    # The format player is the scene together with the player's build, which player/ knows.
    "exporters": {"player"},
    # One tool quantises networks: those of bundles, and priors of our own.
    "priors": {"bundle"},
}
"""Where the code needs more than the table says, and why; still one way only."""
MAY_IMPORT_ALL = {"integrations", "cli"}
FREE = {"cubes", "errors", "files", "image_files", "optional", "plain", "ranges", "toml_files"}
"""Modules that every room may import: cubes that surfaces pass through, errors, files, pictures
from anybody, optional packages, plain data and the ranges of its numbers, and TOML."""

MAX_LINES = 600


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def best_seconds(command: list[str], *, tries: int = 3) -> float:
    """The shortest of some runs: a busy machine can only lengthen a run."""
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


# Starting


def test_importing_scene4d_is_fast_and_leaves_torch_and_numba_alone() -> None:
    code = """if True:
        import sys, time
        start = time.perf_counter()
        import scene4d
        print(time.perf_counter() - start)
        print(sorted({"torch", "numba", "numpy"} & set(sys.modules)))
    """
    results = [run_python(code).split("\n") for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in results) < 0.5
    assert results[0][1] == "[]"


def test_help_answers_within_a_second() -> None:
    assert best_seconds([sys.executable, "-m", "scene4d", "--help"]) < 1.0


# What ships


def test_every_extra_of_the_design_exists_and_the_lock_covers_what_make_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) >= {
        "viewer", "recon", "video", "cuda", "priors", "export", "cluster", "dev"
    }  # fmt: skip
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    installed = ["dev", "viewer", "recon", "video", "export", "cluster"]
    wanted = project["dependencies"] + [r for extra in installed for r in extras[extra]]
    assert {_name(requirement) for requirement in wanted} <= locked


def _name(requirement: str) -> str:
    return re.split(r"[;>=\[]", requirement)[0].strip().lower().replace("_", "-")


def test_every_pin_has_the_hashes_of_its_files() -> None:
    pins = {line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
            and not line.startswith("#")}  # fmt: skip
    hashed = (ROOT / "constraints-hashes.txt").read_text()
    lacking = {pin for pin in pins if f"{pin} \\\n    --hash=sha256:" not in hashed}
    assert all(pin.startswith("torch==") for pin in lacking), lacking


def test_the_player_has_the_projects_licence_and_its_build_those_of_all_it_ships() -> None:
    player = ROOT / "viewers" / "web"
    package = json.loads((player / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["license"] == project["license"]
    notices = player / "dist" / "THIRD-PARTY-NOTICES.txt"
    if not notices.is_file():
        pytest.skip("the web player is not built (make player)")
    text = notices.read_text()
    for name, version in package["dependencies"].items():
        assert f"\n{name} {version} (" in text, name
    assert text.count("Permission is hereby granted") >= 2 and "Apache License" in text


def test_no_address_of_a_registry_is_written_down() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert "index-url" not in text and not re.search(r"https?://", text), name


def test_the_sample_scene_is_complete_and_small() -> None:
    scene = ROOT / "data" / "nerf_chair"
    named = [
        (scene / frame["file_path"]).with_suffix(".png").resolve()
        for split in ("train", "test")
        for frame in read_json(scene / f"transforms_{split}.json")["frames"]
    ]
    assert sorted(named) == sorted(p.resolve() for p in scene.rglob("*.png"))
    assert len(set(named)) == len(named)
    size = sum(path.stat().st_size for path in scene.rglob("*") if path.is_file())
    assert size <= 3_000_000  # the limit that the repository and the wheel were given
    assert "CC0" in (scene / "README.md").read_text()


def test_the_sample_scene_that_moves_is_complete_and_small() -> None:
    scene = ROOT / "data" / "dance_room"
    meta = read_json(scene / "transforms.json")
    named = [
        scene / value
        for frame in meta["frames"]
        for key, value in frame.items()
        if key.endswith("_path")
    ]
    assert sorted(named) == sorted([*scene.rglob("*.png"), *scene.rglob("*.jpg")])
    assert len(set(named)) == len(named) == 96 * 2 + 48 + 48
    files = [path for path in scene.rglob("*") if path.is_file()]
    assert {p.name for p in files} - {p.name for p in named} == {
        "README.md", "tracks.npz", "transforms.json"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert "CC0" in (scene / "README.md").read_text()


# House rules


def room_of(path: Path) -> str:
    """The room that a source file lies in; its own name for a top-level module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Rooms that a module imports at run time, with the line; what only type checkers see is
    left out."""
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "scene4d" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                yield parts[1], node.lineno


def allowed(room: str) -> set[str]:
    """The rooms that ``room`` may import, directly or because a room that it may import does."""
    direct = MAY_IMPORT[room] | BEYOND_THE_TABLE.get(room, set())
    return direct.union(*(allowed(other) for other in direct))


def test_the_table_of_rooms_has_no_cycle() -> None:
    for room in MAY_IMPORT:
        assert room not in allowed(room)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_design_allows(path: Path) -> None:
    room = room_of(path)
    if path.name == "__main__.py" and path.parent == PACKAGE:
        return  # the command
    if path.parent == PACKAGE:
        assert list(imported_rooms(ast.parse(path.read_text()))) == []
        return
    assert room in MAY_IMPORT or room in MAY_IMPORT_ALL, (
        f"a room that DESIGN.md does not have: {room}"
    )
    if room in MAY_IMPORT_ALL:
        return
    permitted = allowed(room) | {room} | FREE
    wrong = [
        f"line {line}: {room}/ imports {other}/"
        for other, line in imported_rooms(ast.parse(path.read_text()))
        if other not in permitted
    ]
    assert not wrong


FAMILIES = sorted(p.name for p in (PACKAGE / "methods").iterdir() if (p / "method.py").is_file())


def names_of_families() -> set[str]:
    """As on the command line and in bundles."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]
    return {*points["scene4d.methods"], *points["scene4d.bundle_kinds"], *FAMILIES}


FORMAT_NAMES = {"splat", "splats", "mesh"}
"""Also what people call the format ``.splat``, files of splats, and the format mesh of export."""
THEIR_OWN = names_of_families() - FORMAT_NAMES
"""What only a family's own room may say."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_family_is_named_outside_its_room(path: Path) -> None:
    """Families are found by entry points: the trainer, runs and verbs know none of them."""
    parts = path.relative_to(PACKAGE).parts
    if parts[0] == "methods":
        return
    tree = ast.parse(path.read_text())
    spoken = [
        f"line {node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (
            node.value in THEIR_OWN
            or any(node.value.startswith(f"scene4d.methods.{name}") for name in FAMILIES)
        )
    ]
    assert spoken == []
    if parts[0] != "integrations":
        assert "methods" not in {room for room, _ in imported_rooms(tree)}


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "yaml", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "np.load", "numpy.load", "os.system", "compile"}


def unsafe_uses(tree: ast.AST) -> Iterator[str]:
    """Imports and calls that could run what a file contains."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (
            f"line {node.lineno}: imports {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES
        )
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe_numpy = called.endswith("np.load") or called == "numpy.load"
            refused = safe_numpy and any(
                k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords
            )
            if called in UNSAFE_CALLS and not refused:
                yield f"line {node.lineno}: calls {called}"


@pytest.mark.parametrize(
    ("code", "is_unsafe"),
    [
        ("import pickle", True),
        ("from yaml import load", True),
        ("import torch\ntorch.load('a')", True),
        ("eval('1')", True),
        ("import numpy as np\nnp.load('a.npy')", True),
        ("import numpy as np\nnp.load('a.npy', allow_pickle=False)", False),
        ("model.eval()\nre.compile('a')", False),
    ],
)
def test_unsafe_uses_are_recognised(code: str, is_unsafe: bool) -> None:
    assert bool(list(unsafe_uses(ast.parse(code)))) == is_unsafe


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_content_is_ever_run(path: Path) -> None:
    assert list(unsafe_uses(ast.parse(path.read_text()))) == []


SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "examples", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_only_names_that_the_package_has(path: Path) -> None:
    """Nothing else sees a name that moved before somebody runs the script."""
    missing = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("scene4d"):
            continue
        module = importlib.import_module(node.module or "")
        missing += [
            f"line {node.lineno}: {node.module}.{alias.name}"
            for alias in node.names
            if not hasattr(module, alias.name)
            and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
        ]
    assert missing == []


def test_no_file_is_too_long() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_work_is_left_as_a_note() -> None:
    marks = ("TO" + "DO", "FIX" + "ME")
    noted = [str(p) for p in SOURCES if any(mark in p.read_text() for mark in marks)]
    assert noted == []


def test_tests_mirror_the_package() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"sample_scenes"}
    folders = [path for path in (ROOT / "tests").iterdir() if path.is_dir()]
    strangers = [f.name for f in folders if any(f.glob("test_*.py")) and f.name not in rooms]
    assert strangers == []
