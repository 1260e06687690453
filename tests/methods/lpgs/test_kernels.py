"""Kernels of parent/child splats against their definitions in plain torch, in float64."""

import math

import numba
import pytest
import torch

from scene4d.methods.lpgs.places import cells_of, reference, rounded_places
from scene4d.methods.lpgs.quantiser_kernels import CHUNK
from scene4d.methods.lpgs.quantisers import Quantiser
from scene4d.methods.lpgs.structure import Structure

SPACE = Structure(
    num_children=0, sh_degree=0, grid=None, hidden=1, attention=False, contraction=True,
    centre=(0.5, 0.0, -0.5), radius=2.0, position_bits=12,
)  # fmt: skip
COUNT, CHANNELS = 2 * CHUNK + 37, 5


def quantiser(width=1.0):
    """Steps of 0.05 to 0.4, places around 0, widths around ``width`` steps."""
    made, g = Quantiser(CHANNELS, 0.2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.log_step += torch.linspace(-1.4, 0.7, CHANNELS)
        made.place += torch.randn(CHANNELS, generator=g)
        made.log_width += math.log(width) + 0.3 * torch.randn(CHANNELS, generator=g)
    return made


def values():
    return torch.randn(COUNT, CHANNELS, generator=torch.Generator().manual_seed(1))


def every_other():
    return torch.arange(0, COUNT, 2)


def gradients(result, inputs):
    g = torch.Generator().manual_seed(2)
    weights = torch.randn(result.shape, generator=g).to(result)
    return torch.autograd.grad(result, inputs, weights)


@pytest.mark.parametrize("rows", [None, every_other()])
def test_rounded_rows_and_their_gradients_are_the_definitions(rows):
    found, wanted = [], []
    for dtype, into in ((torch.float32, found), (torch.float64, wanted)):
        given = values().to(dtype).requires_grad_()
        q = quantiser().to(dtype)
        rounded = q(given, rows)
        into += [rounded, *gradients(rounded, [given, q.log_step])]
    # A value in 1e6 lies where float32 rounds the other way, none of these; sums of 2e3 terms.
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1].double(), wanted[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2].double(), wanted[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [None, every_other()])
@pytest.mark.parametrize("width", [0.02, 0.3, 2.0, 40.0])
def test_bits_of_rows_and_their_gradients_are_the_definitions(rows, width):
    """Steps are 1/20 to 1/2.5 of the values' spread: tails below 2^-16 are among them."""
    found, wanted = [], []
    for dtype, into in ((torch.float32, found), (torch.float64, wanted)):
        given = values().to(dtype).requires_grad_()
        q = quantiser(width).to(dtype)
        bits = q.bits(given, rows)
        into += [bits, *gradients(bits, [given, q.log_step, q.place, q.log_width])]
    # float32 of up to 80 bits, and of distances of up to 100 steps over a width of 1/50.
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found[1].double(), wanted[1], rtol=1e-3, atol=1e-3)
    for ours, definition in zip(found[2:], wanted[2:], strict=True):
        scale = max(1.0, float(definition.abs().max()))
        torch.testing.assert_close(ours.double(), definition, rtol=1e-3, atol=1e-3 * scale)


def test_the_number_of_threads_changes_nothing():
    q, most = quantiser(), numba.config.NUMBA_NUM_THREADS
    results = []
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            given = values().requires_grad_()
            total = q(given).square().sum() + q.bits(given).sum()
            results.append(torch.autograd.grad(total, [given, *q.parameters()]))
    finally:
        numba.set_num_threads(most)
    for a, b in zip(results[0], results[-1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_nothing_has_no_bits_and_rounds_to_nothing(shape):
    q, given = Quantiser(shape[1], 0.1), torch.zeros(shape, requires_grad=True)
    rounded, bits = q(given), q.bits(given)
    assert rounded.shape == shape and torch.equal(bits, torch.zeros(shape[0]))
    (rounded.sum() + bits.sum()).backward()
    assert given.grad.shape == shape


def test_a_value_that_is_no_number_stays_one():
    """So that training can say so."""
    given = torch.tensor([[math.nan, 1.0], [0.3, math.inf]])
    rounded = Quantiser(2, 0.1)(given)
    assert not rounded[0, 0].isfinite() and not rounded[1, 1].isfinite()
    assert rounded[0, 1].isfinite() and rounded[1, 0].isfinite()


def test_places_and_their_cells_are_the_definitions():
    """Inside the ball that is left as it is, in the contracted shell, and at its end."""
    g = torch.Generator().manual_seed(3)
    points = torch.randn(COUNT, 3, generator=g) * torch.logspace(-2, 6, COUNT)[:, None]
    cells, middles = reference(points.double(), SPACE)
    found = cells_of(points, SPACE)
    assert torch.equal(found, cells)
    got = rounded_places(points, SPACE)
    torch.testing.assert_close(got.double(), middles, rtol=1e-6, atol=1e-6)  # float32's last digit


def test_gradients_of_places_pass_straight_through():
    points = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    rows = every_other()
    places = rounded_places(points, SPACE, rows)
    assert torch.equal(places, rounded_places(points, SPACE)[rows])
    weights = torch.randn(places.shape, generator=torch.Generator().manual_seed(5))
    (grad,) = torch.autograd.grad(places, points, weights)
    assert torch.equal(grad[rows], weights) and not grad[1::2].any()
