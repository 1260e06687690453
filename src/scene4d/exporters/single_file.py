"""The web player and a scene in one HTML file, which opens from a disk or as an attachment."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from scene4d.errors import Scene4dError
from scene4d.viewer.player_files import INDEX, page_with, player_files, policy_of, with_policy

_SCRIPT = re.compile(r'<script type="module"[^>]*\ssrc="\./([^"]+)"[^>]*></script>')
_STYLE = re.compile(r'<link rel="stylesheet"[^>]*\shref="\./([^"]+)"[^>]*>')
_BOOT = Path(__file__).parent / "offline" / "boot.js"


def single_page(player: Path, bundle: bytes, *, title: str) -> str:
    """The page with script, style, worker and ``bundle`` inside.

    The scripts are allowed by their hashes, and nothing is ever fetched. Raises
    :class:`Scene4dError` when the player's build has parts that this function does not know.
    """
    files = player_files(player)
    page = page_with(files.pop(INDEX).read_text(encoding="utf-8"), {"title": title})
    page, script = _cut_out(page, _SCRIPT, files)
    page, style = _cut_out(page, _STYLE, files)
    workers: dict[str, str] = {}
    for name in [name for name in files if name.endswith(".js")]:
        script, found = _worker_from_page(script, Path(name).name, f"scene4d-part{len(workers)}")
        if found:
            workers[f"scene4d-part{len(workers)}"] = _text(files.pop(name))
    if files:
        raise Scene4dError(
            f"the player's build has parts that do not go into one file: {', '.join(files)}",
            where=player,
            fix="leave out --single-file",
        )
    boot, script, style = _text(_BOOT), _inline(script), style.replace("</style", r"<\/style")
    data = base64.b64encode(bundle).decode("ascii")
    parts = [
        f'<script type="application/octet-stream" id="scene4d-scene">{data}</script>',
        *(f'<script type="text/plain" id="{name}">{_inline(code)}</script>'
          for name, code in workers.items()),
        f"<script>{boot}</script>",
        f'<script type="module">{script}</script>',
    ]  # fmt: skip
    page = page.replace("</head>", f"<style>{style}</style>\n  </head>", 1)
    page = page.replace("</body>", "\n".join([*parts, "  </body>"]), 1)
    return with_policy(page, {**policy_of(page), **_policy(boot, script, style)})


def _policy(boot: str, script: str, style: str) -> dict[str, str]:
    return {
        "default-src": "'none'",
        "script-src": f"{_hash(boot)} {_hash(script)} blob:",
        "style-src": _hash(style),
        "worker-src": "blob:",
        "img-src": "data: blob:",
        "connect-src": "data: blob:",
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _cut_out(page: str, pattern: re.Pattern[str], files: dict[str, Path]) -> tuple[str, str]:
    """The page without its one element of this kind, and the text of the file that it names."""
    found = pattern.findall(page)
    if len(found) != 1 or found[0] not in files:
        raise Scene4dError("the player's page is not as expected", where=INDEX, fix="make player")
    return pattern.sub("", page), _text(files.pop(found[0]))


def _text(path: Path) -> str:
    """A file's text as browsers read it from a page, where CR LF is LF."""
    return path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _inline(code: str) -> str:
    """Code that does not end the element it stands in: in JavaScript's strings and expressions a
    backslash before / or ! changes nothing."""
    return re.sub(r"<(/script|!--)", r"<\\\1", code, flags=re.IGNORECASE)


def _worker_from_page(script: str, name: str, element: str) -> tuple[str, bool]:
    """The script with the worker ``name`` taken from the page's element instead of the server."""
    address = re.compile(
        rf"new URL\(([`\"'])(?:\./|/|assets/)*{re.escape(name)}\1,\s*(?:``\+)?import\.meta\.url\)"
    )
    code = f'document.getElementById("{element}").textContent'
    blob = f'new URL(URL.createObjectURL(new Blob([{code}],{{type:"text/javascript"}})))'
    changed, count = address.subn(lambda _: blob, script)
    return changed, count > 0
