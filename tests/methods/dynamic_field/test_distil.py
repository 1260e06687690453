"""Either kind of moving scene teaches the other, by the one teacher's term, at all times."""

import json
from dataclasses import replace

import pytest
from moving_ball import SMALL
from optional_packages import import_or_skip

from scene4d.methods.deformable.method import DeformableMethod
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start

pytestmark = pytest.mark.unchecked_shapes
import_or_skip("cv2")


def teacher_psnrs(run):
    """Of the first and the last lines of the log."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [row["teacher_psnr"] for row in rows if "teacher_psnr" in row]
    return found[0], sum(found[-3:]) / 3


def test_each_learns_from_the_other(moving_ball, tmp_path):
    options = TrainOptions(data=moving_ball, output_dir=tmp_path, device="cpu", evaluate=False)
    splats = DeformableMethod(
        num_random_points=300, max_num_gaussians=600, sh_degree=1, num_nodes=8, steps=60,
        coarsest_downscale=1,
    )  # fmt: skip
    field = replace(SMALL, steps=60)
    runs = {"field": start(field, options), "splats": start(splats, options)}
    teaching = TeacherOptions(first_views=8, crops=4, crop_size=16)
    taught = {
        "splats": replace(splats, teaching=teaching, photometric=PhotometricOptions(weight=0.0)),
        "field": replace(
            field, teaching=teaching, photometric=replace(field.photometric, weight=0.0)
        ),
    }
    for student, teacher in (("splats", "field"), ("field", "splats")):
        run = start(taught[student], replace(options, teacher=runs[teacher]))
        first, last = teacher_psnrs(run)
        assert last > first + 1.0, (student, first, last)
        loaded = load_run(run).representation
        assert loaded.times == pytest.approx((0.0, 2.0), abs=0.1)
