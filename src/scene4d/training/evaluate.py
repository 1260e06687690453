"""Evaluates a run on its held-out images and writes its report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from scene4d.data.scene import Scene, View, ViewSource
from scene4d.errors import DataError, UsageError
from scene4d.evaluation.protocol import EvalInfo, EvalResult, composited, evaluate
from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.report import write_report
from scene4d.plain import to_table
from scene4d.representations.base import Representation
from scene4d.training.device import choose_device
from scene4d.training.evaluate_dynamic import dynamic_figures, with_fitted_poses
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import load_capture
from scene4d.training.trainer import on_device


def evaluate_run(
    path: Path,
    *,
    data: Path | None = None,
    output_path: Path | None = None,
    device: str = "auto",
    lpips: bool = True,
    compute_masks: bool = True,
    fit_test_poses: bool = False,
) -> EvalResult:
    """Measures the newest checkpoint on the test images; the figures go into ``output_path``, with
    pictures beside it, by default eval.json in the run folder, with report.html.

    ``data``: where the capture lies now. ``compute_masks``: of a dynamic capture that brings no
    masks, make them from optical flow (kept in the run folder). ``fit_test_poses``: also
    measure after the test cameras were fitted to their pictures, as ``NAME_fitted``."""
    torch_device = choose_device(device)
    run = load_run(path, device=str(torch_device))
    if not run.method.needs_capture:
        raise UsageError(
            f"the method {run.method.name!r} is trained without photographs: there is nothing to "
            "compare with",
            where=run.path,
            fix="look at it: scene4d view",
        )
    options = run.options if data is None else TrainOptions(**{**vars(run.options), "data": data})
    # Headers first, pixels of the test images only.
    scene, images = load_capture(options, split="test", source_from_scene=run.source_from_scene)
    names = {i: scene.frames[i].name for i in scene.test_indices}
    if list(names.values()) != list(run.cameras.test_names):
        raise DataError(
            "the capture's test images are not those that this run held out",
            where=scene.root,
            fix="give the capture that the run was trained on with --data",
        )
    if not scene.test_indices:
        raise DataError(
            "no image was held out, so there is nothing to evaluate on",
            where=run.path,
            fix="train with --test-every 8",
        )
    target = output_path or run.path / "eval.json"
    background = None if scene.background is None else torch.tensor(scene.background)
    dynamic = dynamic_figures(run, scene, images, background, compute_masks=compute_masks)

    def views() -> Iterator[View]:
        return (on_device(images.view(i), torch_device) for i in scene.test_indices)

    if fit_test_poses:
        dynamic = with_fitted_poses(run.representation, views(), background, dynamic, lpips=lpips)
    result = evaluate(
        run.representation,
        views(),
        background=background,
        output_path=target,
        info=EvalInfo(
            experiment_name=run.experiment_name,
            method_name=run.method.name,
            checkpoint=run.checkpoint_path.relative_to(run.path).as_posix(),
            split_rule=scene.split_rule,
            train_names=[scene.frames[i].name for i in scene.train_indices],
            names=names,
            step=run.step,
        ),
        lpips=lpips,
        dynamic=dynamic,
    )
    if target == run.path / "eval.json":
        defaults = {"training": to_table(TrainOptions()),
                    "method_options": to_table(type(run.method)())}  # fmt: skip
        write_report(run.path, defaults=defaults)
    return result


def summary(result: EvalResult) -> str:
    """The means in one line; in a second one what is said of a dynamic scene besides."""
    parts = [f"PSNR {result.psnr:.2f} dB", f"SSIM {result.ssim:.4f}"]
    if result.lpips is not None:
        parts.append(f"LPIPS {result.lpips:.4f}")
    lines = [f"{len(result.images)} test images: " + ", ".join(parts)]
    found = result.results()
    told = [form.format(found[name]) for name, form in _TOLD.items() if found.get(name) is not None]
    return "\n".join([*lines, *([", ".join(told)] if told else [])])


_TOLD = {
    "mpsnr": "mPSNR {:.2f} dB",
    "mssim": "mSSIM {:.4f}",
    "mlpips": "mLPIPS {:.4f}",
    "mpsnr_moving": "moving {:.2f} dB",
    "mpsnr_still": "still {:.2f} dB",
    "pck_t": "PCK-T {:.3f}",
    "epe_median": "3D error {:.4g}",
    "flicker": "flicker {:.2f}",
    "omega_deg_per_s": "omega {:.3g} deg/s",
    "mpsnr_fitted": "mPSNR with fitted poses {:.2f} dB",
}


@torch.no_grad()
def mean_psnr(representation: Representation, scene: Scene, images: ViewSource) -> float:
    """Mean PSNR in dB over the views that were held out; NaN where there are none."""
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    values = []
    for index in scene.test_indices:
        view = images.view(index)
        rgb = representation.render(view.camera, background=background).rgb.clamp(0, 1)
        values.append(float(psnr(rgb, composited(view, background), mask=view.mask)))
    return sum(values) / len(values) if values else math.nan
