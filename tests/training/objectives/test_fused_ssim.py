import numba
import pytest
import torch

from scene4d.training.objectives import ssim_kernels
from scene4d.training.objectives.fused_ssim import (
    fused_l1_ssim,
    fused_l1_ssim_parts,
    reference_l1_ssim_parts,
)

SIZES = [(1, 1), (3, 40), (11, 11), (12, 65), (37, 53), (20, 470)]
"""Smaller than the window, no multiple of a block or a lane, wider than a tile of 448 columns."""


def pair(height, width, *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(height, width, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(height, width, 3, generator=generator, dtype=torch.float64)
    pred = (target + 0.1 * noise).to(dtype)
    return pred.requires_grad_(), target.to(dtype)


def holes(height, width):
    return torch.rand(height, width, generator=torch.Generator().manual_seed(1)) > 0.3


def values_and_gradient(function, pred, target, **options):
    parts = function(pred, target, **options)
    (gradient,) = torch.autograd.grad(3.0 * parts.loss, pred)
    return parts, gradient


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_float64_equals_the_reference(size, masked):
    pred, target = pair(*size)
    options = {"ssim_weight": 0.2, "mask": holes(*size) if masked else None}
    ours, our_gradient = values_and_gradient(fused_l1_ssim_parts, pred, target, **options)
    theirs, gradient = values_and_gradient(reference_l1_ssim_parts, pred, target, **options)
    # float64 sums in another order; variances lose up to four digits to cancellation
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_float32_equals_the_float64_reference(size):
    pred, target = pair(*size, dtype=torch.float32)
    ours, our_gradient = values_and_gradient(fused_l1_ssim_parts, pred, target, ssim_weight=0.5)
    exact = pred.detach().double().requires_grad_()
    theirs, gradient = values_and_gradient(
        reference_l1_ssim_parts, exact, target.double(), ssim_weight=0.5
    )
    # E[pp] - E[p]^2 has float32's 6e-8 absolutely, against variances of 1e-2 and C2 = 9e-4
    torch.testing.assert_close(ours.loss.double(), theirs.loss, rtol=1e-5, atol=1e-6)
    error = (our_gradient.double() - gradient).norm() / gradient.norm()
    assert error < 1e-4


@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(masked):
    pred, target = pair(9, 14)
    mask = holes(9, 14) if masked else None
    # L1 has a kink at 0; random differences of 0.1 are far from it compared with eps = 1e-6
    assert torch.autograd.gradcheck(
        lambda x: fused_l1_ssim(x, target, ssim_weight=0.3, mask=mask), pred
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_at_the_ends(weight):
    pred, target = pair(16, 16)
    parts = fused_l1_ssim_parts(pred, target, ssim_weight=weight)
    expected = 1 - parts.ssim if weight else parts.l1
    assert float(parts.loss.detach()) == pytest.approx(float(expected), rel=1e-12)


def test_identical_images_have_no_loss_and_no_gradient():
    _, target = pair(30, 30)
    pred = target.clone().requires_grad_()
    loss = fused_l1_ssim(pred, target, ssim_weight=0.2)
    loss.backward()
    # SSIM is 1 and stationary up to rounding; |0| has gradient 0
    assert abs(float(loss.detach())) < 1e-12
    assert pred.grad.abs().max() < 1e-12


def test_masked_pixels_say_nothing():
    pred, target = pair(24, 40)
    mask = holes(24, 40)
    spoilt = pred.detach().clone()
    spoilt[~mask] = float("nan")
    spoilt.requires_grad_()
    options = {"ssim_weight": 0.2, "mask": mask}
    ours, gradient = values_and_gradient(fused_l1_ssim_parts, spoilt, target, **options)
    theirs, expected = values_and_gradient(fused_l1_ssim_parts, pred, target, **options)
    assert ours.loss == theirs.loss
    assert torch.equal(gradient, expected)
    assert gradient[~mask].abs().max() == 0


@pytest.mark.parametrize("function", [fused_l1_ssim_parts, reference_l1_ssim_parts])
def test_nothing_valid_is_no_loss(function):
    pred, target = pair(12, 12)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    parts, gradient = values_and_gradient(function, pred, target, ssim_weight=0.2, mask=mask)
    assert parts.loss == 0 and gradient.abs().max() == 0


def test_not_a_number_is_not_hidden():
    pred, target = pair(20, 20)
    spoilt = pred.detach().clone()
    spoilt[4, 5, 1] = float("nan")
    assert fused_l1_ssim(spoilt, target, ssim_weight=0.2).isnan()


def test_without_a_gradient_the_loss_is_the_same():
    pred, target = pair(33, 47, dtype=torch.float32)
    with_gradient = fused_l1_ssim(pred, target, ssim_weight=0.2)
    assert torch.equal(with_gradient, fused_l1_ssim(pred.detach(), target, ssim_weight=0.2))


def test_strided_images_are_read_right():
    pred, target = pair(20, 28)
    planar = pred.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not planar.is_contiguous()
    ours = values_and_gradient(fused_l1_ssim_parts, planar, target, ssim_weight=0.2)
    theirs = values_and_gradient(fused_l1_ssim_parts, pred, target, ssim_weight=0.2)
    assert ours[0].loss == theirs[0].loss and torch.equal(ours[1], theirs[1])


def test_results_do_not_depend_on_the_number_of_threads():
    pred, target = pair(70, 90, dtype=torch.float32)
    threads = numba.get_num_threads()
    if threads < 2:
        pytest.skip("one thread only")
    many = values_and_gradient(fused_l1_ssim_parts, pred, target, ssim_weight=0.2)
    numba.set_num_threads(1)
    try:
        one = values_and_gradient(fused_l1_ssim_parts, pred, target, ssim_weight=0.2)
    finally:
        numba.set_num_threads(threads)
    assert many[0].loss == one[0].loss and torch.equal(many[1], one[1])


def test_a_target_with_a_gradient_is_refused():
    pred, target = pair(12, 12)
    with pytest.raises(ValueError, match="detach"):
        fused_l1_ssim(pred, target.requires_grad_(), ssim_weight=0.2)


def test_half_precision_works():
    pred, target = pair(16, 16, dtype=torch.float16)
    fused_l1_ssim(pred, target, ssim_weight=0.2).backward()
    assert pred.grad.dtype == torch.float16 and torch.isfinite(pred.grad).all()


def test_planes_are_whole_lanes_wide():
    for width in (1, 31, 32, 33, 400, 448, 449):
        columns = ssim_kernels.padded_width(width)
        assert columns % 32 == 0 and columns >= width + 10 and columns - width < 64
