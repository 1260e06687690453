"""Held-out photographs beside what runs, bundles and splat files of the capture show there.

    python benchmarks/side_by_side.py OUT.png RUN [RUN_OR_FILE ...] --views 0 3 --width 1200

The first column is the photograph, the next ones follow the order given; the first run says which
capture. PSNR of each picture is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("sources", nargs="+", type=Path, help="a run first")
    parser.add_argument("--views", nargs="+", type=int, default=[0], help="of the test views")
    parser.add_argument("--width", type=int, default=1200, help="of the picture, pixels")
    arguments = parser.parse_args()
    pixels = torch.cat([row(view, arguments.sources) for view in arguments.views])
    picture = Image.fromarray((pixels * 255).round().byte().numpy())
    height = round(picture.height * arguments.width / picture.width)
    picture.resize((arguments.width, height), Image.Resampling.LANCZOS).save(arguments.output)


@torch.no_grad()
def row(number: int, sources: list[Path]) -> torch.Tensor:
    """[height, columns * width, 3]"""
    from scene4d.evaluation.protocol import composited
    from scene4d.evaluation.psnr import psnr
    from scene4d.training.run import load_run
    from scene4d.training.teachers import load_teacher
    from scene4d.training.train import load_capture

    scene, images = load_capture(load_run(sources[0]).options, split="test")
    view = images.view(scene.test_indices[number])
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    columns = [composited(view, background)]
    for source in sources:
        shown = load_teacher(source).in_frame_of(scene).eval()
        rgb = shown.render(view.camera, background=background).rgb.clamp(0, 1)
        print(f"view {number}  {source}  {float(psnr(rgb, columns[0], mask=view.mask)):.2f} dB")
        columns.append(rgb)
    return torch.cat(columns, dim=1)


if __name__ == "__main__":
    main()
