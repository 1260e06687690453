"""A predictor of frames: what it expects, what it is told, and videos of it."""

import itertools

import pytest
import torch
from priors.test_unet import SMALL, network, pictures

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError, UsageError
from scene4d.priors.frames import FILE, FramesPrior, continued, load_frames
from scene4d.priors.kinds import kinds_that_take, load_prior, prior_name
from scene4d.priors.prior import Condition
from scene4d.priors.unet import FILE as UNET
from scene4d.priors.unet import Before, UnetPrior, UnetShape, VideoShape, load_unet, save_unet

VIDEO = VideoShape(interval=0.1, longest=0.3, change=0.2)


def flight(times):
    """Cameras that stand still."""
    count = len(times)
    return Camera(c2w=torch.eye(4).expand(count, 4, 4), K=torch.eye(3).expand(count, 3, 3),
                  width=18, height=13, time=torch.tensor(times))  # fmt: skip


@pytest.mark.parametrize("ratio", [0.05, 0.3, 80.0])
def test_an_untrained_one_expects_no_change_or_a_picture_of_its_own(ratio):
    torch.manual_seed(0)
    made = UnetPrior(UnetShape(**SMALL, deviation=0.7, video=VIDEO))
    x, before = pictures(2), pictures(2).flip(0)
    told = Before(pictures=before, seconds=torch.tensor([0.1, -0.3]),
                  known=torch.tensor([True, False]))  # fmt: skip
    found = made.cleaned(x, torch.full((2,), ratio), before=told)
    # posterior means of Gaussians about the picture before, and about 0, to float32's rounding
    assert torch.allclose(found[0], before[0] + 0.04 / (ratio**2 + 0.04) * (x[0] - before[0]),
                          atol=2e-6)  # fmt: skip
    assert torch.allclose(found[1], 0.49 / (ratio**2 + 0.49) * x[1], atol=2e-6)


def test_each_of_a_batch_is_told_its_own_picture_and_time():
    made, x = network(video=VIDEO), pictures(3)
    before, ratios = pictures(3).roll(1, 0), torch.tensor([0.1, 1.0, 5.0])
    seconds, known = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([True, True, False])
    together = made.cleaned(x, ratios, before=Before(pictures=before, seconds=seconds, known=known))

    def alone(i, picture=None, lapse=None):
        told = Before(
            pictures=before[i : i + 1] if picture is None else picture,
            seconds=seconds[i : i + 1] if lapse is None else torch.tensor([lapse]),
        )
        return made.cleaned(x[i : i + 1], ratios[i : i + 1], before=told)[0]  # fmt: skip

    for i in (0, 1):
        assert torch.allclose(together[i], alone(i), atol=1e-5)  # sums in another order
    nothing = made.cleaned(x[2:], ratios[2:])[0]
    assert torch.allclose(together[2], nothing, atol=1e-5)
    # another picture, another sign, another length of time, nothing told: all are heard, far above
    # the rounding of 1e-6
    for other in (alone(1, before[1:2].flip(2)), alone(1, lapse=0.2), alone(1, lapse=-0.1),
                  made.cleaned(x[1:2], ratios[1:2])[0]):  # fmt: skip
        assert float((other - together[1]).abs().mean()) > 1e-4


def test_a_video_is_a_chain_from_the_picture_that_is_given():
    made = network(video=VIDEO, channels=("rgb",))
    prior = FramesPrior(made, 3)
    x, first = pictures(2, 3, channels=3), pictures(1, channels=3).clamp(-1, 1)
    alpha, sigma = torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9])
    camera = flight([0.2, 0.3, 0.3])
    found = prior.denoise(x, alpha, sigma, Condition(picture=first, camera=camera))
    assert found.shape == x.shape and torch.equal(found[:, 0], first.expand(2, -1, -1, -1))
    noisy = x / alpha[:, None, None, None, None]
    for number, lapse in ((1, 0.1), (2, 0.0)):
        told = Before(pictures=found[:, number - 1], seconds=torch.full((2,), lapse))
        expected = made.cleaned(noisy[:, number], sigma / alpha, before=told)
        assert torch.allclose(found[:, number], expected, atol=1e-5)
    one = prior.denoise(x[0], alpha[0], sigma[0], Condition(picture=first[0], camera=camera))
    assert torch.allclose(one, found[0], atol=1e-5)
    # without a first picture it is cleaned alone
    free = prior.denoise(x, alpha, sigma, Condition(camera=camera))
    assert torch.allclose(free[:, 0], made.cleaned(noisy[:, 0], sigma / alpha), atol=1e-5)


def test_of_depth_the_first_picture_gives_colours_alone():
    made = network(video=VIDEO)  # colour and depth
    x, first = pictures(1, 2), pictures(1, channels=3)
    one = torch.ones(1)
    told = Condition(picture=first, camera=flight([0.0, 0.1]))
    found = FramesPrior(made, 2).denoise(x, one, one, told)
    assert torch.equal(found[:, 0, :3], first)
    assert torch.allclose(found[:, 0, 3:], made.cleaned(x[:, 0], one)[:, 3:], atol=1e-5)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Condition(), "has to be told when"),
        (Condition(camera=flight([0.0, 0.1, 0.5])), "0.4 s from one picture to the next"),
        (Condition(camera=flight([0.5, 0.1, 0.0])), "0.4 s from one picture to the next"),
        (Condition(camera=flight([0.0, 0.1, 0.2]), picture=torch.zeros(1, 3, 13, 17)),
         "a first picture of 17x13 pixels of a video of 18x13"),
    ],
)  # fmt: skip
def test_what_it_cannot_answer_is_told(told, words):
    prior = FramesPrior(network(video=VIDEO), 3)
    with pytest.raises(UsageError, match=words):
        prior.denoise(pictures(1, 3), torch.ones(1), torch.ones(1), told)
    with pytest.raises(UsageError, match="a video of 2 frames, 3 are expected"):
        prior.denoise(pictures(1, 2), torch.ones(1), torch.ones(1), told)


def test_a_drawn_video_changes_by_what_changes():
    torch.manual_seed(0)
    untrained = UnetPrior(UnetShape(**SMALL, channels=("rgb",), video=VIDEO)).eval()
    prior = FramesPrior(untrained)
    first = torch.full((3, 24, 32), 0.3)
    found = continued(prior, first, count=4, size=(8, 8), seconds=-0.1, steps=100,
                      generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert found.shape == (4, 3, 24, 32) and torch.equal(found[0], first)
    # a Gaussian of 2,304 values about the picture before; the last step takes a little of it
    for before, after in itertools.pairwise(found):
        assert float((after - before).std()) == pytest.approx(0.2, rel=0.1)
    alone = continued(prior, None, count=1, size=(32, 24), generator=torch.Generator())
    assert float(alone.std()) == pytest.approx(0.5, rel=0.1)
    with pytest.raises(UsageError, match="learned up to 0.3 s"):
        continued(prior, first, count=2, size=(8, 8), seconds=1.0, generator=torch.Generator())


def test_its_file_is_not_one_of_single_pictures(tmp_path):
    made = network(video=VIDEO)
    save_unet(made, tmp_path / FILE)
    back = load_frames(tmp_path)
    assert back.network.shape == made.shape and back.info.frames == 4 and back.info.by_time
    x, ratios = pictures(2), torch.tensor([0.2, 2.0])
    told = Before(pictures=x.flip(0), seconds=torch.tensor([0.1, -0.1]))
    # weights of size up to 1 in steps of 2^-11, summed at random
    assert torch.allclose(back.network.cleaned(x, ratios, before=told),
                          made.cleaned(x, ratios, before=told), atol=1e-2)  # fmt: skip
    assert kinds_that_take(tmp_path) == ["frames"]
    assert load_prior(prior_name(f"frames:{tmp_path}"), None).network.shape == made.shape
    with pytest.raises(UsageError, match="needs its weights"):
        load_prior(prior_name("frames"), None)
    with pytest.raises(DataError, match="knows videos, not single pictures"):
        load_unet(tmp_path / FILE)
    save_unet(network(), tmp_path / UNET)
    with pytest.raises(DataError, match="knows single pictures, not videos"):
        load_frames(tmp_path / UNET)
