"""What the stages do: the functions of the verbs, called with a folder each and a time to keep."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.files import read_json
from scene4d.pipeline.stage import Work
from scene4d.representations.method import Method, resolve
from scene4d.training.methods import compressing_method, load_all_methods, load_method

if TYPE_CHECKING:
    from scene4d.training.opened import OpenedScene
    from scene4d.training.options import TrainOptions

MOVES = 0.02
"""Share of the pixels that show what moves, above which a scene is one that moves: below, it is
what a still scene's leaves, shadows and reflections make up."""
MOVES_AT_ONCE = 0.05
"""Or this much of one picture."""
STILL_METHOD = "splat"
_TRAINED = 0.8
"""Of a training's time; the rest is for reading pictures, evaluating and writing."""
FAILED = "failed.json"
"""In the folder of all stages: the diagnosis of poses that could not be found."""


class NoPosesError(DataError):
    """Structure from motion failed; its diagnosis, plain data, is what there is to report."""

    def __init__(self, error: DataError, diagnosis: Mapping[str, Any]) -> None:
        super().__init__(error.what, where=error.where, fix=error.fix)
        self.diagnosis = diagnosis

    def __reduce__(self) -> tuple[Any, ...]:
        plain = DataError(self.what, where=self.where, fix=self.fix)
        return NoPosesError, (plain, self.diagnosis)


def poses(work: Work) -> dict[str, Any]:
    """Frames and their camera poses, or a relief where the camera did not travel; of a video also
    whether something moves, and where."""
    from scene4d.data.process import (
        DepthModelOptions,
        ReliefOptions,
        SfmOptions,
        VideoOptions,
        process_images,
        process_video,
    )

    options, capture = work.options, work.folder / "capture"
    network = options.get("depth_model")
    relief = ReliefOptions(relief=True)
    depth = DepthModelOptions(depth_model=Path(network) if network else None)
    sfm = SfmOptions(
        max_image_size=options["max_image_size"], max_num_features=options["max_num_features"]
    )
    try:
        if work.source.kind == "photos":
            found = process_images(
                work.source.path, capture, sfm=sfm, relief=relief, depth=depth, say=work.say
            )
        else:
            video = VideoOptions(
                num_frames_target=options["num_frames"], moving=options["look_for_motion"]
            )
            found = process_video(
                work.source.path, capture, sfm=sfm, video=video, relief=relief, depth=depth,
                say=work.say,
            )  # fmt: skip
    except DataError as error:
        written = capture / "diagnosis.json"
        if not written.is_file():
            raise
        raise NoPosesError(error, read_json(written)) from error
    results: dict[str, Any] = {
        "verdict": found.verdict,
        "reason": found.reason,
        "registered": found.num_registered,
        "pictures": found.num_images,
        "diagnosis": found.text(),
    }
    if found.relief is not None:
        results["relief"] = found.relief.reason
    if found.moving is not None:
        share, most = found.moving.share, found.moving.largest_share
        results |= _judged(share, most)
    return results


def _judged(share: float, most: float) -> dict[str, Any]:
    moves = share >= MOVES or most >= MOVES_AT_ONCE
    told = (
        f"{share:.1%} of the pixels show what moves, {most:.1%} in one picture, by optical flow"
        f" against the cameras: {'it moves' if moves else 'it stands still'} (limits"
        f" {MOVES:.0%} and {MOVES_AT_ONCE:.0%}; --moving yes or no decides otherwise)"
    )
    return {"moves": moves, "told": told}


def motion(work: Work) -> dict[str, Any]:
    """Whether something moves in a capture with times."""
    from scene4d.data.images import ImageCache
    from scene4d.data.load import load_scene
    from scene4d.data.moving import MovingOptions, moving_masks
    from scene4d.data.options import SceneOptions

    scene = load_scene(work.source.path, SceneOptions(test_every=0))
    largest = max(max(f.camera.width, f.camera.height) for f in scene.frames)
    images = ImageCache(scene, downscale_factor=-(-largest // MovingOptions().largest_side))
    masks = moving_masks(scene, images)
    shares = [float(mask.float().mean()) for mask in masks.values()]
    return _judged(sum(shares) / max(1, len(shares)), max(shares, default=0.0))


def moves_of(work: Work) -> tuple[bool, str | None]:
    """Whether the scene is trained as one that moves, and how that was told."""
    chosen = work.options["moving"]
    if chosen != "auto":
        return chosen == "yes", f"--moving {chosen}"
    if work.source.says_moving:
        return True, "the capture brings masks of what moves"
    for done in work.done.values():
        if "moves" in done.results:
            return bool(done.results["moves"]), str(done.results["told"])
    return False, None


def moving_method() -> type[Method]:
    """The method for scenes that move. Raises :class:`UsageError` where none is installed."""
    for method in load_all_methods().values():
        if method.uses_time and method.made_of_splats:
            return method
    raise UsageError("no method for scenes that move is installed", fix="give --moving no")


def train(work: Work) -> dict[str, Any]:
    """A run folder with its evaluation and report; a training that was killed goes on."""
    from scene4d.training import train as training
    from scene4d.training.evaluate import evaluate_run
    from scene4d.training.run import load_run, newest_begun

    data = work.done["poses"].folder / "capture" if "poses" in work.done else work.source.path
    moves, told = moves_of(work)
    chosen = work.options["method"]
    if chosen is None:
        method_class = moving_method() if moves else load_method(STILL_METHOD)
    else:
        method_class = load_method(chosen)
    if told is not None:
        work.say(told)
    options = _train_options(work, data)
    with going_on_later():
        begun = newest_begun(work.folder, method_class.name)
        if begun is None:
            run = training.start(method_class(), options)
        else:
            run = training.resume(begun, data=data)
    loaded = load_run(run)
    results: dict[str, Any] = {
        "run": run.resolve().relative_to(work.folder.resolve()).as_posix(),
        "method": loaded.method.name,
        "moves": moves,
        "steps": loaded.step,
        "minutes_trained": loaded.elapsed_s / 60,
    }
    if told is not None:
        results["told"] = told
    if loaded.cameras.test_names:
        figures = evaluate_run(run, data=data, device=work.options["device"], compute_masks=False)
        results |= {
            "psnr": _finite(figures.psnr),
            "ssim": _finite(figures.ssim),
            "lpips": _finite(figures.lpips),
            "views": len(figures.images),
        }
    camera = (*loaded.cameras.train, *loaded.cameras.test)[0]
    results["size"] = f"{camera.width}x{camera.height}"
    return results


def _train_options(work: Work, data: Path) -> TrainOptions:
    from scene4d.data.load import load_scene
    from scene4d.training.options import TrainOptions

    frames = load_scene(data).frames
    longest = sorted(max(f.camera.width, f.camera.height) for f in frames)[len(frames) // 2]
    side = work.options["side"]
    factor = None if side is None else max(1, math.ceil(longest / side))
    if factor == 1 and work.options["may_be_smaller"]:
        factor = None  # train chooses, by the time there is
    return TrainOptions(
        data=data,
        max_minutes=max(0.01, _TRAINED * work.seconds / 60),
        output_dir=work.folder,
        experiment_name=work.source.name,
        downscale_factor=factor,
        device=work.options["device"],
        checkpoint_every_s=_checkpoint_seconds(work),
    )


def _checkpoint_seconds(work: Work) -> float:
    """Between checkpoints: what a lost machine costs at most."""
    return min(20.0, max(0.2, work.seconds / 20))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@contextmanager
def going_on_later() -> Iterator[None]:
    """A training that was stopped is gone on with by the same command, not by another one."""
    from scene4d.training.trainer import Interrupted

    try:
        yield
    except Interrupted as error:
        raise Scene4dError(
            f"stopped by {error.by}; everything up to here is saved",
            where=error.run,
            fix="give the same command again: it goes on from there",
        ) from error


def bundle(work: Work) -> dict[str, Any]:
    """scene.s4d and poster.webp: the scene compressed, or as its family stores it."""
    from scene4d.bundle.container import open_bundle

    source, target = _scene_of(work), work.folder / "scene.s4d"
    if work.source.kind == "bundle" and work.options["target_mb"] is None:
        results = _copied(source, target)
    else:
        results = _compressed(work, source, target)
    opened = open_bundle(target)
    (work.folder / "poster.webp").write_bytes(opened.read(opened.manifest["poster"]))
    shutil.rmtree(work.folder / "training", ignore_errors=True)
    return {**results, "kind": opened.manifest["kind"], "size_mb": target.stat().st_size / 1e6}


def _scene_of(work: Work) -> Path:
    """The run that was trained before, or the input."""
    if "train" in work.done:
        return work.done["train"].folder / str(work.done["train"].results["run"])
    return work.source.path


def _copied(source: Path, target: Path) -> dict[str, Any]:
    """The very bundle as one file; of a folder, packed. Its members are read and so checked."""
    from scene4d.bundle.container import open_bundle
    from scene4d.exporters.budgets import write_within
    from scene4d.training.open_scene import open_scene

    write_within(open_scene(source), target, target=None)
    opened = open_bundle(target)
    for name in opened.names():
        opened.read(name)
    return {"how": "the bundle as it is"}


def _compressed(work: Work, source: Path, target: Path) -> dict[str, Any]:
    from scene4d.exporters import bundle as bundles
    from scene4d.exporters.bundle_loss import loss_of
    from scene4d.exporters.options import BundleOptions
    from scene4d.training.open_scene import open_scene

    opened = open_scene(source)
    target_mb = work.options["target_mb"]
    if _can_be_compressed(opened):
        return _by_training(work, source, target)
    told = bundles.export(opened, target, BundleOptions(target_mb=target_mb), nearest=True)
    results: dict[str, Any] = {"how": told.split("\n")[0]}
    loss = loss_of(opened, target)
    if loss is not None:
        results |= {"psnr": _finite(loss.psnr), "views": loss.views, "against": "photographs"}
        if loss.psnr_before is None:
            results["against"] = "the scene's own pictures"
        else:
            results["psnr_before"] = _finite(loss.psnr_before)
    return results


def _can_be_compressed(scene: OpenedScene) -> bool:
    """Whether it stands still, is made of splats, and is not compressed already."""
    representation = scene.representation
    if representation.times is not None or representation.splats() is None:
        return False
    method = getattr(scene, "method", None)
    return method is None or (method.made_of_splats and method.compressor is None)


def _by_training(work: Work, source: Path, target: Path) -> dict[str, Any]:
    from scene4d.training.options import TrainOptions

    method_class: Any = compressing_method()
    with going_on_later():
        made = resolve(method_class.compressor)(
            source,
            target,
            method=method_class(target_mb=work.options["target_mb"]),
            options=TrainOptions(
                max_minutes=max(0.01, _TRAINED * work.seconds / 60),
                device=work.options["device"],
                checkpoint_every_s=_checkpoint_seconds(work),
            ),
            keep_in=work.folder / "training",
        )
    missed = "" if made.on_target else ", the nearest below the size that was asked for"
    return {
        "how": f"compressed from {made.before}, trained {made.seconds:.0f} s{missed}",
        "psnr_before": _finite(made.psnr_before),
        "psnr": _finite(made.psnr_after),
        "views": made.views,
        "against": made.against,
        "gaussians_before": made.num_before,
        "gaussians": made.num_after,
    }


def player(work: Work) -> dict[str, Any]:
    """site/: the player and the scene, for any static host."""
    from scene4d.exporters import player as players
    from scene4d.exporters.options import PlayerOptions
    from scene4d.training.open_scene import open_scene

    scene = open_scene(work.done["bundle"].folder / "scene.s4d")
    told = players.export(
        scene, work.folder / "site", PlayerOptions(title=str(work.options["title"]))
    )
    files = [file for file in (work.folder / "site").rglob("*") if file.is_file()]
    return {"told": told, "size_mb": sum(file.stat().st_size for file in files) / 1e6}
