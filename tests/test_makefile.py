"""What `make` says at its ends: what to try next, what was left out and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def make(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "MAKEFLAGS", "SCENE4D_CHROMIUM")}
    return subprocess.run(
        ["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True,
        env={**kept, "PATH": path or kept["PATH"]},
    )  # fmt: skip


def test_the_demo_names_what_to_try_next(tmp_path):
    """With a command that only says which run it made."""
    stamp = tmp_path / ".installed"
    script(tmp_path / "bin" / "scene4d", '[ "$1" != train ] || echo outputs/demo/splat/1')
    stamp.touch()
    venv = os.path.relpath(tmp_path, ROOT)  # the Makefile puts the checkout before it
    done = make(f"VENV={venv}", f"STAMP={stamp}", "-o", str(stamp), "DEMO_MINUTES=0.01", "demo")
    assert done.returncode == 0, done.stderr
    assert "scene4d view outputs/demo/splat/1 " in done.stdout
    assert "scene4d view outputs/demo/splat/1 --phone" in done.stdout


def test_what_was_left_out_is_the_end_of_make_test(tmp_path):
    stamp = tmp_path / ".installed"
    script(tmp_path / "bin" / "python", "echo the tests ran")
    stamp.touch()
    browsers = (ROOT / "viewers" / "web" / "build" / "chromium-paths.txt").read_text().split()
    if any(Path(path).exists() for path in ("/usr/bin/node", *browsers)):
        pytest.skip("what would be missing is here")
    done = make(
        f"VENV={tmp_path}", f"STAMP={stamp}", "-o", str(stamp), "test", path="/usr/bin:/bin"
    )
    assert done.returncode == 0 and "the tests ran" in done.stdout
    node, chromium = done.stderr.strip().splitlines()
    assert node.startswith("Left out: the player's tests") and "make node" in node
    assert "apt-get install chromium" in chromium


def test_a_debian_without_venv_is_told_what_to_install(tmp_path):
    real = sys.executable
    python = script(
        tmp_path / "python", f'case "$2" in *ensurepip*) exit 1;; esac; exec {real} "$@"'
    )
    stamp = tmp_path / "venv" / ".installed"
    done = make(f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", f"STAMP={stamp}", str(stamp))
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()
