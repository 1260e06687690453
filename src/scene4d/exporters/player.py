"""The web player and a scene as a folder for any static host, or as one HTML file."""

from __future__ import annotations

import hashlib
import html
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scene4d.bundle.container import open_bundle
from scene4d.errors import Scene4dError, UsageError
from scene4d.exporters.budgets import write_within
from scene4d.exporters.bundle import kind_for
from scene4d.exporters.options import PlayerOptions
from scene4d.exporters.single_file import SCENE, single_page
from scene4d.exporters.textured_mesh import export_usdz
from scene4d.files import atomic_folder, atomic_path, read_json
from scene4d.image_files import open_picture
from scene4d.player.player_files import (
    INDEX,
    check_played,
    page_with,
    player_files,
    player_folder,
    with_poster,
)
from scene4d.player.site import title_of
from scene4d.training.opened import OpenedScene

MARKER = "scene4d-player.json"
"""Lists the folder's files: what a later export may replace, and what it must not touch."""
ICON_SIZES = (192, 512)
MODEL = "scene.usdz"
"""A mesh for the room that an iPhone shows: it has no WebXR."""
_OFFLINE = Path(__file__).parent / "offline"
_HEAD = """\
    <link rel="preload" href="./{poster}" as="image" fetchpriority="high" />
    <link rel="manifest" href="./manifest.webmanifest" />
    <link rel="apple-touch-icon" href="./icon-192.png" />
    <meta property="og:title" content="{title}" />
    <meta property="og:image" content="./icon-512.png" />
    <script src="./register.js" defer></script>
"""


def export(
    source: OpenedScene,
    path: Path,
    options: PlayerOptions | None = None,
    *,
    target_mb: float | None = None,
    player: Path | None = None,
) -> str:
    """Writes the folder, or the one file; returns lines that describe it.

    ``target_mb``: size of the bundle inside; ``player``: another build of the player. Raises
    :class:`Scene4dError` when the player is not built or does not draw such a scene, or when
    ``path`` holds something else.
    """
    options, path = options or PlayerOptions(), Path(path)
    player = player or player_folder()
    title = options.title or title_of(source.path)
    _check_destination(path, options)
    check_played(player, kind_for(source), where=source.path)
    with tempfile.TemporaryDirectory(prefix="scene4d-player-") as scratch:
        bundle = Path(scratch) / SCENE
        fitted = write_within(source, bundle, target=options.target, target_mb=target_mb)
        if options.single_file:
            with atomic_path(path) as temporary:
                page = single_page(
                    player,
                    bundle.read_bytes(),
                    title=title,
                    poster=_poster(bundle)[0],
                    embed=options.embed,
                )
                temporary.write_text(page, encoding="utf-8", newline="\n")
            size = path.stat().st_size
        else:
            model = None
            if source.representation.mesh() is not None:
                model = Path(scratch) / MODEL
                export_usdz(source, model)
            files = folder_files(player, bundle, title=title, embed=options.embed, model=model)
            write_folder(path, files)
            size = sum(len(data) for data in files.values())
    return f"{fitted.summary(options.target)}\nplayer and scene together {size / 1e6:.2f} MB"


def _check_destination(path: Path, options: PlayerOptions) -> None:
    """Refuses, before any work, a destination that would be refused after it."""
    is_page = path.suffix.lower() in (".html", ".htm")
    if options.single_file:
        if not is_page or path.is_dir():
            raise UsageError("one file is written as .html", where=path, fix="name it SCENE.html")
        return
    if is_page:
        raise UsageError(
            "the player is written as a folder", where=path, fix="name a folder, or --single-file"
        )
    check_replaceable(path)


def folder_files(
    player: Path,
    bundle: Path,
    *,
    title: str,
    embed: Sequence[str] = (),
    model: Path | None = None,
) -> dict[str, bytes]:
    """The folder's content by path: player, scene, poster, icons, manifest, service worker.

    Pages of the origins ``embed`` may steer the player in a frame; ``model`` is the scene as USDZ,
    which is not kept for use without a network.
    """
    poster, suffix = _poster(bundle)
    poster_file = f"poster{suffix}"
    files = {name: path.read_bytes() for name, path in player_files(player).items()}
    settings = {"content": SCENE, "poster": poster_file, "title": title}
    if embed:
        settings["embed"] = ",".join(embed)
    if model is not None:
        settings["model"] = MODEL
    index = files.pop(INDEX).decode("utf-8")
    head = _HEAD.format(title=html.escape(title, quote=True), poster=poster_file)
    page = with_poster(page_with(index, settings, head=head), f"./{poster_file}")
    added = {
        INDEX: page.encode(),
        SCENE: bundle.read_bytes(),
        poster_file: poster,
        **{f"icon-{size}.png": icon(poster, size) for size in ICON_SIZES},
        "manifest.webmanifest": _json(web_manifest(title)),
        "register.js": (_OFFLINE / "register.js").read_bytes(),
    }
    clash = sorted(set(files) & (set(added) | {"sw.js", MARKER, MODEL}))
    if clash:
        raise Scene4dError(f"the player's build has files of these names, too: {clash}")
    files |= added
    files["sw.js"] = service_worker(files)
    if model is not None:
        files[MODEL] = model.read_bytes()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    files[MARKER] = _json({"format": "scene4d-player", "version": 1, "files": hashes})
    return files


def _poster(bundle: Path) -> tuple[bytes, str]:
    """The bundle's picture, and its file suffix."""
    opened = open_bundle(bundle)
    name = opened.manifest["poster"]
    return opened.read(name), Path(name).suffix


def service_worker(files: dict[str, bytes]) -> bytes:
    """The service worker that keeps ``files``; its version is a hash of them all and of itself."""
    text = (_OFFLINE / "sw.js").read_text(encoding="utf-8")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    version = hashlib.sha256((text + json.dumps(hashes)).encode()).hexdigest()[:16]
    listed = json.dumps({name: None if name == INDEX else known for name, known in hashes.items()})
    if "'" in listed or "\\" in listed:  # it stands between quotes in the script
        raise Scene4dError("the player's build has a file name with a quote or backslash")
    return text.replace("@VERSION@", version).replace("@FILES@", listed).encode()


def web_manifest(title: str) -> dict[str, object]:
    """The web app manifest (W3C): name, icons, and that it opens without the browser's bars."""
    icons = [
        {"src": f"./icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png",
         "purpose": purpose}
        for size in ICON_SIZES
        for purpose in ("any", "maskable")
    ]  # fmt: skip
    return {
        "name": title,
        "short_name": title if len(title) <= 12 else f"{title[:11]}…",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#000000",
        "theme_color": "#000000",
        "icons": icons,
    }


def icon(poster: bytes, size: int) -> bytes:
    """A square PNG with the whole poster in it, and the colour of its corner around."""
    from PIL import Image, ImageOps

    with open_picture(poster, where="poster") as image:
        picture = image.convert("RGB")
    colour = tuple(picture.crop((0, 0, 1, 1)).tobytes())
    square = ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS, color=colour)
    written = io.BytesIO()
    square.save(written, "PNG", optimize=True)
    return written.getvalue()


def check_replaceable(path: Path) -> None:
    """Raises :class:`UsageError` unless ``path`` is free, empty, or an earlier export alone."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_dir():
        raise UsageError("is there and is not a folder", where=path, fix="name another folder")
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if not _is_folder(p)}
    if not present:
        return
    if MARKER not in present:
        raise UsageError(
            "is not empty and was not written by this command",
            where=path,
            fix="name a new folder",
        )
    marker = read_json(path / MARKER)
    listed = marker.get("files") if isinstance(marker, dict) else None
    foreign = sorted(present - {MARKER} - set(listed if isinstance(listed, dict) else {}))
    if foreign:
        raise UsageError(
            f"holds files that this command did not write: {', '.join(foreign[:4])}"
            + (" ..." if len(foreign) > 4 else ""),
            where=path,
            fix="move them away, or name a new folder",
        )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Writes ``files`` to a new folder beside ``path`` and puts it in its place, whole or not at
    all; an earlier export goes when the new one stands."""
    path = path.resolve()
    with atomic_folder(path) as new:
        for name, data in files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        check_replaceable(path)  # again: somebody may have put something there meanwhile


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
