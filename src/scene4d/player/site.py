"""What the web player's server gives out: the player's files and one scene, nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scene4d.bundle.container import MANIFEST, open_bundle
from scene4d.errors import DataError
from scene4d.player.player_files import (
    INDEX,
    page_with,
    player_files,
    player_folder,
    policy_of,
    policy_text,
)

SOG_INDEX = "meta.json"
OWN_POLICY = {
    # Nothing but this server is ever asked for, whatever the address says.
    "img-src": "'self' data: blob:",
    "connect-src": "'self' data: blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'self'",
}
"""What replaces the page's own directives when the scene is served from this machine."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Files by their address under ``/<token>/``; what is not listed does not exist."""

    files: Mapping[str, Path | bytes]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Unguessable (128 bits): who does not know the address cannot read the scene."""
    policy: str = "default-src 'self'"
    """Content security policy of every answer."""


def scene_site(
    scene: Path,
    *,
    title: str,
    settings: Mapping[str, str] | None = None,
    player: Path | None = None,
) -> Site:
    """A site with the player and ``scene``: a splat file, a bundle, or a folder of either kind.

    ``settings``: more of what the player's address may say. Raises :class:`Scene4dError` when the
    player is not built or the scene is not there.
    """
    files = player_files(player or player_folder())
    index = files.pop(INDEX).read_text(encoding="utf-8")
    content, members = scene_files(scene)
    page = page_with(index, {"content": content, "title": title, **(settings or {})})
    return Site(
        files={**files, **members, "": page.encode()},
        policy=policy_text({**policy_of(index), **OWN_POLICY}),
    )


def scene_files(scene: Path) -> tuple[str, dict[str, Path]]:
    """The address of the scene, and the files that belong to it by their addresses."""
    scene = Path(scene)
    if scene.name == SOG_INDEX and scene.is_file():
        scene = scene.parent
    if scene.is_file():
        name = f"scene{scene.suffix.lower()}"
        return name, {name: scene}
    if (scene / MANIFEST).is_file():
        names = [MANIFEST, *open_bundle(scene).names()]
        return f"scene/{MANIFEST}", {f"scene/{name}": scene / name for name in names}
    if (scene / SOG_INDEX).is_file():
        if (scene / SOG_INDEX).is_symlink():
            raise DataError(
                "is a symbolic link, which may lead out of its folder",
                where=scene / SOG_INDEX,
                fix="put a copy of the file there",
            )
        pictures = [p for p in sorted(scene.glob("*.webp")) if p.is_file() and not p.is_symlink()]
        members = {f"scene/{path.name}": path for path in pictures}
        return f"scene/{SOG_INDEX}", {**members, f"scene/{SOG_INDEX}": scene / SOG_INDEX}
    raise DataError("is neither a scene's file nor a folder with one", where=scene)


def title_of(source: Path) -> str:
    """A name for the page: the file's, or for a run its experiment's."""
    source = Path(source).resolve()
    if source.name in ("config.toml", SOG_INDEX, MANIFEST):
        source = source.parent
    return source.parents[1].name if (source / "config.toml").is_file() else source.stem
