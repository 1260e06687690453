"""Which stages lead from an input to a phone, with which options, and how long each may take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scene4d.errors import UsageError
from scene4d.optional import why_not
from scene4d.pipeline.inputs import SceneInput
from scene4d.pipeline.options import MakeOptions, Quality
from scene4d.pipeline.stage import Done, Stage
from scene4d.player.player_files import PlayerNotBuiltError, player_files, player_folder
from scene4d.training.methods import load_method, method_names

_RUN = "scene4d.pipeline.stages:"
SIDES: dict[Quality, int | None] = {"draft": 800, "good": 1600, "best": None}
"""Longer side in pixels of what is trained on, at most; None: what train chooses."""
_FRAMES: dict[Quality, tuple[int, ...]] = {
    "draft": (40, 24), "good": (90, 60, 40, 24), "best": (150, 90, 60, 40, 24)
}  # fmt: skip
"""Frames of a video, the most that there is time for."""
_DETAIL: tuple[tuple[int, int], ...] = ((1600, 8192), (1600, 4096), (1200, 2048), (800, 1024))
"""Longer side at which features are searched, and how many at most."""
_START: dict[Quality, int] = {"draft": 1, "good": 0, "best": 0}
POSES_SHARE = 0.4
"""Of the time, at most so much is planned for poses: the pictures are then looked at less finely.
"""
_PLAYER_S, _LOOK_S = 5.0, 20.0
_STORED_SHARE = 0.05
LEAST_SHARE = 0.25
"""Of all the time is left to training and compression, however long the poses took."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is made of an input."""

    source: SceneInput
    options: MakeOptions
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    """What is left out, and why."""


def plan_of(source: SceneInput, options: MakeOptions) -> Plan:
    """The stages for ``source``, in order. Raises :class:`UsageError` for options that mean nothing
    to it."""
    _check(source, options)
    notes: list[str] = []
    stages = [*_poses(source, options, notes), *_motion(source, options, notes)]
    if source.kind in ("photos", "video", "capture"):
        stages.append(_training(stages, options))
    stages.append(_bundle(source, stages, options))
    try:
        stages.append(_player(source, player_folder()))
    except PlayerNotBuiltError as error:
        notes.append(f"no player folder: {error}")
    return Plan(source=source, options=options, stages=tuple(stages), notes=tuple(notes))


def _check(source: SceneInput, options: MakeOptions) -> None:
    raw = source.kind in ("photos", "video", "capture")
    if options.method is not None:
        if options.method not in method_names():
            raise UsageError(f"there is no method {options.method!r}",
                             fix=f"choose one of: {', '.join(method_names())}")  # fmt: skip
        if not load_method(options.method).needs_capture:
            raise UsageError(f"the method {options.method!r} is trained without pictures",
                             fix=f"scene4d train {options.method}")  # fmt: skip
    unposed = source.kind in ("photos", "video")
    unused = {
        "--depth-model": options.depth_model is not None and not unposed,
        "--method": options.method is not None and not raw,
        "--resolution": options.resolution is not None and not raw,
        "--moving": options.moving != "auto" and not raw,
        "--moving yes": options.moving == "yes" and source.kind == "photos",
    }
    for name, wrong in unused.items():
        if wrong:
            raise UsageError(f"{name} means nothing to {source.facts}", where=source.path,
                             fix="leave it out")  # fmt: skip


def _poses(source: SceneInput, options: MakeOptions, notes: list[str]) -> list[Stage]:
    if source.kind not in ("photos", "video"):
        return []
    flow = why_not("cv2") is None
    looks = source.kind == "video" and options.moving != "no" and (
        flow or options.moving == "yes"
    )  # fmt: skip
    if source.kind == "video" and options.moving == "auto" and not flow:
        notes.append("whether something moves is not looked at: pip install 'scene4d[motion]'")
    frames, (side, features), seconds = _effort(source, options, looks)
    settings: dict[str, Any] = {"max_image_size": side, "max_num_features": features}
    what = f"camera poses of {source.pictures} photographs"
    if options.depth_model is not None:
        settings["depth_model"] = str(options.depth_model.absolute())
    if source.kind == "video":
        settings |= {"num_frames": frames, "look_for_motion": looks}
        what = f"at most {frames} frames and their camera poses"
        what += ", and what moves" if looks else ""
    return [Stage(
        name="poses", run=f"{_RUN}poses", what=what, reads_input=True, options=settings,
        outputs=("capture/transforms.json",), seconds=seconds,
    )]  # fmt: skip


def _effort(
    source: SceneInput, options: MakeOptions, looks: bool
) -> tuple[int, tuple[int, int], float]:
    """Frames, detail and guessed seconds of the finest search that fits into its time on this
    machine: with more cores it may be a finer one, and poses are then found anew."""
    allowed = POSES_SHARE * 60 * options.total_minutes
    video = source.kind == "video"
    choices = [
        (frames, detail)
        for detail in (_DETAIL[1:] if video else _DETAIL[_START[options.quality] :])
        for frames in (_FRAMES[options.quality] if video else (source.pictures or 0,))
    ]
    guessed = [(f, d, pose_seconds(f, d, video=video, looks=looks)) for f, d in choices]
    fitting = [choice for choice in guessed if choice[2] <= allowed]
    return fitting[0] if fitting else min(guessed, key=lambda choice: choice[2])


def pose_seconds(
    pictures: int, detail: tuple[int, int], *, video: bool = False, looks: bool = False
) -> float:
    """A guess from docs/process-data.md's table, for this machine's cores: features take as long as
    pictures are large, matching as long as there are pairs, by the square of their features."""
    side, features = detail
    pairs = pictures * (pictures - 1) / 2
    if pictures > (30 if video else 60):
        pairs = min(pairs, 25.0 * pictures)
    one = 0.7 * (side / 1600) ** 2 + 0.5
    seconds = one * pictures + 0.08 * pairs * max(0.1, features / 8192) ** 2
    seconds *= 1.6 if video else 1.0
    return (2.5 if looks else 1.0) * seconds * 2 / min(8, _cores())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _motion(source: SceneInput, options: MakeOptions, notes: list[str]) -> list[Stage]:
    """Of a capture with times: does something move?"""
    if source.kind != "capture" or not source.has_times or options.moving != "auto":
        return []
    if source.says_moving or options.method is not None:
        return []
    if why_not("cv2") is not None:
        notes.append("whether something moves is not looked at: pip install 'scene4d[motion]'")
        return []
    return [Stage(
        name="motion", run=f"{_RUN}motion", what="whether something moves", reads_input=True,
        seconds=_LOOK_S,
    )]  # fmt: skip


def _training(stages: Sequence[Stage], options: MakeOptions) -> Stage:
    chosen = options.method or "splats, or what moves" if _may_move(stages) else options.method
    return Stage(
        name="train", run=f"{_RUN}train", what=f"training of {chosen or 'splats'}, and figures",
        needs=tuple(stage.name for stage in stages), reads_input=True, resumes=True, gpu=True,
        memory_gb=3.0, share=0.6,
        options={
            "method": options.method, "minutes": options.total_minutes, "moving": options.moving,
            "side": options.resolution or SIDES[options.quality], "device": options.device,
            "may_be_smaller": options.quality != "best",
        },
    )  # fmt: skip


def _may_move(stages: Sequence[Stage]) -> bool:
    return any(s.name == "motion" or s.options.get("look_for_motion") for s in stages)


def _bundle(source: SceneInput, stages: Sequence[Stage], options: MakeOptions) -> Stage:
    copied = source.kind == "bundle" and options.target_mb is None
    trained = any(stage.name == "train" for stage in stages)
    size = "" if options.target_mb is None else f" of {options.target_mb:g} MB"
    settings: dict[str, Any] = {"target_mb": options.target_mb}
    if not copied:
        settings |= {"minutes": options.total_minutes, "device": options.device}
    return Stage(
        name="bundle", run=f"{_RUN}bundle", resumes=not copied, memory_gb=3.0,
        what="the bundle as it is, and its picture" if copied
        else f"compression to a bundle{size}, and its picture",
        needs=tuple(s.name for s in stages), reads_input=not trained, options=settings,
        outputs=("scene.s4d", "poster.webp"), share=0.0 if copied else 0.4, seconds=2.0,
    )  # fmt: skip


def _player(source: SceneInput, build: Path) -> Stage:
    return Stage(
        name="player", run=f"{_RUN}player", what="a folder with the web player for any host",
        needs=("bundle",), options={"title": source.name, "build": _digest(build)},
        outputs=("site/index.html",), seconds=_PLAYER_S,
    )  # fmt: skip


@cache
def _digest(build: Path) -> str:
    """Of the player's files: another build is copied anew."""
    digest = hashlib.sha256()
    for name, path in player_files(build).items():
        data = path.read_bytes()
        digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def allowance(stage: Stage, plan: Plan, done: Mapping[str, Done]) -> float:
    """Seconds that ``stage`` may take, once those in ``done`` took what they took: a stage that
    takes what there is has its share of what is left, by it and the like of it after it."""
    if not stage.share:
        return stage.seconds
    total = 60 * plan.options.total_minutes
    shares = {s.name: _share(s, plan, done) for s in plan.stages}
    later = plan.stages[plan.stages.index(stage) :]
    spent = sum(d.seconds for name, d in done.items() if name not in {s.name for s in later})
    before = plan.stages[: plan.stages.index(stage)]
    guessed = sum(_guess(s, total) for s in before if s.name not in done)
    left = total - spent - guessed - sum(s.seconds for s in later if not s.share)
    left = max(left, LEAST_SHARE * total)
    return left * shares[stage.name] / sum(shares[s.name] for s in later)


def _share(stage: Stage, plan: Plan, done: Mapping[str, Done]) -> float:
    """A bundle after a training takes little time where nothing is trained for it: of what moves,
    and of methods that are stored as they are."""
    if stage.name != "bundle" or not any(s.name == "train" for s in plan.stages):
        return stage.share
    chosen = None if plan.options.method is None else load_method(plan.options.method)
    stored = chosen is not None and (not chosen.made_of_splats or chosen.compressor is not None)
    moves = chosen.uses_time if chosen is not None else (
        any(entry.results.get("moves") for entry in done.values())
        or plan.options.moving == "yes"
        or (plan.options.moving == "auto" and plan.source.says_moving)
    )  # fmt: skip
    return _STORED_SHARE if stored or moves else stage.share


def _guess(stage: Stage, total: float) -> float:
    return stage.share * total if stage.share else stage.seconds
