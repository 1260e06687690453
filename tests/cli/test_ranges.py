"""Every number that the command line takes has a range, refused before work and told in --help."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from scene4d.cli.main import VERBS, main
from scene4d.cli.prior import CheckArgs, CompressArgs, SampleArgs
from scene4d.ranges import Within, range_faults
from scene4d.training.methods import load_method, method_names
from scene4d.training.options import TrainOptions


def arguments_of(verb: str) -> type:
    module = importlib.import_module(VERBS[verb][0])
    (found,) = [
        v for k, v in vars(module).items() if k.endswith("Args") and v.__module__ == module.__name__
    ]
    return found


CLASSES: dict[str, type] = {
    **{verb: arguments_of(verb) for verb in VERBS if verb not in ("train", "prior")},
    "prior check": CheckArgs,
    "prior compress": CompressArgs,
    "prior sample": SampleArgs,
    "prior train fixer": load_method("fixer"),
    "train": TrainOptions,
    **{f"train {name}": load_method(name) for name in method_names()},
}


def numbers(cls: type, within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where the numbers of a dataclass and those in it are, and what their annotations say."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        bare = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(bare):
            yield from numbers(bare, (*within, field.name))
        elif is_number(hint):
            yield (*within, field.name), hint


def is_number(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return False
    return hint in (int, float) or any(map(is_number, typing.get_args(hint)))


def ranges_in(hint: Any) -> Iterator[Within | None]:
    """The range of each number in an annotation; None where there is none."""
    if hasattr(hint, "__metadata__"):
        yield next((m for m in hint.__metadata__ if isinstance(m, Within)), None)
    elif hint in (int, float):
        yield None
    else:
        for part in typing.get_args(hint):
            yield from ranges_in(part)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_number_declares_its_range(name: str) -> None:
    for path, hint in numbers(CLASSES[name]):
        assert None not in list(ranges_in(hint)), ".".join(path)


def with_value(cls: type, path: tuple[str, ...], value: Any) -> Any:
    """An instance of which one number is ``value``, whatever it makes of it itself."""
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        object.__setattr__(made, field.name, default)
    holder = made
    for step in path[:-1]:
        inner = copy.copy(getattr(holder, step))
        object.__setattr__(holder, step, inner)
        holder = inner
    object.__setattr__(holder, path[-1], value)
    return made


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_numbers_outside_of_their_ranges_are_found(name: str) -> None:
    for path, hint in numbers(CLASSES[name]):
        allowed = next(iter(ranges_in(hint)))
        several = "tuple" in str(hint)
        for bad in (
            math.nan,
            math.inf,
            -math.inf,
            allowed.low - 1 - abs(allowed.low),
            allowed.high * 2 + 1,
        ):
            value = (bad,) * 3 if several else bad
            (first, *_) = range_faults(with_value(CLASSES[name], path, value))
            assert path[-1] in first
        defaults = range_faults(with_value(CLASSES[name], path, None))
        assert not defaults, defaults


WRONG = [
    ["train", "splat", "--steps", "-5"],
    ["train", "splat", "--max-minutes", "0"],
    ["train", "splat", "--max-minutes", "-1"],
    ["train", "splat", "--max-minutes", "nan"],
    ["train", "splat", "--keep-checkpoints", "-1"],
    ["train", "splat", "--batch-size", "0"],
    ["train", "splat", "--seed", "99999999999999999999"],
    ["train", "lpgs", "--tree.promote-share", "inf"],
    ["train", "lightslab", "--teaching.weight", "-1"],
    ["compress", "a.ply", "b.s4d", "--max-minutes", "0"],
    ["render", "a", "spiral", "--output-path", "b.mp4", "--fps", "nan"],
    ["export", "a", "mesh", "--output-path", "b.glb", "--voxel", "-1"],
    ["process-data", "images", "--data", "a", "--output-dir", "b", "--num-threads", "-2"],
    ["view", "a", "--port", "70000"],
    ["convert", "a.ply", "b.spz", "--scale", "inf"],
    ["benchmark-formats", "a.ply", "--views", "0"],
]


@pytest.mark.parametrize("argv", WRONG, ids=lambda argv: " ".join(argv[:1] + argv[-2:]))
def test_they_are_wrong_usage_before_any_work(argv, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(argv)
    except SystemExit as end:  # tyro's own
        status = end.code
    assert status == 2
    told = capsys.readouterr().err
    assert argv[-2] in told and "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_help_tells_the_ranges(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "splat", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for expected in ("INT 1 to 4,096", "FLOAT 0 to 1", "above 0", "INT 0 to 4,294,967,295"):
        assert expected in told


@pytest.mark.parametrize("columns", ["5", "1", "0"])
def test_help_ends_in_a_terminal_of_few_columns(columns: str) -> None:
    command = [sys.executable, "-m", "scene4d.cli.main", "convert", "--help"]
    told = subprocess.run(
        command, env={**os.environ, "COLUMNS": columns}, capture_output=True, timeout=60, check=True
    )
    assert b"--min-opacity" in told.stdout
