"""Volume rendering: slabs in closed form, media together, kernels against the definition."""

import math

import pytest
import torch

from scene4d.rendering.fields.volume import (
    RaySamples,
    distortion,
    reference_distortion,
    reference_volume_render,
    volume_render,
)

RENDERERS = [volume_render, reference_volume_render]


def samples_of(counts, *, dtype=torch.float64, seed=0):
    """Rays with so many samples each, in parts of different lengths that follow each other."""
    generator = torch.Generator().manual_seed(seed)
    widths = [torch.rand(n, generator=generator, dtype=dtype) * 0.2 + 0.05 for n in counts]
    ends = [0.3 + w.cumsum(0) for w in widths]
    middles = [e - w * 0.4 for e, w in zip(ends, widths, strict=True)]
    firsts = torch.tensor([0, *counts]).cumsum(0)
    return RaySamples(firsts=firsts, middles=torch.cat(middles), widths=torch.cat(widths))


def media(samples, count=2, *, dtype=torch.float64, seed=1, scale=6.0):
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(samples.count, count, generator=generator, dtype=dtype) * scale
    return density, torch.rand(samples.count, count, 3, generator=generator, dtype=dtype)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("optical_depth", [1e-6, 0.3, 2.0, 80.0])
def test_a_slab_of_constant_density_is_as_opaque_as_its_length_says(render, optical_depth):
    """However it is cut into samples: exponentials of sums are exact."""
    samples = samples_of([7, 1, 40])
    colour = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    lengths = samples.padded(samples.widths).sum(dim=1)
    density = (optical_depth / lengths)[samples.rays(), None]
    got = render(density, colour.expand(samples.count, 1, 3), samples)
    alpha = torch.full((3,), -math.expm1(-optical_depth), dtype=torch.float64)
    torch.testing.assert_close(got.alpha, alpha, rtol=1e-9, atol=0)
    torch.testing.assert_close(got.rgb, alpha[:, None] * colour, rtol=1e-9, atol=0)
    torch.testing.assert_close(samples.padded(got.weights).sum(1), alpha, rtol=1e-9, atol=0)


@pytest.mark.parametrize("render", RENDERERS)
def test_the_expected_distance_of_a_slab(render):
    """Of exp(-s t) s dt from 0 to L: 1/s - L / (exp(s L) - 1); 4000 samples at their middles."""
    n, s, length = 4000, 3.0, 1.5
    widths = torch.full((n,), length / n, dtype=torch.float64)
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) * length / n
    samples = RaySamples(firsts=torch.tensor([0, n]), middles=middles, widths=widths)
    density = torch.full((n, 1), s, dtype=torch.float64)
    got = render(density, torch.ones(n, 1, 3, dtype=torch.float64), samples)
    expected = 1 / s - length / math.expm1(s * length)
    assert float(got.distance / got.alpha) == pytest.approx(expected, rel=1e-6)  # (s L / n)^2


@pytest.mark.parametrize("render", RENDERERS)
def test_two_media_in_one_place_are_their_sum_in_closed_form(render):
    """Densities add, colours are mixed by density; then a second slab shines through the first."""
    first, second = (1.1, 0.4), (0.0, 2.0)
    colours = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 1.0]], dtype=torch.float64)
    widths = torch.tensor([0.2, 0.3, 0.5, 0.5], dtype=torch.float64)  # two samples for each slab
    samples = RaySamples(
        firsts=torch.tensor([0, 4]), middles=widths.cumsum(0) - widths / 2, widths=widths
    )
    density = torch.tensor([first, first, second, second], dtype=torch.float64)
    got = render(density, colours.expand(4, 2, 3), samples)
    s1, s2 = sum(first) * 0.5, second[1] * 1.0
    mixed = (first[0] * colours[0] + first[1] * colours[1]) / sum(first)
    expected = mixed * -math.expm1(-s1) + math.exp(-s1) * colours[1] * -math.expm1(-s2)
    torch.testing.assert_close(got.rgb[0], expected, rtol=1e-12, atol=0)
    assert float(got.alpha) == pytest.approx(-math.expm1(-s1 - s2), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 6.0, 400.0])
def test_the_kernel_gives_what_the_definition_gives(dtype, scale):
    samples = samples_of([5, 0, 1, 33, 0])
    density, colour = media(samples, scale=scale)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(5, 5, generator=generator, dtype=torch.float64),
               torch.randn(samples.count, generator=generator, dtype=torch.float64)]  # fmt: skip

    def outcome(render, kind):
        d, c = (t.to(kind).requires_grad_() for t in (density, colour))
        got = render(d, c, samples)
        out = torch.cat([got.rgb, got.alpha[:, None], got.distance[:, None]], dim=1)
        ((out * weights[0]).sum() + (got.weights * weights[1]).sum()).backward()
        return [t.double() for t in (out.detach(), got.weights.detach(), d.grad, c.grad)]

    fast = outcome(volume_render, dtype)
    slow = outcome(reference_volume_render, torch.float64)
    for got, expected in zip(fast, slow, strict=True):
        # float32: sums of some 30 terms of size 1; opaque rays' own gradients are lost in them.
        atol = (1e-12 if dtype == torch.float64 else 2e-5) * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("scale", [1e-4, 5.0])
def test_gradients_are_finite_differences(render, scale):
    samples = samples_of([4, 0, 6])
    density, colour = media(samples, scale=scale)

    def pixels(d, c):
        got = render(d, c, samples)
        return got.rgb, got.alpha, got.distance, got.weights

    assert torch.autograd.gradcheck(
        pixels, (density.requires_grad_(), colour.requires_grad_()), eps=1e-7 * scale
    )


def test_densities_that_are_nothing_or_everything_have_finite_gradients():
    samples = samples_of([6, 6], dtype=torch.float32)
    density = torch.zeros(12, 2)
    density[6:] = 1e30
    density.requires_grad_()
    colour = torch.full((12, 2, 3), 0.5, requires_grad=True)
    got = volume_render(density, colour, samples)
    (got.rgb.sum() + got.alpha.sum() + got.distance.sum()).backward()
    torch.testing.assert_close(got.alpha, torch.tensor([0.0, 1.0]))
    assert density.grad.isfinite().all() and colour.grad.isfinite().all()
    # Where there is nothing yet, a little more density shows: the gradient is not lost.
    assert (density.grad[:6] > 0).all()


def test_rays_without_samples_are_empty():
    samples = samples_of([0, 0])
    density, colour = media(samples)
    for render in RENDERERS:
        got = render(density, colour, samples)
        assert got.rgb.shape == (2, 3) and not got.rgb.any() and not got.alpha.any()


def test_shapes_that_do_not_fit_are_refused():
    samples = samples_of([3])
    density, colour = media(samples)
    with pytest.raises(ValueError, match="3 samples"):
        volume_render(density[:2], colour[:2], samples)


def test_the_distortion_of_one_part_and_of_two_points():
    """One part of weight w and width d: w^2 d / 3. Two thin ones at distance a: 2 w v a."""
    one = RaySamples(
        firsts=torch.tensor([0, 1]), middles=torch.tensor([2.0]), widths=torch.tensor([0.6])
    )
    assert float(distortion(torch.tensor([0.5]), one)) == pytest.approx(0.25 * 0.6 / 3)
    two = RaySamples(
        firsts=torch.tensor([0, 2]), middles=torch.tensor([1.0, 1.7]), widths=torch.zeros(2)
    )
    assert float(distortion(torch.tensor([0.5, 0.2]), two)) == pytest.approx(2 * 0.1 * 0.7)


def test_the_distortion_kernel_gives_what_the_definition_gives():
    samples = samples_of([5, 0, 21])
    weights = torch.rand(26, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    slopes = []
    for function in (distortion, reference_distortion):
        w = weights.clone().requires_grad_()
        out = function(w, samples)
        (out * torch.tensor([1.0, 2.0, -0.5])).sum().backward()
        slopes.append((out.detach(), w.grad))
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-12)


def test_what_comes_before_an_optical_depth_is_kept_ray_by_ray():
    samples = RaySamples(
        firsts=torch.tensor([0, 3, 3, 5]),
        middles=torch.arange(5) + 0.5,
        widths=torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0]),
    )
    density = torch.tensor([2.0, 4.0, 1.0, 9.0, 1.0])
    which = torch.tensor([1, 2, 3, 1, 2], dtype=torch.uint8)
    kept, told = samples.before(density, 4.0, which)
    # Before its samples, the first ray has depths 0, 2 and 4, the last 0 and 9.
    assert kept.firsts.tolist() == [0, 2, 2, 3]
    assert kept.middles.tolist() == [0.5, 1.5, 3.5] and kept.widths.tolist() == [1.0, 0.5, 1.0]
    assert told.tolist() == [1, 2, 1]
