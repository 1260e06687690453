"""The suite and the product where optional packages are absent, or are there and do not load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from optional_packages import MESSAGE, VARIABLE, import_or_skip, optional_modules

from scene4d.errors import BrokenExtraError, MissingExtraError
from scene4d.optional import import_optional, remedy, why_not

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "scene4d").rglob("*.py"))


def test_the_list_is_that_of_pyproject():
    modules = optional_modules()
    assert {"viser", "pycolmap", "av", "gsplat", "onnx", "coremltools"} <= set(modules)
    assert not {"pytest", "torch", "numpy"} & set(modules)
    assert modules["pycolmap"] == "recon" and modules["cv2"] == "motion"


def test_the_suite_is_collected_without_a_single_optional_package():
    """`make test` once failed here where Open3D's libraries were missing. Packages that do not load
    are the harder case: absent ones take the same path."""
    # Without checks of shapes and rewritten assertions, which take most of the time.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += ["--assert=plain", "-o", "addopts=--import-mode=importlib", "tests"]
    found = subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, VARIABLE: "broken", "JAXTYPING_DISABLE": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:]
    assert "tests/data/test_points.py::" in found.stdout
    assert "tests/data/test_process.py::" not in found.stdout  # wants pycolmap: skipped as a whole


def broken(folder: Path, name: str, text: str = MESSAGE) -> None:
    (folder / f"{name}.py").write_text(f"raise ImportError({text!r})\n")


def test_a_test_of_a_package_that_does_not_load_is_skipped(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    broken(tmp_path, "half_installed")
    for module in ("half_installed", "not_installed_at_all"):
        with pytest.raises(pytest.skip.Exception, match=module):
            import_or_skip(module)
    assert import_or_skip("json").dumps(1) == "1"


def test_absent_and_broken_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    broken(tmp_path, "half_installed")
    broken(tmp_path, "inner_missing", "x")
    (tmp_path / "inner_missing.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(MissingExtraError, match=r"not installed\n.*scene4d\[recon\]") as absent:
        import_optional("not_installed_at_all", extra="recon", needed_for="this")
    assert not isinstance(absent.value, BrokenExtraError)
    with pytest.raises(BrokenExtraError, match="does not load") as found:
        import_optional("half_installed", extra="recon", needed_for="this")
    assert "libusb-1.0.so.0" in str(found.value)
    assert "apt-get install libusb-1.0-0" in str(found.value)
    with pytest.raises(BrokenExtraError, match="no_such_module_anywhere"):
        import_optional("inner_missing", extra="recon", needed_for="this")
    assert "apt-get install libusb-1.0-0" in (why_not("half_installed") or "")
    assert why_not("json") is None


@pytest.mark.parametrize(
    ("package", "text", "advice"),
    [
        ("x", MESSAGE, "apt-get install libusb-1.0-0"),
        ("cv2", "libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("x", "/lib/libc.so.6: version `GLIBC_2.38' not found", "libc.so.6"),
        ("x", "libfoo-2.so.5: cannot open shared object file", "apt-file search libfoo-2.so.5"),
        ("x", "DLL load failed while importing x", "pip install --force-reinstall"),
        ("x", "undefined symbol: _ZN", "pip install --force-reinstall 'scene4d[recon]'"),
    ],
)
def test_the_advice_names_what_is_missing(package, text, advice):
    assert advice in remedy(package, ImportError(text), "recon")


def imports_under_try(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import):
                    yield from (alias.name for alias in inner.names)
                elif isinstance(inner, ast.ImportFrom) and inner.module:
                    yield inner.module


def test_there_is_one_way_to_import_what_is_optional():
    """Elsewhere a broken package would be called missing, or raise as it likes."""
    hidden = set(optional_modules())
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name in imports_under_try(ast.parse(path.read_text()))
        if name.split(".")[0] in hidden and name != "gsplat.cuda._backend"  # a compilation
    ]
    assert wrong == []
    ours = [p for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__).resolve()]
    assert [p.name for p in ours if "pytest.importorskip(" in p.read_text()] == []


@pytest.mark.parametrize("how", ["broken", "absent"])
def test_commands_say_what_to_do(how, tmp_path):
    """In a process of its own, as a user of such a machine would see it."""
    (tmp_path / "photos").mkdir()
    code = f"""if True:
        from pathlib import Path
        import optional_packages
        optional_packages.hide_if_asked()
        from scene4d.cli.main import main
        from scene4d.data.process.video import analyse_video
        print(main(["process-data", "images", "--data", {str(tmp_path / "photos")!r},
                    "--output-dir", {str(tmp_path / "out")!r}]))
        try:
            analyse_video(Path({str(tmp_path / "a.mp4")!r}))
        except Exception as error:
            print(error)
    """
    paths = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=True,
        env={**os.environ, VARIABLE: how, "PYTHONPATH": paths},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "'av'" in said
    assert ("apt-get install" in said) == (how == "broken")
    assert ("pip install 'scene4d[video]'" in said) == (how == "absent")
