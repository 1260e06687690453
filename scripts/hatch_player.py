"""Hatchling's hook that ships the web player's build, where it has been made (`make player`).

In a wheel it becomes scene4d/viewer/player; in a source distribution it stays in its place, so that
a wheel made from that has it, too. An editable install finds it in the checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "viewers/web/dist"


class PlayerBuildHook(BuildHookInterface):
    """Adds the folder to what is included; says so when there is none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        folder = Path(self.root) / BUILD
        if version == "editable":
            return
        if not (folder / "index.html").is_file():
            self.app.display_warning(f"no {BUILD}: built without the web player (make player)")
            return
        target = "scene4d/viewer/player" if self.target_name == "wheel" else BUILD
        build_data["force_include"][str(folder)] = target
