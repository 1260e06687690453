"""MPIs: the compositing against closed forms, the plain reference and brute force."""

import numba
import pytest
import torch

from scene4d.methods.lightslab.mpi import (
    BLOCK,
    LEAST_TRANSMITTANCE,
    MultiplaneImages,
    reference_composite,
)

DEPTHS = torch.tensor([[8.0, 4.0, 2.0], [9.0, 5.0, 1.0]])
"""Of two slabs' planes, far to near."""


def random_mpi(*, share=0.6, down=2, across=3, seed=0, opacity=0.8):
    """Two slabs of three MPI planes; every block is stored with the probability ``share``."""
    g = torch.Generator().manual_seed(seed)
    stored = torch.rand(2, 3, down, across, generator=g) < share
    texels = torch.rand(int(stored.sum()), BLOCK, BLOCK, 4, generator=g) * opacity
    texels[..., :3] *= texels[..., 3:]
    return MultiplaneImages(stored=stored, texels=texels)


def random_rays(count=400, *, planes=3, seed=1, reach=1.15):
    """Coordinates beyond the borders too, and a slab each."""
    g = torch.Generator().manual_seed(seed)
    coordinates = (torch.rand(count, 2 * planes, generator=g) * 2 - 1) * reach
    return coordinates, torch.randint(0, 2, (count,), generator=g)


def coordinates_of(column, row, mpi, planes):
    """Of a texel's centre, alike on all planes."""
    x = column / (mpi.columns - 1) * 2 - 1
    y = row / (mpi.rows - 1) * 2 - 1
    return torch.tensor([[x, y] * planes])


def plain_mpi(values):
    """MPIs of one block each, every texel of which is the same; ``values`` far to near."""
    planes = len(values)
    texels = torch.tensor(values).view(planes, 1, 1, 4).expand(planes, BLOCK, BLOCK, 4).clone()
    return MultiplaneImages(stored=torch.ones(1, planes, 1, 1, dtype=torch.bool), texels=texels)


ZERO = torch.zeros(1, dtype=torch.long)
MIDDLE = torch.zeros(1, 6)


# Closed forms


def test_an_opaque_mpi_plane_gives_its_texels_colour_and_its_depth():
    texels = torch.rand(3 * 2, BLOCK, BLOCK, 4, generator=torch.Generator().manual_seed(0))
    texels[..., 3] = 1
    mpi = MultiplaneImages(stored=torch.ones(1, 3, 1, 2, dtype=torch.bool), texels=texels)
    for column, row in [(0, 0), (3, 5), (8, 7), (15, 2)]:
        out = mpi(coordinates_of(column, row, mpi, 3), ZERO, DEPTHS[:1])
        nearest = texels[4 + column // BLOCK, row, column % BLOCK]
        # Texel centres are met to float32, times the number of columns.
        assert torch.allclose(out[0, :4], nearest, atol=1e-5)
        assert out[0, 4].item() == 2.0  # alpha is 1 at all four corners


def test_half_transparent_mpis_are_laid_over_each_other():
    far, near = (0.0, 0.3, 0.1, 0.5), (0.4, 0.0, 0.2, 0.5)
    empty = (0.0, 0.0, 0.0, 0.0)
    out = plain_mpi([far, empty, near])(MIDDLE, ZERO, DEPTHS[:1])[0]
    # Premultiplied "over": near + (1 - 0.5) far.
    expected = torch.tensor([0.4, 0.15, 0.25, 0.75, 0.5 * 2.0 + 0.5 * 0.5 * 8.0])
    assert torch.allclose(out, expected, atol=1e-6)  # float32


def test_between_texels_values_are_bilinear():
    texels = torch.rand(1, BLOCK, BLOCK, 4, generator=torch.Generator().manual_seed(3))
    mpi = MultiplaneImages(stored=torch.ones(1, 1, 1, 1, dtype=torch.bool), texels=texels)
    out = mpi(coordinates_of(2.25, 4.5, mpi, 1), ZERO, DEPTHS[:1, :1])
    left = (texels[0, 4, 2] + texels[0, 5, 2]) / 2
    right = (texels[0, 4, 3] + texels[0, 5, 3]) / 2
    assert torch.allclose(out[0, :4], 0.75 * left + 0.25 * right, atol=1e-5)  # as above


def test_beyond_the_border_the_outermost_texels_go_on():
    mpi = random_mpi(share=1.0)
    inside = torch.tensor([[-1.0, 0.2] * 3, [1.0, -0.7] * 3, [0.1, 1.0] * 3])
    outside = torch.tensor([[-3.0, 0.2] * 3, [1.5, -0.7] * 3, [0.1, 50.0] * 3])
    slab = torch.zeros(3, dtype=torch.long)
    assert torch.equal(mpi(inside, slab, DEPTHS), mpi(outside, slab, DEPTHS))


def test_coordinates_that_are_no_numbers_meet_the_first_texel():
    mpi = random_mpi(share=1.0)
    found = mpi(torch.full((1, 6), torch.nan), ZERO, DEPTHS)
    assert torch.equal(found, mpi(-torch.ones(1, 6), ZERO, DEPTHS))


def test_empty_mpis_show_nothing_and_have_no_gradients():
    stored = torch.zeros(2, 3, 2, 3, dtype=torch.bool)
    mpi = MultiplaneImages(stored=stored, texels=torch.zeros(0, BLOCK, BLOCK, 4))
    assert (mpi.num_blocks, mpi.columns, mpi.rows) == (0, 24, 16)
    coordinates, slab = random_rays()
    coordinates.requires_grad_(True)
    out = mpi(coordinates, slab, DEPTHS)
    out.sum().backward()
    assert (out == 0).all() and (coordinates.grad == 0).all()
    assert mpi.texels.grad.shape == (0, BLOCK, BLOCK, 4)
    assert mpi.most_seen(coordinates, slab).shape == (0,)


def test_no_rays_give_no_colours():
    mpi = random_mpi()
    out = mpi(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long), DEPTHS)
    out.sum().backward()
    assert out.shape == (0, 5) and (mpi.texels.grad == 0).all()


def test_what_is_stored_and_given_must_agree():
    stored = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="3 blocks are stored, 2 are given"):
        MultiplaneImages(stored=stored, texels=torch.zeros(2, BLOCK, BLOCK, 4))
    with pytest.raises(ValueError, match="at most 64 MPI planes, not 65"):
        MultiplaneImages(
            stored=stored[:, :1].expand(1, 65, 1, 1), texels=torch.zeros(65, BLOCK, BLOCK, 4)
        )


def test_blocks_are_numbered_by_slab_plane_row_and_column():
    stored = random_mpi().stored
    texels = torch.arange(int(stored.sum())).float()[:, None, None, None].expand(-1, 8, 8, 4)
    place = MultiplaneImages(stored=stored, texels=texels).place
    assert torch.equal(place >= 0, stored) and place.dtype == torch.int32
    assert place[stored].tolist() == list(range(len(texels)))


# The reference


def both(mpi, coordinates, slab, weights):
    """Values and gradients of texels and coordinates, by Numba and by plain torch."""
    found, depths = [], DEPTHS[: len(mpi.stored)]
    for composite in (
        lambda c, t: mpi(c, slab, depths, texels=t),
        lambda c, t: reference_composite(c, t, slab, mpi.place, depths),
    ):
        c = coordinates.clone().requires_grad_(True)
        t = mpi.texels.detach().clone().requires_grad_(True)
        out = composite(c, t)
        (out * weights).sum().backward()
        found.append((out.detach(), t.grad, c.grad))
    return found


@pytest.mark.parametrize("opacity", [0.5, 1.0])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.15])
def test_the_kernels_agree_with_the_reference(share, opacity):
    mpi = random_mpi(share=share, opacity=opacity)
    coordinates, slab = random_rays(2000)
    weights = torch.randn(2000, 5, generator=torch.Generator().manual_seed(9))
    (out, texels, moves), (out_r, texels_r, moves_r) = both(mpi, coordinates, slab, weights)
    assert (out_r != 0).any() and (moves_r != 0).any()
    # float32, depths up to 9; sums of up to 2000 rays in a texel; and in the gradient of
    # coordinates times half the columns (12).
    assert torch.allclose(out, out_r, atol=1e-5)
    assert torch.allclose(texels, texels_r, atol=1e-4)
    assert torch.allclose(moves, moves_r, atol=1e-3)


def test_gradients_of_many_rays_are_those_of_their_parts(monkeypatch):
    mpi = random_mpi()
    coordinates, slab = random_rays(500)
    weights = torch.randn(500, 5, generator=torch.Generator().manual_seed(9))
    (_, texels, moves), _ = both(mpi, coordinates, slab, weights)
    monkeypatch.setattr("scene4d.methods.lightslab.mpi._AT_ONCE", 64)
    (_, texels_parts, moves_parts), _ = both(mpi, coordinates, slab, weights)
    # Every texel's sum is taken in the order of the rays, in parts or not.
    assert torch.equal(texels, texels_parts) and torch.equal(moves, moves_parts)


def test_the_references_gradients_are_those_of_its_values():
    mpi = random_mpi(down=1, across=2, share=0.7)
    coordinates, slab = random_rays(6, reach=0.9)
    texels = mpi.texels.detach().double().requires_grad_(True)
    coordinates = coordinates.double().requires_grad_(True)
    # Steps of 1e-6 of 16 texels' width: no ray is that near to where the cells meet.
    scaled = (coordinates.detach().view(6, 3, 2) + 1) / 2 * torch.tensor([15.0, 7.0])
    assert (scaled - scaled.round()).abs().min() > 1e-4
    assert torch.autograd.gradcheck(
        lambda c, t: reference_composite(c, t, slab, mpi.place, DEPTHS.double()),
        (coordinates, texels),
        fast_mode=True,  # along random directions: there are thousands of numbers
    )


def test_float64_is_composited_by_the_reference():
    mpi = random_mpi()
    coordinates, slab = random_rays(50)
    texels = mpi.texels.detach().double()
    out = mpi(coordinates.double(), slab, DEPTHS.double(), texels=texels)
    assert out.dtype == torch.float64
    assert torch.allclose(out.float(), mpi(coordinates, slab, DEPTHS), atol=1e-5)  # float32


def test_behind_what_lets_nothing_through_there_is_nothing():
    """At just less than the least transmittance the plane behind is left out, at more it is not."""
    for through, counts in ((LEAST_TRANSMITTANCE * 0.9, False), (LEAST_TRANSMITTANCE * 1.1, True)):
        near = (0.5, 0.5, 0.5, 1 - through)
        mpi = plain_mpi([(1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), near])
        weights = torch.ones(1, 5)
        (out, texels, _), (out_r, texels_r, _) = both(mpi, MIDDLE, ZERO, weights)
        behind = through if counts else 0.0
        # Float32 of 1 - through.
        assert float(out[0, 0]) == pytest.approx(0.5 + behind, abs=1e-6)
        assert bool((texels[0] != 0).any()) == counts
        assert torch.allclose(out, out_r, atol=1e-6)  # float32
        assert torch.allclose(texels, texels_r, atol=1e-6)


def test_at_the_border_of_a_stored_block_its_missing_neighbour_is_empty():
    texels = torch.ones(1, BLOCK, BLOCK, 4)
    right = torch.tensor([[[[False, True]]]])
    left = torch.tensor([[[[True, False]]]])
    half = coordinates_of(7.25, 3.0, MultiplaneImages(stored=left, texels=texels), 1)
    of_left = MultiplaneImages(stored=left, texels=texels)(half, ZERO, DEPTHS[:1, :1])
    assert float(of_left[0, 3]) == pytest.approx(0.75, abs=1e-5)  # fades to the missing texel
    # A cell belongs to the block of its upper left texel: where that is missing, nothing is met.
    of_right = MultiplaneImages(stored=right, texels=texels)(half, ZERO, DEPTHS[:1, :1])
    assert float(of_right[0, 3]) == 0


@pytest.mark.parametrize("stored", [[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[1, 1], [1, 0]]])
def test_borders_of_blocks_agree_with_the_reference(stored):
    stored = torch.tensor(stored, dtype=torch.bool)[None, None].expand(2, 3, 2, 2).contiguous()
    g = torch.Generator().manual_seed(0)
    texels = torch.rand(int(stored.sum()), BLOCK, BLOCK, 4, generator=g) * 0.7
    mpi = MultiplaneImages(stored=stored, texels=texels)
    # In the cells around the corner where the four blocks meet.
    at = (7.5 + torch.rand(500, 6, generator=g) * 3 - 1.5) / 15 * 2 - 1
    slab = torch.randint(0, 2, (500,), generator=g)
    weights = torch.randn(500, 5, generator=g)
    (out, texels, moves), (out_r, texels_r, moves_r) = both(mpi, at, slab, weights)
    assert torch.allclose(out, out_r, atol=1e-5)  # as in the test of the kernels
    assert torch.allclose(texels, texels_r, atol=1e-4)
    assert torch.allclose(moves, moves_r, atol=1e-3)


# Threads, and what is seen


def test_the_number_of_threads_changes_nothing():
    mpi = random_mpi()
    coordinates, slab = random_rays(3001)
    weights = torch.randn(3001, 5, generator=torch.Generator().manual_seed(2))
    before, results = numba.get_num_threads(), []
    counts = sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)})
    if len(counts) < 2:
        pytest.skip("this machine has one thread")
    try:
        for count in counts:
            numba.set_num_threads(count)
            results.append(
                (*both(mpi, coordinates, slab, weights)[0], mpi.most_seen(coordinates, slab))
            )
    finally:
        numba.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_most_seen_is_the_largest_share_of_any_ray():
    mpi = random_mpi(share=0.7)
    coordinates, slab = random_rays(150, reach=0.99)
    alphas = mpi.texels.detach()[..., 3]
    expected = torch.zeros(mpi.num_blocks)
    for ray, s in zip(coordinates, slab.tolist(), strict=True):
        left = 1.0
        for plane in (2, 1, 0):
            x = float((ray[2 * plane] + 1) / 2 * (mpi.columns - 1))
            y = float((ray[2 * plane + 1] + 1) / 2 * (mpi.rows - 1))
            corners, alpha = set(), 0.0
            if mpi.place[s, plane, int(y) // BLOCK, int(x) // BLOCK] < 0:
                continue
            for column, row in ((i, j) for i in (int(x), int(x) + 1) for j in (int(y), int(y) + 1)):
                block = int(mpi.place[s, plane, row // BLOCK, column // BLOCK])
                if block >= 0:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    alpha += share * float(alphas[block, row % BLOCK, column % BLOCK])
                    corners.add(block)
            for block in corners:
                expected[block] = max(float(expected[block]), left * alpha)
            left *= 1 - alpha
    assert (expected > 0.1).sum() > 5
    assert torch.allclose(mpi.most_seen(coordinates, slab), expected, atol=1e-5)  # float32
