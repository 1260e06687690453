"""What ``scene4d train`` says of itself: the methods in a line each, the usual options first."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest

from scene4d.cli.main import main
from scene4d.cli.train import next_commands
from scene4d.methods.splat.method import SplatMethod
from scene4d.training.methods import load_all_methods
from scene4d.training.options import BasicOptions


def test_every_method_has_a_line_and_splat_is_where_to_start(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    methods = load_all_methods()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert all(len(lines[name].split()) > 4 and len(lines[name]) <= 100 for name in methods)
    assert "Start with splat" in text
    assert text.index("  splat ") < text.index("  lightslab ")


def test_the_usual_options_come_first(capsys):
    with pytest.raises(SystemExit):
        main(["train", "splat", "--help"])
    listed = re.findall(r"^\W{0,3}--([a-z][\w-]*)", capsys.readouterr().out, re.MULTILINE)
    basic = [f.name.replace("_", "-") for f in fields(BasicOptions)]
    assert listed[: len(basic)] == basic


VERBS = ("process-data", "eval", "render", "export", "compress", "convert", "view")


@pytest.mark.parametrize("verb", [*VERBS, *(f"train {name}" for name in load_all_methods())])
def test_every_option_is_described_by_a_phrase(verb, capsys):
    """Words before the default, that do not start in the middle of a sentence."""
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    text = capsys.readouterr().out
    options = re.split(r"^\W{0,3}(?=--[a-zA-Z])", text, flags=re.MULTILINE)[1:]
    assert len(options) > 3
    for option in options:
        words = re.sub(r"[│╭╮╰╯─|\s]+", " ", option.split("(default: ")[0].split("(required)")[0])
        assert len(re.findall(r"[a-z]{2,}", words.split(" ", 1)[1])) > 1, f"no words: {option}"
        assert not re.search(r"(INT|FLOAT|PATH|\}) (Of|At|After|Along|Its|Their) ", words), option


@pytest.mark.parametrize("verb", [["process-data"], ["train", "lightslab"], ["render"]])
def test_help_is_wrapped_once(verb, capsys):
    """A line of help ends where the next word would not fit, or the paragraph ends."""
    with pytest.raises(SystemExit):
        main([*verb, "--help"])
    lines = [re.sub(r"[│|]", " ", line) for line in capsys.readouterr().out.splitlines()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    wrapped = [(line, following) for line, following, a, b
               in zip(lines, lines[1:], indents, indents[1:], strict=False)
               if line.strip() and a == b >= 6 and following.strip() != "(required)"]  # fmt: skip
    assert len(wrapped) > 5
    width = max(len(line) for line, _ in wrapped)
    for line, following in wrapped:
        room = width - len(line.rstrip())
        assert len(following.split()[0]) >= room - 3, line  # less the box


def test_the_next_commands_can_be_carried_out(tmp_path):
    for form, suffix, views in (("ply", ".ply", 1), ("bundle", ".s4d", 1), ("mesh", ".glb", 0)):
        text = next_commands(tmp_path, file=(form, suffix))
        assert f"scene4d export {tmp_path} {form} --output-path {tmp_path}/scene{suffix}" in text
        assert text.count("scene4d view") == views  # what has no kind of bundle is not played


def test_a_method_without_a_docstring_is_told_by_its_description(monkeypatch, capsys):
    @dataclass(frozen=True, kw_only=True)
    class Untold(SplatMethod):
        description: ClassVar[str] = "Nothing but splats"

    assert Untold.__doc__.startswith("Untold(")  # by dataclass
    monkeypatch.setattr("scene4d.cli.train.load_all_methods", lambda: {"untold": Untold})
    assert main(["train", "--help"]) == 0
    assert "untold      Nothing but splats\n" in capsys.readouterr().out
