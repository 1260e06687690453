"""How near one pass of a student comes to two passes of its teacher (SnapFusion's CFG-aware step).

    python benchmarks/guided_student.py TEACHER STUDENT PICTURES --scale 3

STUDENT is what ``scene4d prior train unet --denoising.teacher TEACHER --denoising.scale 3`` made;
PICTURES is a folder of prepared pictures with captions. By sigma/alpha: the root mean square
distance to the guided answer of the teacher's single pass and of the student's, on -1..1, and the
CPU time of both ways, in turn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from scene4d.methods.picture_prior.method import DenoisingOptions
from scene4d.methods.picture_prior.pictures import read_pictures
from scene4d.priors.unet import load_unet

RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--count", type=int, default=32, help="pictures, drawn")
    arguments = parser.parse_args()
    teacher, student = load_unet(arguments.teacher), load_unet(arguments.student)
    pictures = read_pictures(DenoisingOptions(pictures=arguments.pictures))
    generator = torch.Generator().manual_seed(0)
    size = max(teacher.shape.usual_size)
    crops = pictures.crops(arguments.count, size, generator)
    clean, texts = crops.pictures, list(crops.captions)
    taken = {"two passes": 0.0, "one": 0.0}
    print("| sigma/alpha | teacher, one pass | student, one pass |\n|---|---|---|")
    for ratio in RATIOS:
        noisy = clean + ratio * torch.randn(clean.shape, generator=generator)
        each = torch.full((len(clean),), ratio)
        begun = time.process_time()
        free, told = teacher.cleaned(noisy, each, None), teacher.cleaned(noisy, each, texts)
        guided = free + arguments.scale * (told - free)
        middle = time.process_time()
        learned = student.cleaned(noisy, each, texts)
        taken["two passes"] += middle - begun
        taken["one"] += time.process_time() - middle
        off = [float((x - guided).square().mean().sqrt()) for x in (told, learned)]
        print(f"| {ratio:g} | {off[0]:.3f} | {off[1]:.3f} |")
    print(", ".join(f"{name} {seconds:.2f} CPU s" for name, seconds in taken.items()))


if __name__ == "__main__":
    main()
