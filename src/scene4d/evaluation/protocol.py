"""The protocol: a representation rendered at held-out views, compared and written down.

For every view: the render is clamped to 0..1 and **not** quantised to 8 bits; a photograph with
alpha is composited on the background that is rendered with; metrics are taken per image and
averaged over images. Pixels that the view's mask excludes are left out of PSNR exactly; SSIM is
averaged over valid pixels; and for SSIM and LPIPS both images show the photograph's colours in
excluded pixels, so that nothing rendered there counts.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.errors import DataError
from scene4d.evaluation.lpips import SMALLEST_SIDE, lpips
from scene4d.evaluation.machine import describe_machine
from scene4d.evaluation.masked import MASKED_METRICS, MaskedFigures, Regions, masked_figures
from scene4d.evaluation.pictures import side_by_side, write_picture
from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.ssim import ssim
from scene4d.files import atomic_update, write_json

METRICS = {
    "psnr": "dB, from the mean squared error of images in 0..1, not quantised",
    "ssim": "11x11 Gaussian window of sigma 1.5, zero-padded, mean over channels",
    "lpips": "v0.1, AlexNet, images converted from 0..1 to -1..1, weights in float16",
}
"""What the figures of eval.json are, in words."""


@runtime_checkable
class Renderer(Protocol):
    """Anything that renders: every representation does."""

    def render(self, camera: Camera, *, background: Tensor) -> Any:
        """An object whose ``rgb`` is the picture [height, width, 3]."""


@dataclass(frozen=True, kw_only=True)
class EvalInfo:
    """What eval.json states beside the figures."""

    experiment_name: str
    method_name: str
    checkpoint: str
    """Path relative to the run folder, so that the run can be moved."""
    split_rule: str = ""
    """How the test images were chosen, in words."""
    train_names: Sequence[str] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    """The image's name by ``View.index``; views without one are named by their index."""
    step: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DynamicFigures:
    """What is measured of a dynamic scene besides."""

    regions: Mapping[int, Regions] = field(default_factory=dict)
    """By ``View.index``: which pixels count for the masked figures."""
    results: Mapping[str, float] = field(default_factory=dict)
    """What was measured beside the held-out pictures, by name."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """What those are, in words."""


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """The figures of one image."""

    name: str
    psnr: float
    ssim: float
    lpips: float | None
    """None where it was not asked for, or the image is below 32 pixels."""
    seconds: float
    """Time of rendering."""
    valid_share: float
    """Share of pixels that count."""
    picture: str | None
    """The side-by-side image, relative to eval.json."""
    masked: MaskedFigures | None = None
    """Of a dynamic scene."""

    def figures(self) -> dict[str, Any]:
        """What is known, by name, as in eval.json."""
        own = {key: value for key, value in vars(self).items() if key != "masked"}
        masked = {} if self.masked is None else vars(self.masked)
        return {key: value for key, value in {**own, **masked}.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """Means over images, and every image."""

    psnr: float
    ssim: float
    lpips: float | None
    seconds_per_image: float
    """Median; the first render may include compilation."""
    images: Sequence[ImageResult]
    more: Mapping[str, float] = field(default_factory=dict)
    """What was measured of a dynamic scene beside its pictures."""

    def masked(self) -> dict[str, float]:
        """The means of the masked figures over the images that have them, by name."""
        rows = [vars(image.masked) for image in self.images if image.masked is not None]
        names = rows[0] if rows else ()
        known = {name: [row[name] for row in rows if row[name] is not None] for name in names}
        return {name: statistics.fmean(values) for name, values in known.items() if values}

    def results(self) -> dict[str, float | int | None]:
        """The means by name, as in eval.json."""
        return {
            "psnr": self.psnr,
            "ssim": self.ssim,
            "lpips": self.lpips,
            "seconds_per_image": self.seconds_per_image,
            "fps": 1.0 / max(self.seconds_per_image, 1e-9),
            "num_images": len(self.images),
            **self.masked(),
            **self.more,
        }


def evaluate(
    renderer: Renderer,
    views: Iterable[View],
    *,
    background: Float[Tensor, 3] | None = None,
    output_path: Path | None = None,
    info: EvalInfo | None = None,
    lpips: bool = True,
    dynamic: DynamicFigures | None = None,
) -> EvalResult:
    """Measures ``renderer`` at ``views``; the figures go into the JSON file ``output_path``, and
    pictures into a folder beside it (:func:`pictures_of`), all at once at the end.

    ``background``: colour behind both render and photographs with alpha; None is black. Views are
    taken one at a time, on the device they come on. The pictures are photograph, render and error
    side by side. A view whose mask excludes every pixel is left out with a warning. ``dynamic``:
    what is measured of a dynamic scene besides. Raises :class:`DataError` when no view is left, or
    a render is not finite.
    """
    info = info or EvalInfo(experiment_name="", method_name="", checkpoint="")
    how = _How(background=background, lpips=lpips, dynamic=dynamic or DynamicFigures())
    if output_path is None:
        return _measured(renderer, views, None, info, how)
    with atomic_update(output_path.parent, index=output_path.name) as folder:
        staged = folder / output_path.name
        result = _measured(renderer, views, staged, info, how)
        write_eval(staged, result, info, metrics=how.dynamic.metrics)
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class _How:
    """What is compared, and on what background."""

    background: Float[Tensor, 3] | None
    lpips: bool
    dynamic: DynamicFigures


def pictures_of(path: Path) -> Path:
    """Where the pictures of the evaluation ``path`` lie: ``images`` beside ``eval.json``."""
    return path.parent / ("images" if path.name == "eval.json" else f"{path.stem}_images")


def _measured(
    renderer: Renderer,
    views: Iterable[View],
    output_path: Path | None,
    info: EvalInfo,
    how: _How,
) -> EvalResult:
    """Every view's figures and their means; with pictures for the evaluation ``output_path``."""
    images = []
    for view in views:
        name = info.names.get(int(view.index), f"{view.index:05d}")
        if view.mask is not None and not bool(view.mask.any()):
            warnings.warn(f"{name}: left out, its mask excludes every pixel", stacklevel=3)
            continue
        images.append(_evaluate_view(renderer, view, name, output_path, how))
    if not images:
        raise DataError(
            "there is no image to evaluate on",
            fix="hold images out: --test-every N, or test_filenames in transforms.json",
        )
    scores = [image.lpips for image in images if image.lpips is not None]
    return EvalResult(
        psnr=statistics.fmean(image.psnr for image in images),
        ssim=statistics.fmean(image.ssim for image in images),
        lpips=statistics.fmean(scores) if len(scores) == len(images) else None,
        seconds_per_image=statistics.median(image.seconds for image in images),
        images=images,
        more=how.dynamic.results,
    )


def write_eval(
    path: Path, result: EvalResult, info: EvalInfo, *, metrics: Mapping[str, str] | None = None
) -> None:
    """Writes eval.json: nerfstudio's layout, with the split, every image and the machine.
    ``metrics``: what figures beside the usual ones are, in words."""
    masked = {name: MASKED_METRICS[name] for name in result.masked() if name in MASKED_METRICS}
    write_json(
        path,
        {
            "experiment_name": info.experiment_name,
            "method_name": info.method_name,
            "checkpoint": info.checkpoint,
            "step": info.step,
            "results": result.results(),
            "metrics": {**METRICS, **masked, **(metrics or {})},
            "split": {
                "rule": info.split_rule,
                "train": list(info.train_names),
                "test": [image.name for image in result.images],
            },
            "per_image": [image.figures() for image in result.images],
            "machine": describe_machine(),
        },
    )


def composited(view: View, background: Float[Tensor, 3]) -> Float[Tensor, "*views h w 3"]:
    """The photograph; on ``background`` where it has alpha."""
    if view.alpha is None:
        return view.rgb
    alpha = view.alpha[..., None]
    return view.rgb * alpha + background * (1.0 - alpha)


def _evaluate_view(
    renderer: Renderer,
    view: View,
    name: str,
    output_path: Path | None,
    how: _How,
) -> ImageResult:
    behind = torch.zeros(3) if how.background is None else how.background
    behind = behind.to(view.rgb)
    target = composited(view, behind)
    rendered, seconds = _timed_render(renderer, view.camera, behind)
    if rendered.shape != target.shape:
        raise DataError(
            f"rendered {tuple(rendered.shape)}, the photograph is {tuple(target.shape)}", where=name
        )
    if not bool(torch.isfinite(rendered).all()):
        raise DataError("the render has values that are not finite", where=name)
    pred = rendered.to(target).clamp(0.0, 1.0)
    regions, masked = how.dynamic.regions.get(int(view.index)), None
    if regions is not None:
        masked = masked_figures(pred, target, regions, mask=view.mask, with_lpips=how.lpips)
    picture = None
    if output_path is not None:
        path = pictures_of(output_path) / f"{view.index:05d}_{Path(name).stem}.png"
        picture = path.relative_to(output_path.parent).as_posix()
        write_picture(path, side_by_side(target, pred, view.mask))
    return ImageResult(
        name=name,
        psnr=float(psnr(pred, target, view.mask)),
        ssim=float(ssim(pred, target, view.mask)),
        lpips=_lpips(pred, target, view.mask, name) if how.lpips else None,
        seconds=seconds,
        valid_share=1.0 if view.mask is None else float(view.mask.float().mean()),
        picture=picture,
        masked=masked,
    )


def _timed_render(
    renderer: Renderer, camera: Camera, background: Float[Tensor, 3]
) -> tuple[Tensor, float]:
    with torch.no_grad():
        start = time.perf_counter()
        rgb = renderer.render(camera, background=background).rgb
        if rgb.is_cuda:
            torch.cuda.synchronize(rgb.device)
        return rgb, time.perf_counter() - start


def _lpips(
    pred: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None,
    name: str,
) -> float | None:
    if min(target.shape[:2]) < SMALLEST_SIDE:
        warnings.warn(f"{name}: too small for LPIPS, which needs 32 pixels", stacklevel=2)
        return None
    shown = pred if mask is None else torch.where(mask[..., None], pred, target)
    with torch.no_grad():
        return float(lpips(shown, target))
