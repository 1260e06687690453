"""The web player's build: where it lies, and its page with a scene's settings written in."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from scene4d.bundle.kinds import BundleKind
from scene4d.errors import DataError, Scene4dError

INDEX = "index.html"
_PACKAGED = Path(__file__).parent / "player"
_CHECKOUT = Path(__file__).parents[3] / "viewers" / "web"
_KINDS = re.compile(r'<meta name="scene4d-kinds" content="([^"]*)"')
_POLICY = re.compile(r'(<meta\s+http-equiv="Content-Security-Policy"\s+content=")([^"]*)(")')


class PlayerNotBuiltError(Scene4dError):
    """The web player is not there: a checkout in which it was not built."""


def player_folder() -> Path:
    """The folder with the player's index.html: in a wheel the package's, in a checkout its build.

    Raises :class:`PlayerNotBuiltError`.
    """
    for folder in (_PACKAGED, _CHECKOUT / "dist"):
        if (folder / INDEX).is_file():
            return folder
    if (_CHECKOUT / "package.json").is_file():
        raise PlayerNotBuiltError(
            "the web player is not built",
            where=_CHECKOUT / "dist",
            fix="make player (with Node.js 20.19 or newer; make node installs one)",
        )
    raise PlayerNotBuiltError(
        "this scene4d was installed without the web player, which the npm registry is needed for",
        fix="install it again where the npm registry is reachable: pip install --force-reinstall"
        " --no-deps, and then what you installed scene4d from; released wheels have it built in",
    )


def player_files(folder: Path) -> dict[str, Path]:
    """All files of the player by their path under ``folder``, with forward slashes.

    Links are left out: they might lead to files that are none of the player's.
    """
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def check_played(player: Path, kind: BundleKind, *, where: object) -> None:
    """Raises :class:`DataError` where the build ``player`` does not draw bundles of ``kind``, as
    that of a plugin: a build's page names the kinds that it draws (``build/kinds.ts``)."""
    told = _KINDS.search((player / INDEX).read_text(encoding="utf-8"))
    if told is None or kind.name in told[1].split():
        return
    raise DataError(
        f"is a scene of kind {kind.name!r}, which the player does not draw;"
        f" it draws {', '.join(sorted(told[1].split()))}",
        where=where,
        fix="write its splats to a file and play that: scene4d export SCENE ply"
        if kind.made_of_splats
        else "scene4d render draws its pictures",
    )


def page_with(index: str, settings: Mapping[str, str], *, head: str = "") -> str:
    """The player's page ``index`` that opens with ``settings`` (names as in its address) when its
    address says nothing; ``head`` is markup to add to the page's head."""
    written = html.escape(urlencode(settings), quote=True)
    added = f'    <meta name="scene4d" content="{written}" />\n{head}  '
    before, end, after = index.partition("</head>")
    if not end:
        raise Scene4dError("the player's page has no </head>", where=INDEX, fix="make player")
    title = settings.get("title")
    if title:
        before = re.sub(r"<title>.*?</title>", lambda _: f"<title>{html.escape(title)}</title>",
                        before, count=1, flags=re.S)  # fmt: skip
    return before + added.removeprefix("  ") + end + after


def with_poster(index: str, address: str) -> str:
    """The page with a picture where the scene will be, which is there before any script.

    Raises :class:`Scene4dError` when the page is another one than expected.
    """
    place = '<main id="player">'
    if index.count(place) != 1:
        raise Scene4dError("the player's page has no place for a picture", where=INDEX,
                           fix="make player")  # fmt: skip
    picture = f'<img id="poster" alt="" src="{html.escape(address, quote=True)}" />'
    return index.replace(place, place + picture)


def policy_of(index: str) -> dict[str, str]:
    """The page's own content security policy, directive by directive; empty when it has none."""
    found = _POLICY.search(index)
    parts = found.group(2).split(";") if found else []
    return {name: value for name, _, value in (part.strip().partition(" ") for part in parts)}


def policy_text(policy: Mapping[str, str]) -> str:
    """A policy as it stands in a header or a page."""
    return "; ".join(f"{name} {value}".strip() for name, value in policy.items() if name)


def with_policy(index: str, policy: Mapping[str, str]) -> str:
    """The page with another content security policy. Raises :class:`Scene4dError`."""
    text, count = _POLICY.subn(lambda m: m[1] + policy_text(policy) + m[3], index, count=1)
    if not count:
        raise Scene4dError("the player's page has no policy", where=INDEX, fix="make player")
    return text
