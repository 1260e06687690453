"""DyCheck's masked metrics against closed forms and against plain numpy loops."""

import numpy as np
import pytest
import torch

from scene4d.evaluation.lpips import lpips, lpips_map
from scene4d.evaluation.masked import (
    Regions,
    masked_figures,
    masked_lpips,
    masked_ssim,
    rounded,
)
from scene4d.evaluation.ssim import ssim

HEIGHT, WIDTH = 36, 44


def picture(seed):
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed))


def some_mask(seed=5, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(HEIGHT, WIDTH, generator=generator) < share
    mask[:15, :18] = False  # larger than a window: empty ones occur
    return mask


def numpy_mssim(x, y, mask):
    """Window by window, in float64, as DyCheck's text says it."""
    offsets = np.arange(11) - 5
    gauss = np.exp(-0.5 * (offsets / 1.5) ** 2)
    gauss /= gauss.sum()

    def along(values, counts, axis):
        values, counts = np.moveaxis(values, axis, -1), np.moveaxis(counts, axis, -1)
        n = values.shape[-1] - 10
        out, some = np.zeros((*values.shape[:-1], n)), np.zeros((*values.shape[:-1], n))
        for i in range(n):
            there = counts[..., i : i + 11]
            total = (values[..., i : i + 11] * there * gauss).sum(-1)
            number = there.sum(-1)
            out[..., i] = np.where(number > 0, total * 11 / np.maximum(number, 1), 0)
            some[..., i] = number > 0
        return np.moveaxis(out, -1, axis), np.moveaxis(some, -1, axis)

    def blurred(values):
        rows, some = along(values, mask.astype(float), 1)
        return along(rows, some, 0)[0]

    maps = []
    for c in range(3):
        a, b = x[..., c].astype(np.float64), y[..., c].astype(np.float64)
        ma, mb = blurred(a), blurred(b)
        va, vb = (np.maximum(0, blurred(p * p) - m * m) for p, m in ((a, ma), (b, mb)))
        cov = blurred(a * b) - ma * mb
        cov = np.sign(cov) * np.minimum(np.sqrt(va * vb), np.abs(cov))
        maps.append(
            (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
        )
    return np.mean(maps)


def test_masked_ssim_is_that_of_plain_loops():
    a, b, mask = picture(0), picture(1), some_mask()
    expected = numpy_mssim(a.numpy(), b.numpy(), mask.numpy())
    # float32 against float64: the variances are differences of squares
    assert float(masked_ssim(a, b, mask)) == pytest.approx(expected, abs=1e-5)


def test_without_holes_masked_ssim_is_that_of_whole_windows():
    a = picture(0)
    b = (a + 0.1 * picture(1)).clamp(0, 1)
    everything = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    # covariances are cut at the product of deviations, which no window of pictures exceeds
    assert float(masked_ssim(a, b, everything)) == pytest.approx(
        float(ssim(a, b, padding="valid")), abs=1e-5
    )


def test_windows_that_see_nothing_count_one():
    a, b = picture(0), picture(1)
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    assert float(masked_ssim(a, b, nothing)) == 1.0
    corner = nothing.clone()
    corner[0, 0] = True  # the first window alone sees it, and of one pixel: no variance
    la, lb = a[0, 0], b[0, 0]
    # one pixel of weight g^2, times 121: mean 121 g^2 x, variance by the same weights
    g = np.exp(-0.5 * (25 / 2.25)) / np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2).sum()
    w = 121 * g * g
    means = [(w * p.double()).numpy() for p in (la, lb)]
    square = [np.maximum(0, w * p.double().numpy() ** 2 - m**2)
              for p, m in zip((la, lb), means, strict=True)]  # fmt: skip
    cov = w * (la * lb).double().numpy() - means[0] * means[1]
    cov = np.sign(cov) * np.minimum(np.sqrt(square[0] * square[1]), np.abs(cov))
    likeness = (2 * means[0] * means[1] + 1e-4) * (2 * cov + 9e-4)
    size = (means[0] ** 2 + means[1] ** 2 + 1e-4) * (square[0] + square[1] + 9e-4)
    one = (likeness / size).mean()
    windows = (HEIGHT - 10) * (WIDTH - 10)
    expected = (windows - 1 + one) / windows
    assert float(masked_ssim(a, b, corner)) == pytest.approx(expected, abs=1e-6)


def test_pixels_outside_the_mask_count_nowhere():
    a, b, mask = picture(0), picture(1), some_mask()
    other = torch.where(mask[..., None], a, picture(2))
    regions = Regions(covisible=mask)
    assert masked_figures(a, b, regions) == masked_figures(other, b, regions)


def test_masked_psnr_in_closed_form_and_rounding_to_8_bits():
    target = torch.full((HEIGHT, WIDTH, 3), 0.2)
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, : WIDTH // 2] = True
    moving = torch.zeros_like(mask)
    moving[: HEIGHT // 2] = True
    pred = target.clone()
    pred[: HEIGHT // 2] += 20 / 255  # a whole number of steps: rounding leaves it
    found = masked_figures(pred, target, Regions(covisible=mask, moving=moving), with_lpips=False)
    assert found.mpsnr_moving == pytest.approx(-20 * np.log10(20 / 255), abs=1e-3)
    assert found.mpsnr == pytest.approx(-10 * np.log10((20 / 255) ** 2 / 2), abs=1e-3)
    assert found.mpsnr_still == 100.0 and found.covisible_share == 0.5
    # less than half a step is not seen
    assert masked_figures(target + 0.4 / 255, target, Regions(covisible=mask)).mpsnr == 100.0
    assert torch.equal(rounded(torch.tensor([0.5 / 255 - 1e-4, -3.0, 2.0])),
                       torch.tensor([0.0, 0.0, 1.0]))  # fmt: skip


def test_masked_lpips_is_the_mean_of_the_map_over_the_mask():
    a, b, mask = picture(0), picture(1), some_mask()
    shown = [p * mask[..., None] for p in (a, b)]
    expected = float(lpips_map(*shown)[mask].mean())
    assert float(masked_lpips(a, b, mask)) == pytest.approx(expected, rel=1e-6)
    # each layer is enlarged bilinearly, so means differ a little at the borders only
    assert float(lpips_map(a, b).mean()) == pytest.approx(float(lpips(a, b)), rel=0.05)


def test_nothing_known_gives_nothing():
    a, b = picture(0), picture(1)
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    found = masked_figures(a, b, Regions(covisible=nothing))
    assert (found.mpsnr, found.mssim, found.mlpips, found.covisible_share) == (None, None, None, 0)
    half = masked_figures(a, b, Regions(covisible=None, moving=nothing))
    assert half.mpsnr is None and half.mpsnr_moving is None and half.mpsnr_still is not None
