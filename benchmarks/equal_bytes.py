"""What files of one scene are worth: bytes, PSNR, time to open and to draw, steadiness.

    python benchmarks/equal_bytes.py RUN [RUN_OR_FILE ...] --frames 24

The first is the reference, a run: the photographs that it held out judge, and its depth says what
moved where in a flight along its training cameras. "flicker": how much frames of that flight
differ beyond what the motion explains (evaluation/consistency.py), in dB; higher is steadier. Times
are CPU time, the median of five: of opening a file, and of drawing a held-out view at its size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import interpolate
from scene4d.data.frame import inverted
from scene4d.evaluation.consistency import consistency
from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.rendering.render import DEPTH, Want
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene
from scene4d.training.run import load_run
from scene4d.training.train import load_capture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run folder, the reference")
    parser.add_argument("others", nargs="*", type=Path, help="runs and files of the same capture")
    parser.add_argument("--frames", type=int, default=24, help="of the flight")
    arguments = parser.parse_args()
    contest = Contest(arguments.run, arguments.frames)
    print("| file | MB | dB | open, ms | a frame, ms | flicker, dB |\n|---|---|---|---|---|---|")
    for path in (arguments.run, *arguments.others):
        print(contest.row(path), flush=True)


class Contest:
    """The held-out photographs of a run's capture, and a flight through it with its depths."""

    def __init__(self, path: Path, frames: int) -> None:
        run = load_run(path)
        self.scene, images = load_capture(run.options, split="test")
        self.views = [images.view(i) for i in self.scene.test_indices]
        self.background = torch.tensor(self.scene.background or (0.0, 0.0, 0.0))
        seen = run.cameras.train
        # 20 steps from camera to camera; the start of it, as the whole takes minutes.
        self.flight = interpolate(seen, num_frames=20 * len(seen), order="nearest")[:frames]
        self.depths = [self.drawn(run, camera, DEPTH).depth for camera in self.flight]

    def row(self, path: Path) -> str:
        """A line of the table."""
        opened = open_scene(path)
        opened.representation.eval()
        size = f"{path.stat().st_size / 1e6:.3f}" if path.is_file() else ""
        opening = f"{1e3 * median(lambda: open_scene(path)):.0f}" if path.is_file() else ""
        errors = [
            psnr(self.shown(opened, view.camera), composited(view, self.background), mask=view.mask)
            for view in self.views
        ]
        frames = [self.shown(opened, camera) for camera in self.flight]
        one = self.views[0].camera
        return (
            f"| {path} | {size} | {torch.stack(errors).mean():.2f} | {opening}"
            f" | {1e3 * median(lambda: self.shown(opened, one)):.1f}"
            f" | {consistency(frames, self.depths, self.flight):.2f} |"
        )

    def shown(self, opened: OpenedScene, camera: Camera):
        """The picture, 0..1."""
        return self.drawn(opened, camera).rgb.clamp(0, 1)

    @torch.no_grad()
    def drawn(self, opened: OpenedScene, camera: Camera, want: Want | None = None):
        """What ``opened``, whatever its coordinates, shows to a camera of the run's scene."""
        home = inverted(opened.source_from_scene) @ self.scene.source_from_scene.double()
        placed = camera.moved(home).float32()
        more = {} if want is None else {"want": want}
        return opened.representation.render(placed, background=self.background, **more)


def median(work: Callable[[], object]) -> float:
    """CPU seconds of five runs, after one that compiles."""
    work()
    seconds = []
    for _ in range(5):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
