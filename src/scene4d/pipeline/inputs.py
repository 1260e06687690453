"""What somebody gave: photographs, a video, a capture, splats or a run; and whether it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scene4d.data.dataparsers import DATAPARSERS, dataparser_module
from scene4d.data.process.files import find_pictures, is_picture_name, is_video_name
from scene4d.errors import DataError
from scene4d.formats.registry import format_by_content, format_by_suffix, is_splats
from scene4d.pipeline.options import MakeOptions
from scene4d.plain import to_table
from scene4d.training.open_scene import is_bundle
from scene4d.training.run import newest_run, run_path

Kind = Literal["photos", "video", "capture", "splats", "bundle", "run"]
IN_WORDS: dict[Kind, str] = {
    "photos": "photographs without poses",
    "video": "a video",
    "capture": "a capture with poses",
    "splats": "a splat file",
    "bundle": "a bundle",
    "run": "a run",
}
EXPECTED = (
    "give a folder of photographs, a video, a capture with poses (docs/captures.md), a splat file"
    " (docs/formats.md) or a run folder"
)
MARKER = "make.json"
"""In a folder that was made here."""
HASHED_BYTES = 1_000_000_000
"""Inputs of up to so many bytes are told apart by their content, larger ones by size and time."""


@dataclass(frozen=True, kw_only=True)
class SceneInput:
    """What a scene is made from."""

    kind: Kind
    path: Path
    """Absolute; of a folder with one video, the video."""
    name: str
    """For titles and folders."""
    facts: str
    """What was found, for people."""
    pictures: int | None = None
    """Photographs, or frames with a pose."""
    has_depth: bool = False
    has_times: bool = False
    """Whether its frames were taken at more than one time."""
    says_moving: bool = False
    """Whether it brings masks of what moves."""


def find_input(path: Path) -> SceneInput:
    """What lies at ``path``. Raises :class:`DataError` where that is none of the kinds."""
    path = Path(path)
    if not path.exists():
        raise DataError("there is no such file or folder", where=path, fix=EXPECTED)
    path = path.resolve()
    found = _file(path) if path.is_file() else _folder(path)
    if found is None:
        raise DataError(f"is none of what a scene is made from: {_seen(path)}", where=path,
                        fix=EXPECTED)  # fmt: skip
    return found


def _file(path: Path) -> SceneInput | None:
    if path.name == "config.toml":
        return _run(path.parent)
    if path.suffix.lower() == ".json":
        return _capture(path)
    if is_video_name(path):
        return _video(path)
    if is_picture_name(path):
        raise DataError("is one picture, and a scene needs several from different places",
                        where=path, fix=f"give their folder: {path.parent}")  # fmt: skip
    packed = path.suffix.lower() in (".zip", ".gz", ".tgz")
    if packed:
        raise DataError("is an archive", where=path, fix="unpack it, and give the folder")
    # An ending that belongs to no format says that it is something else, whatever its first bytes.
    if format_by_suffix(path) is not None and is_splats(path):
        return _splats(path)
    return None


def _folder(path: Path) -> SceneInput | None:
    if (path / MARKER).is_file():
        raise DataError("was made by scene4d make, and is no input", where=path,
                        fix="give what it was made from; 'scene4d view' shows its bundle/scene.s4d"
                        )  # fmt: skip
    if newest_run(path) is not None or (path / "config.toml").is_file():
        return _run(path)
    if any(dataparser_module(name).recognises(path) for name in DATAPARSERS):
        return _capture(path)
    if format_by_content(path) is not None:
        return _splats(path)
    return _raw(path)


def _raw(path: Path) -> SceneInput | None:
    """Photographs, or the one video of a folder."""
    found = find_pictures(path)
    videos = [path / name for name in found.others if is_video_name(Path(name))]
    count = len(found.pictures)
    if count:
        beside = f"; {_count(len(videos), 'video')} left alone" if videos else ""
        return SceneInput(kind="photos", path=path, name=path.name, pictures=count,
                          facts=f"{_count(count, 'photograph')} without poses{beside}"
                          )  # fmt: skip
    if len(videos) == 1:
        return _video(videos[0])
    if videos:
        listed = ", ".join(video.name for video in videos[:4]) + (", ..." if videos[4:] else "")
        raise DataError(f"holds {len(videos)} videos ({listed}), and a scene is made from one",
                        where=path, fix=f"give one of them: scene4d make {videos[0]}"
                        )  # fmt: skip
    if found.unreadable:
        name, why = next(iter(found.unreadable.items()))
        raise DataError(f"contains no pictures that can be read"
                        f" ({_count(len(found.unreadable), 'file')} like {name}: {why})",
                        where=path, fix=EXPECTED)  # fmt: skip
    return None


def _video(path: Path) -> SceneInput:
    size = path.stat().st_size / 1e6
    return SceneInput(kind="video", path=path, name=path.stem, facts=f"a video of {size:.3g} MB")


def _capture(path: Path) -> SceneInput:
    from scene4d.data.load import load_scene

    scene = load_scene(path)
    frames = scene.frames
    times = {float(f.camera.time) for f in frames if f.camera.time is not None}
    depth = any(f.has_measured_depth for f in frames)
    moving = any(f.moving_path is not None for f in frames)
    facts = f"{_count(len(frames), 'picture')} with poses ({scene.dataparser})"
    facts += ", with depth" if depth else ""
    facts += ", with times" if len(times) > 1 else ""
    root = path if path.is_dir() else path.parent
    return SceneInput(
        kind="capture", path=path, name=root.name, facts=facts, pictures=len(frames),
        has_depth=depth, has_times=len(times) > 1, says_moving=moving,
    )  # fmt: skip


def _splats(path: Path) -> SceneInput:
    kind: Kind = "bundle" if is_bundle(path) else "splats"
    form = format_by_content(path) or format_by_suffix(path)
    assert form is not None
    name = path.name.removesuffix(next((s for s in form.suffixes if path.name.endswith(s)), ""))
    return SceneInput(kind=kind, path=path, name=name, facts=f"{IN_WORDS[kind]} ({form.name})")


def _run(path: Path) -> SceneInput:
    from scene4d.training.run import read_config

    run = run_path(path)
    method, _ = read_config(run)
    return SceneInput(kind="run", path=run, name=run.parent.parent.name,
                      facts=f"a run of {method.name}")  # fmt: skip


def _seen(path: Path) -> str:
    """What is there instead, for people."""
    if path.is_file():
        return f"a file of {path.stat().st_size:,} bytes ending in {path.suffix or 'nothing'!r}"
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in path.iterdir())
    if not names:
        return "an empty folder"
    return f"a folder of {_count(len(names), 'entry', 'entries')}, e.g. {', '.join(names[:4])}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What tells one input from another."""

    content: str
    """A hash of the content of its files and their names; where there is more than
    :data:`HASHED_BYTES` of names, sizes and times of change."""
    state: str
    """A hash of names, sizes and times of change: as long as it is the same, nothing is read."""


def fingerprint(
    found: SceneInput, *, skip: Path | None = None, marker: Mapping[str, str] | None = None
) -> Fingerprint:
    """That of an input; ``marker``: what :data:`MARKER` said of it last time."""
    root, files = _files_of(found, skip)
    states = [(file, file.stat()) for file in files]
    state = hashlib.sha256(found.kind.encode())
    content = hashlib.sha256(found.kind.encode())
    for file, known in states:
        name = f"\0{file.relative_to(root).as_posix()}\0{known.st_size}\0".encode()
        content.update(name)
        state.update(name + str(known.st_mtime_ns).encode())
    if marker and marker.get("state") == state.hexdigest() and marker.get("fingerprint"):
        return Fingerprint(content=marker["fingerprint"], state=state.hexdigest())
    if sum(known.st_size for _, known in states) > HASHED_BYTES:
        return Fingerprint(content=state.hexdigest(), state=state.hexdigest())
    for file, _ in states:
        with open(file, "rb") as opened:
            while data := opened.read(1 << 20):
                content.update(data)
    return Fingerprint(content=content.hexdigest(), state=state.hexdigest())


def _files_of(found: SceneInput, skip: Path | None) -> tuple[Path, list[Path]]:
    """The folder that the names are told from, and the files that matter, in order."""
    path = found.path
    if found.kind == "run":  # evaluations and reports change nothing
        kept = [path / "config.toml", path / "scene.json", *(path / "checkpoints").glob("*")]
        return path, sorted(file for file in kept if file.is_file())
    if path.is_file() and found.kind != "capture":
        return path.parent, [path]
    root = path if path.is_dir() else path.parent
    return root, sorted(_walk(root, skip))


def _walk(root: Path, skip: Path | None) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        inside = skip is not None and path.is_relative_to(skip)
        if not hidden and not inside and path.is_file():
            yield path


def text_of_marker(source: SceneInput, known: Fingerprint, options: MakeOptions) -> bytes:
    """What :data:`MARKER` says of the input with the fingerprint ``known``."""
    marker = {
        "schema_version": 1, "input": str(source.path), "fingerprint": known.content,
        "state": known.state, "kind": source.kind, "options": to_table(options),
    }  # fmt: skip
    return (json.dumps(marker, indent=2) + "\n").encode()


def marker_of(text: bytes | None) -> dict[str, str]:
    """What a :data:`MARKER` says, as text; empty where there is none or it is damaged."""
    try:
        value = json.loads(text or b"")
    except (ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def check_apart(source: Path, out: Path) -> None:
    """Refuses an output that lies around or inside of the input: originals are never touched."""
    inside = _is_inside(source, out) or (source.is_dir() and _is_inside(out, source))
    if inside:
        raise DataError("the output and the input lie inside of each other", where=out,
                        fix=f"choose a folder beside {source}")  # fmt: skip


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def names_of(folder: Path) -> Iterable[str]:
    """What lies in a folder, hidden files left out."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
