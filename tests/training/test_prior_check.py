"""The verbs prior check and prior sample."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scene4d.cli.main import main
from scene4d.data.scene import at_size_of
from scene4d.errors import UsageError
from scene4d.priors.ffdnet import weight_shapes
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.sampling import sample
from scene4d.training.options import TrainOptions
from scene4d.training.prior_check import check, distances, halves_of
from scene4d.training.train import load_capture

pytestmark = pytest.mark.unchecked_shapes


@pytest.fixture(scope="module")
def capture(tiny_capture):
    scene, images = load_capture(TrainOptions(data=tiny_capture))
    return at_size_of(scene, images), images


def test_halves_are_apart_and_far_is_far(capture):
    scene, _ = capture
    halves = halves_of(scene)
    assert not set(halves.near) & set(halves.memory) and not set(halves.far) & set(halves.memory)
    near, far = (distances(scene, of, halves.memory) for of in (halves.near, halves.far))
    # 16 cameras on a circle: 22.5 degrees between neighbours
    assert near[1] == pytest.approx(22.5, abs=4) and far[1] > 2 * near[1]


def test_a_memory_knows_what_is_near_and_an_exact_prior_both(capture):
    scene, images = capture
    mean = GaussianPrior(lambda condition: torch.zeros(3, 1, 1), 0.25)
    table = check(scene, images, {"grey": mean}, [0.02, 0.5])
    assert set(table) == {"grey", "patches"}
    near, far = table["patches"]["near"], table["patches"]["far"]
    assert near[1] > far[1]
    # at little noise a wide Gaussian changes nothing: the noise is half of 0.02, and none of it
    # shows below black
    assert table["grey"]["far"][0] == pytest.approx(-20 * np.log10(0.01), abs=1.0)


@pytest.fixture(scope="module")
def ffdnet(tmp_path_factory):
    place = tmp_path_factory.mktemp("ffdnet")
    save_file({n: torch.zeros(s) for n, s in weight_shapes().items()},
              place / "ffdnet_color.safetensors")  # fmt: skip
    return place


def test_check_prints_a_table_and_where_a_prior_is_not_valid(tiny_capture, ffdnet, capsys):
    command = ["prior", "check", f"ffdnet:{ffdnet}", "--data", str(tiny_capture)]
    assert main([*command, "--ratios", "0.25", "1"]) == 0
    told = capsys.readouterr().out
    assert "near: 2 pictures" in told and "patches, far:" in told
    row = next(line for line in told.splitlines() if "ffdnet" in line and "near" in line)
    assert row.split(":")[-1].split()[1] == "-"
    assert main(["prior", "check", "nothing", "--data", str(tiny_capture)]) == 1


def test_samples_have_the_spread_of_the_prior():
    prior = GaussianPrior(torch.full((3, 8, 8), 0.2), 0.09)
    generator = torch.Generator().manual_seed(0)
    found = sample(prior, None, shape=(64, 3, 8, 8), steps=60, generator=generator)
    # 64 x 192 values; the last step's posterior mean takes a little of the spread
    assert float(found.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(found.std()) == pytest.approx(0.3, rel=0.05)
    start = torch.full((4, 3, 8, 8), 0.9)
    little = sample(prior, start, time=0.05, steps=5, generator=generator)
    assert float((little - start).abs().mean()) < 0.2


def test_sample_writes_pictures_and_needs_a_start_where_a_prior_knows_little_noise(
    tiny_capture, ffdnet, tmp_path, capsys
):
    out = ["--output-path", str(tmp_path / "out"), "--count", "2", "--steps", "3"]
    assert main(["prior", "sample", f"patches:{tiny_capture}", *out, "--size", "24", "16"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0000.png", "0001.png"]
    assert Image.open(tmp_path / "out" / "0000.png").size == (24, 16)
    out[1] = str(tmp_path / "other")
    assert main(["prior", "sample", str(ffdnet), *out]) == 2
    assert "start from a picture" in capsys.readouterr().err
    picture = str(tiny_capture / "images" / "000.png")
    assert main(["prior", "sample", str(ffdnet), *out, "--from-picture", picture]) == 0
    with pytest.raises(UsageError, match="valid up to the time"):
        sample(GaussianPriorUpTo(), torch.zeros(1, 3, 8, 8), time=0.9,
               generator=torch.Generator())  # fmt: skip


class GaussianPriorUpTo(GaussianPrior):
    """Valid at little noise."""

    def __init__(self):
        super().__init__(torch.zeros(3, 8, 8), 0.1)
        from dataclasses import replace

        self.info = replace(self.info, ratios=(0.0, 0.5))
