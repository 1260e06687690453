"""What is trained at which size where nobody said: the rule, and that it is said and kept."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from scene4d.methods.splat.method import SplatMethod
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.sizing import FEWEST_STEPS, LONGEST_SIDE, Means, choose_sizes, with_sizes
from scene4d.training.train import start

ROOMY = Means(seconds=None, steps=7000, memory=64e9, disk=0, cores=2)


def minutes(count: float, **more) -> Means:
    return replace(ROOMY, seconds=60 * count, steps=None, **more)


def test_small_pictures_stay_as_they_are_whatever_the_time():
    """The sample scene and fox@4, of which the tables of docs/quality.md are."""
    for width, height, count in ((200, 200, 115), (135, 240, 50)):
        for means in (ROOMY, minutes(0.5), minutes(1), minutes(5), minutes(0.05, cores=1)):
            sizes = choose_sizes(width, height, count, means)
            assert (sizes.downscale_factor, sizes.max_num_gaussians) == (1, 100_000)


def test_photographs_of_a_phone_and_little_time():
    """2160 x 3840 and 1.5 minutes made 75 steps once."""
    sizes = choose_sizes(2160, 3840, 30, minutes(1.5))
    assert sizes.steps >= FEWEST_STEPS and sizes.max_num_gaussians == 100_000
    assert 3840 / sizes.downscale_factor <= LONGEST_SIDE
    assert 2160 * 3840 / sizes.downscale_factor**2 > 200_000  # and no smaller than it has to be
    more = choose_sizes(2160, 3840, 30, minutes(20))
    assert more.downscale_factor < sizes.downscale_factor
    assert more.max_num_gaussians > sizes.max_num_gaussians


def test_more_gaussians_for_more_pixels_where_there_is_time():
    """540 x 960 stayed blurred under 100,000 after 3,000 steps."""
    assert choose_sizes(540, 960, 50, replace(ROOMY, steps=3000)).max_num_gaussians == 260_000
    assert choose_sizes(540, 960, 50, replace(ROOMY, steps=300)).max_num_gaussians == 100_000
    counts = [choose_sizes(540, 960, 50, minutes(m)).max_num_gaussians for m in (1, 5, 10, 30)]
    assert counts == sorted(counts) and counts[0] == 100_000 and counts[-1] == 260_000


def test_memory_is_kept_to():
    little = replace(ROOMY, memory=1e9)
    sizes = choose_sizes(1200, 1600, 300, little)
    assert 300 * 1200 * 1600 / sizes.downscale_factor**2 * 16 / 3 <= 0.5e9
    on_disk = choose_sizes(1200, 1600, 300, replace(little, disk=1e10))
    assert on_disk.downscale_factor == 1
    assert choose_sizes(4000, 3000, 10, replace(ROOMY, memory=1e9)).max_num_gaussians <= 130_000


def test_faster_machines_take_more():
    slow, fast = (choose_sizes(1080, 1920, 30, minutes(2, cores=c)) for c in (1, 16))
    assert slow.downscale_factor > fast.downscale_factor
    assert fast.steps >= FEWEST_STEPS


def test_what_the_user_sets_stays_and_nothing_is_said(tiny_capture, caplog):
    caplog.set_level(logging.INFO, logger="scene4d")
    options = TrainOptions(data=tiny_capture, downscale_factor=2, device="cpu")
    method = SplatMethod(max_num_gaussians=77)
    assert with_sizes(method, options) == (method, options)
    assert caplog.text == ""
    chosen, same = with_sizes(SplatMethod(), options)
    assert (chosen.max_num_gaussians, same) == (100_000, options)
    assert "--max-num-gaussians" in caplog.text and "--downscale-factor" not in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_what_was_chosen_is_said_once_and_written_down(tiny_capture, tmp_path, caplog, monkeypatch):
    """A picture's longer side of 48 pixels is too much here: 24 are trained."""
    monkeypatch.setattr("scene4d.training.sizing.LONGEST_SIDE", 24)
    monkeypatch.setattr("scene4d.training.sizing._SMALLEST_SIDE", 8)
    caplog.set_level(logging.INFO, logger="scene4d")
    run = start(
        SplatMethod(steps=1, num_random_points=50),
        TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu"),
    )
    assert caplog.text.count("pictures: 24x24, 2 times smaller than stored") == 1
    assert "at most 100,000 Gaussians" in caplog.text
    loaded = load_run(run)
    assert loaded.cameras.train[0].width == 24
    assert loaded.options.downscale_factor == 2  # so that eval and resume see the same
    assert loaded.method.max_num_gaussians == 100_000
