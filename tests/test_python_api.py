"""docs/python-api.md: its examples run, its names are there, and importing them is late."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import scene4d

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
SMALLER = {
    "max_minutes=5": "max_minutes=5, device='cpu'",
    "SplatMethod(sh_degree=2)": "SplatMethod(sh_degree=2, steps=3, num_random_points=100)",
}
"""What makes the examples small."""


def test_the_examples_run(tiny_capture, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_capture, tmp_path / "my_scene")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    for text, small in SMALLER.items():
        assert code.count(text) == 1
        code = code.replace(text, small)
    exec(compile(code, "docs/python-api.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "dB on 2 held-out pictures" in printed
    assert "torch.Size([1, 60, 80, 4])" in printed
    assert Image.open(tmp_path / "view.png").size == (48, 48)


def test_every_name_of_the_page_is_there_and_every_name_is_on_the_page():
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    named = {n for n in re.findall(r"`(\w+)", table.replace("|", " ")) if hasattr(scene4d, n)}
    assert named == set(scene4d.__all__) - {"__version__"}
    assert set(scene4d.__all__) <= set(dir(scene4d))
    for name in scene4d.__all__:
        assert getattr(scene4d, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = scene4d.no_such_name


def test_names_are_imported_when_they_are_asked_for():
    code = """if True:
        import sys, scene4d
        assert not {"torch", "numba", "numpy"} & set(sys.modules)
        scene4d.TrainOptions, scene4d.SplatMethod
        assert not {"torch", "numba", "numpy"} & set(sys.modules)  # plain data
        scene4d.Camera
        assert "torch" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
