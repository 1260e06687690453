"""The web player and a scene in one HTML file, which opens from a disk or as an attachment."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from scene4d.bundle.scene_info import image_extension
from scene4d.errors import Scene4dError
from scene4d.player.player_files import (
    INDEX,
    page_with,
    player_files,
    policy_of,
    with_policy,
    with_poster,
)

SCENE = "scene.s4d"
NOTICES = "THIRD-PARTY-NOTICES.txt"
"""Licences of what the player's build contains: they travel with it."""
_SCRIPT = re.compile(r'<script type="module"[^>]*\ssrc="\./([^"]+)"[^>]*></script>')
_STYLE = re.compile(r'<link rel="stylesheet"[^>]*\shref="\./([^"]+)"[^>]*>')
_MODULE_SYNTAX = re.compile(r"\bimport\.meta\b|(^|[;}\n])\s*(import\s*[\w{*\"'`]|export\s*[\w{*])")
_INLINE = Path(__file__).parent / "offline" / "inline.js"
_WORKER = """\
new Worker(URL.createObjectURL(new Blob(['self.scene4dScene="',\
document.getElementById("scene4d-scene").textContent,'";',\
document.getElementById("scene4d-worker").textContent],{type:"text/javascript"})))"""


def single_page(
    player: Path,
    bundle: bytes,
    *,
    title: str,
    poster: bytes | None = None,
    embed: Sequence[str] = (),
) -> str:
    """The page with script, style, worker and ``bundle`` inside; ``poster``, an image file, is
    shown until the scene is there. Pages of the origins ``embed`` may steer it in a frame.

    The scripts are allowed by their hashes, and nothing is ever fetched. Raises
    :class:`Scene4dError` when the player's build has parts that this function does not know.
    """
    files = player_files(player)
    settings = {"content": SCENE, "title": title}
    if embed:
        settings["embed"] = ",".join(embed)
    page = page_with(files.pop(INDEX).read_text(encoding="utf-8"), settings)
    if poster:
        kind = {"png": "png", "jpg": "jpeg", "webp": "webp"}[image_extension(poster)]
        encoded = base64.b64encode(poster).decode("ascii")
        page = with_poster(page, f"data:image/{kind};base64,{encoded}")
    page, script = _cut_out(page, _SCRIPT, files)
    page, style = _cut_out(page, _STYLE, files)
    name, script = _worker_from_page(script, list(files), player)
    worker = _classic(_text(files.pop(name)), player)
    notices = _text(files.pop(NOTICES)) if NOTICES in files else ""
    if files:
        raise _unknown(f"parts that do not go into one file: {', '.join(files)}", player)
    script, style = _inline(script), style.replace("</style", r"<\/style")
    data = base64.b64encode(bundle).decode("ascii")
    parts = (
        f'<script type="text/plain" id="scene4d-notices">\n{_inline(notices)}</script>',
        f'<script type="application/octet-stream" id="scene4d-scene">{data}</script>',
        f'<script type="text/plain" id="scene4d-worker">{_inline(worker)}</script>',
        f'<script type="module">{script}</script>',
    )
    page = page.replace("</head>", f"<style>{style}</style>\n  </head>", 1)
    page = page.replace("</body>", "\n".join([*parts, "  </body>"]), 1)
    return with_policy(page, {**policy_of(page), **_policy(script, style)})


def _policy(script: str, style: str) -> dict[str, str]:
    return {
        "default-src": "'none'",
        "script-src": f"{_hash(script)} blob:",
        "style-src": _hash(style),
        "worker-src": "blob:",
        "img-src": "data: blob:",
        "connect-src": "data: blob:",
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _unknown(what: str, where: object) -> Scene4dError:
    return Scene4dError(
        f"the player's build has {what}", where=where, fix="leave out --single-file"
    )


def _cut_out(page: str, pattern: re.Pattern[str], files: dict[str, Path]) -> tuple[str, str]:
    """The page without its one element of this kind, and the text of the file that it names."""
    found = pattern.findall(page)
    if len(found) != 1 or found[0] not in files:
        raise _unknown("another page than expected", INDEX)
    return pattern.sub("", page), _text(files.pop(found[0]))


def _text(path: Path) -> str:
    """A file's text as browsers read it from a page, where CR LF is LF."""
    return path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _inline(code: str) -> str:
    """Code that does not end the element it stands in: in JavaScript's strings and expressions a
    backslash before / or ! changes nothing."""
    return re.sub(r"<(/script|!--)", r"<\\\1", code, flags=re.IGNORECASE)


def _worker_from_page(script: str, names: list[str], where: Path) -> tuple[str, str]:
    """The name of the one worker, and the script that takes it from the page."""
    for name in names:
        file = re.escape(Path(name).name)
        started = re.compile(
            rf"new Worker\([^;{{}}]{{0,80}}[`\"'/]{file}[`\"'][^;{{}}]{{0,80}}"
            r"\{\s*type:\s*[`\"']module[`\"']\s*\}\s*\)"
        )
        changed, count = started.subn(lambda _: _WORKER, script)
        if count == 1:
            return name, changed
    raise _unknown("no worker where one is expected", where)


def _classic(code: str, where: Path) -> str:
    """The worker as a classic script with the scene at hand: browsers start no modules from pages
    on a disk. The strict mode and the scope of a module stay."""
    if _MODULE_SYNTAX.search(code):
        raise _unknown("a worker of several modules", where)
    before = _text(_INLINE).replace("@SCENE@", SCENE)
    return f'(()=>{{"use strict";{before}}})();(()=>{{"use strict";{code}\n}})();'
