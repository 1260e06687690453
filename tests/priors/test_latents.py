"""Priors of latents: what they make of a picture is a target of pixels."""

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.prior import LatentPrior, PriorInfo
from scene4d.priors.recipes import recipe
from scene4d.priors.scores import Asked, latent_gradient, score_gradient


class Folded(LatentPrior):
    """Blocks of 2x2 pixels as latents: an orthogonal map, so that noise stays noise."""

    def __init__(self, pixels):
        super().__init__()
        self.pixels = pixels
        self.info = PriorInfo(space="latent", latent_channels=12)

    def encode(self, pictures):
        return torch.nn.functional.pixel_unshuffle(pictures, 2)

    def decode(self, latents):
        return torch.nn.functional.pixel_shuffle(latents, 2)

    def denoise(self, x_t, alpha, sigma, condition=None):
        return self.encode(self.pixels.denoise(self.decode(x_t), alpha, sigma))


@pytest.mark.parametrize("name", ["hifa", "sds", "sdi"])
def test_the_gradient_in_mean_is_that_of_the_pixels(name):
    prior = GaussianPrior(torch.full((3, 32, 32), 0.3), 0.04)
    x = torch.zeros(64, 3, 32, 32)
    loss = recipe(name, 1.0)
    found = []
    for ask, asked in ((score_gradient, prior), (latent_gradient, Folded(prior))):
        generator = torch.Generator().manual_seed(0)
        score = ask(loss, Asked(prior=asked), x, generator=generator, progress=0.3)
        assert score.gradient.shape == score.target.shape == x.shape
        found.append(score.gradient.mean(dim=(1, 2, 3)))
    # the same times, other noise: in the mean of 3072 values of a picture
    assert torch.allclose(*found, rtol=0.1, atol=0.02)
    assert float(found[0].abs().max()) > 0.05


def test_any_side_is_padded_and_losses_without_a_clean_picture_are_refused():
    prior = Folded(GaussianPrior(lambda condition: torch.zeros(3, 1, 1), 0.04))
    asked = Asked(prior=prior)
    x = torch.rand(1, 3, 17, 23)
    generator = torch.Generator().manual_seed(0)
    score = latent_gradient(recipe("hifa", 1.0), asked, x, generator=generator)
    assert score.gradient.shape == x.shape and bool(score.gradient.isfinite().all())
    with pytest.raises(UsageError, match="no clean picture to decode"):
        latent_gradient(recipe("asd", 1.0), asked, x, generator=generator)


def test_through_the_encoder_any_loss_goes():
    """Of an orthogonal encoder: the gradient of the latents, unfolded."""
    pixels = GaussianPrior(torch.full((3, 32, 32), 0.3), 0.04)
    prior = Folded(pixels)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for name in ("hifa", "asd"):
        loss = recipe(name, 1.0)
        through, there = (torch.Generator().manual_seed(0) for _ in range(2))
        score = latent_gradient(loss, Asked(prior=prior), x, generator=through,
                                through_encoder=True)  # fmt: skip
        latents = score_gradient(loss, Asked(prior=prior), prior.encode(x), generator=there)
        torch.testing.assert_close(score.gradient, prior.decode(latents.gradient))
        assert torch.equal(score.times, latents.times)
