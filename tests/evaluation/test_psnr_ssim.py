import math

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip

from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.ssim import C1, gaussian_window, ssim, ssim_map


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(*shape, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return (target + 0.1 * noise).clamp(0, 1), target


def test_psnr_of_a_constant_difference_is_closed_form():
    target = torch.full((7, 9, 3), 0.3)
    # float32 rounding of 0.4 - 0.3, squared: 1e-6 relative, 1e-5 dB
    assert float(psnr(target + 0.1, target)) == pytest.approx(20.0, abs=1e-4)


def test_psnr_of_identical_images_is_capped_at_100_db():
    _, target = pair(5, 5)
    assert psnr(target, target) == 100.0


def test_psnr_per_image_of_a_batch():
    pred, target = pair(2, 3, 8, 6)
    values = psnr(pred, target)
    assert values.shape == (2, 3)
    assert values[1, 2] == psnr(pred[1, 2], target[1, 2])


def test_psnr_mask_excludes_exactly():
    pred, target = pair(8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 1:7] = True
    spoilt = pred.clone()
    spoilt[~mask] = math.nan
    expected = -10 * math.log10(((pred - target)[2:5, 1:7] ** 2).mean())
    # float64 sums in another order
    assert float(psnr(spoilt, target, mask)) == pytest.approx(expected, rel=1e-12)


def test_nothing_valid_is_nan():
    pred, target = pair(12, 12)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    assert psnr(pred, target, mask).isnan() and ssim(pred, target, mask).isnan()


def test_window_sums_to_one_and_is_symmetric():
    window = gaussian_window(dtype=torch.float64)
    assert float(window.sum()) == pytest.approx(1.0, abs=1e-15)
    assert torch.equal(window, window.flip(0))
    # neighbours of a Gaussian of sigma 1.5
    assert float(window[6] / window[5]) == pytest.approx(math.exp(-1 / 4.5), rel=1e-12)


@pytest.mark.parametrize("padding", ["zero", "valid"])
def test_ssim_of_identical_images_is_one(padding):
    _, target = pair(14, 20)
    # one rounding each in numerator and denominator
    assert float(ssim(target, target, padding=padding)) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_constants_is_the_luminance_term():
    x, y = torch.full((16, 16, 3), 0.2).double(), torch.full((16, 16, 3), 0.8).double()
    expected = (2 * 0.2 * 0.8 + C1) / (0.2**2 + 0.8**2 + C1)
    # variances are 0 up to float64 cancellation, against C2 = 9e-4
    assert float(ssim(x, y, padding="valid")) == pytest.approx(expected, rel=1e-6)


def test_ssim_of_a_negative_is_negative():
    _, target = pair(16, 16)
    assert ssim(1 - target, target, padding="valid") < 0


@pytest.mark.parametrize("padding", ["zero", "valid"])
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1)])
def test_window_is_centred_flipping_the_images_flips_the_map(padding, dims):
    pred, target = pair(13, 18)
    flipped = ssim_map(pred.flip(dims), target.flip(dims), padding=padding)
    # the sums run in the other direction
    torch.testing.assert_close(
        flipped, ssim_map(pred, target, padding=padding).flip(dims), rtol=1e-10, atol=1e-12
    )


def test_one_changed_pixel_changes_the_map_only_within_five_pixels():
    _, target = pair(25, 25)
    pred = target.clone()
    pred[12, 12] += 0.3
    changed = ((ssim_map(pred, target) - 1).abs() > 1e-9).any(dim=-1).nonzero()
    assert changed.min(dim=0).values.tolist() == [7, 7]
    assert changed.max(dim=0).values.tolist() == [17, 17]


def scipy_ssim_map(x, y, mode):
    """Wang et al. 2004 through scipy's general correlation, with a window made from its own."""
    ndimage = import_or_skip("scipy.ndimage")
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    window = ndimage.gaussian_filter(impulse, 1.5, radius=5, mode="constant")
    window /= window.sum()

    def mean(a):
        return ndimage.correlate(a, window, mode="constant", cval=0.0)

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    cov = mean(x * y) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    result = ((2 * mu_x * mu_y + c1) * (2 * cov + c2)) / (
        (mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2)
    )
    return result if mode == "zero" else result[5:-5, 5:-5]


@pytest.mark.parametrize("padding", ["zero", "valid"])
def test_ssim_equals_scipy(padding):
    pred, target = pair(24, 31, seed=3)
    ours = ssim_map(pred, target, padding=padding)
    for channel in range(3):
        expected = scipy_ssim_map(pred[..., channel].numpy(), target[..., channel].numpy(), padding)
        # both float64
        np.testing.assert_allclose(ours[..., channel].numpy(), expected, rtol=1e-9, atol=1e-11)


def test_ssim_mask_ignores_what_the_prediction_shows_there():
    pred, target = pair(30, 30)
    mask = torch.ones(30, 30, dtype=torch.bool)
    mask[10:20, 5:15] = False
    spoilt = pred.clone()
    spoilt[~mask] = math.nan
    assert ssim(spoilt, target, mask) == ssim(pred, target, mask)
    assert ssim(pred, target, mask) != ssim(pred, target)


def test_ssim_mask_is_a_mean_over_valid_pixels():
    _, target = pair(30, 30)
    pred = target.clone()
    pred[:8] = 0.5
    mask = torch.zeros(30, 30, dtype=torch.bool)
    mask[20:] = True
    # every window around row 20 and below sees rows 15 and below only
    assert float(ssim(pred, target, mask)) == pytest.approx(1.0, abs=1e-12)
    for padding in ("zero", "valid"):
        full = torch.ones(30, 30, dtype=torch.bool)
        torch.testing.assert_close(
            ssim(pred, target, full, padding=padding), ssim(pred, target, padding=padding)
        )


def test_valid_padding_needs_a_window():
    image = torch.zeros(10, 40, 3)
    with pytest.raises(ValueError, match="11x11"):
        ssim(image, image, padding="valid")
    assert ssim(image, image) == 1


@pytest.mark.parametrize("padding", ["zero", "valid"])
def test_gradcheck(padding):
    pred, target = pair(12, 12)
    mask = torch.rand(12, 12) > 0.2
    pred.requires_grad_()
    # fast mode: one random direction instead of all 432
    for metric in (
        lambda x: ssim(x, target, mask, padding=padding),
        lambda x: psnr(x, target, mask),
    ):
        assert torch.autograd.gradcheck(metric, pred, fast_mode=True)
