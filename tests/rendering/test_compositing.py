"""The compositor against a dense float64 reference, its invariants, and hostile inputs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scene4d.rendering.splats import compositing
from scene4d.rendering.splats.compositing import composite

FLOAT32 = 1.2e-7
DIFFERENTIABLE = ("means2d", "conics", "colors", "opacities", "backgrounds")


@dataclass(frozen=True)
class Splats:
    """Arguments of ``composite``, float32."""

    means2d: torch.Tensor
    conics: torch.Tensor
    colors: torch.Tensor
    opacities: torch.Tensor
    depths: torch.Tensor
    radii: torch.Tensor
    backgrounds: torch.Tensor | None

    def args(self) -> tuple:
        return tuple(self.__dict__.values())

    def leaves(self, dtype: torch.dtype = torch.float32) -> Splats:
        """Copies that collect gradients."""
        return replace(
            self,
            **{
                k: getattr(self, k).detach().to(dtype).clone().requires_grad_()
                for k in DIFFERENTIABLE
                if getattr(self, k) is not None
            },
        )


def enclosing_radii(conics: torch.Tensor, opacities: torch.Tensor) -> torch.Tensor:
    """Half extents of the ellipse alpha = 1/255, rounded up, at least 1 px."""
    a, b, c = conics.double().unbind(-1)
    reach = torch.sqrt(2 * torch.log((255 * opacities.double()).clamp(min=1.0)) / (a * c - b * b))
    extents = torch.stack([reach * c.sqrt(), reach * a.sqrt()], -1)
    return extents.ceil().clamp(1, 1e6).int()


def random_splats(
    n, width, height, *, cameras=1, channels=3, seed=0, sigma=(0.6, 5.0), margin=5.0
) -> Splats:
    """Ellipses with axes of log-uniform ``sigma`` px, centres up to ``margin`` px off the image."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=rng)

    means = uniform(cameras, n, 2) * (torch.tensor([width, height]) + 2 * margin) - margin
    low, high = np.log(sigma[0]), np.log(sigma[1])
    inverse = torch.exp(-2 * uniform(cameras, n, 2, low=low, high=high))
    angle = uniform(cameras, n, high=np.pi)
    cos, sin = angle.cos(), angle.sin()
    u, v = inverse.unbind(-1)
    a, b, c = cos**2 * u + sin**2 * v, cos * sin * (u - v), sin**2 * u + cos**2 * v
    conics = torch.stack([a, b, c], -1)
    opacities = uniform(cameras, n, low=0.02, high=1.0)
    return Splats(
        means, conics, uniform(cameras, n, channels), opacities, uniform(cameras, n, low=1, high=9),
        enclosing_radii(conics, opacities), uniform(cameras, channels),
    )  # fmt: skip


def dense(splats: Splats, width: int, height: int):
    """Every Gaussian at every pixel in float64: image, alpha, error bound and fragile pixels.

    The bound sums what float32 may lose in sigma, which grows with its terms. A pixel is fragile
    where a decision (1/255, 0.999, 1e-4, sigma's sign) is within that error: there both answers
    are right.
    """
    y, x = torch.meshgrid(
        torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij"
    )
    images, alphas, bounds, fragiles = [], [], [], []
    for cam in range(len(splats.means2d)):
        image = torch.zeros(height, width, splats.colors.shape[-1]).double()
        # The sum keeps the graph alive where nothing is drawn.
        t = torch.ones(height, width).double() + 0 * splats.opacities[cam].double().sum()
        done = fragile = torch.zeros(height, width, dtype=torch.bool)
        bound = torch.zeros(height, width).double()
        for i in torch.argsort(splats.depths[cam], stable=True).tolist():
            if (splats.radii[cam, i] <= 0).any():
                continue
            dx, dy = x - splats.means2d[cam, i, 0], y - splats.means2d[cam, i, 1]
            a, b, c = splats.conics[cam, i].double()
            sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
            with torch.no_grad():
                terms = a.abs() * dx**2 + c.abs() * dy**2 + 2 * (b * dx * dy).abs()
                # Rounding of a sum of products, of dx and dy, and of exp (1e-6).
                error = 1e-6 + 4 * FLOAT32 * terms
            raw = splats.opacities[cam, i].double() * torch.exp(-sigma)
            alpha = raw.clamp(max=0.999)
            hit = (sigma >= 0) & (alpha >= 1 / 255)
            after = t * (1 - alpha)
            with torch.no_grad():
                near = (raw * 255 - 1).abs() < error
                near |= (sigma.abs() < error) & (terms > 0) & (alpha >= 0.9 / 255)
                near |= (raw / 0.999 - 1).abs() < error
                near |= hit & ((after / 1e-4 - 1).abs() < 1e-4 + 1e3 * bound)
                fragile = fragile | (near & ~done)
            done = done | (hit & (after <= 1e-4))
            alpha = torch.where(hit & ~done, alpha, 0.0)
            bound = bound + (t * alpha * error).detach()
            image = image + (t * alpha)[..., None] * splats.colors[cam, i].double()
            t = t * (1 - alpha)
        if splats.backgrounds is not None:
            image = image + t[..., None] * splats.backgrounds[cam].double()
        images.append(image)
        alphas.append((1 - t)[..., None])
        bounds.append(bound)
        fragiles.append(fragile)
    return tuple(map(torch.stack, (images, alphas, bounds, fragiles)))


def check_against_dense(splats: Splats, width, height, *, gradient_tolerance) -> None:
    ours, theirs = splats.leaves(), splats.leaves(torch.float64)
    image, alpha = composite(*ours.args(), width=width, height=height)
    image64, alpha64, bound, fragile = dense(theirs, width, height)
    solid = ~fragile[..., None]
    # Sums of up to a few hundred float32 terms below 1 lose less than 4e-6.
    tolerance = 4e-6 + 3 * bound[..., None]
    assert torch.all(((image - image64).abs() <= tolerance) | ~solid)
    assert torch.all(((alpha - alpha64).abs() <= tolerance) | ~solid)
    rng = torch.Generator().manual_seed(1)
    weights = torch.randn(image64.shape, generator=rng) * solid
    weights_alpha = torch.randn(alpha64.shape, generator=rng) * solid
    torch.autograd.backward([image, alpha], [weights, weights_alpha])
    torch.autograd.backward([image64, alpha64], [weights.double(), weights_alpha.double()])
    for name in DIFFERENTIABLE:
        if getattr(ours, name) is None:
            continue
        got, want = getattr(ours, name).grad, getattr(theirs, name).grad
        if want is None:  # nothing is visible, so the reference has no graph
            want = torch.zeros_like(getattr(theirs, name))
        assert torch.isfinite(got).all(), name
        error = (got - want).norm()
        assert error <= gradient_tolerance * (want.norm() + 1e-2), (name, error, want.norm())


# Measured 1e-6; weak Gaussians behind many others lose more in T's recurrence.
GRADIENTS = 2e-5


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 32])
def test_image_and_gradients_match_the_dense_reference(channels):
    splats = random_splats(150, 37, 22, cameras=2, channels=channels, seed=channels)
    check_against_dense(splats, 37, 22, gradient_tolerance=GRADIENTS)


def test_pixels_that_stop_match_the_dense_reference():
    splats = random_splats(400, 20, 33, seed=3, sigma=(3.0, 20.0))
    # Most pixels have stopped: a transmittance of 1e-4 is near.
    assert composite(*splats.args(), width=20, height=33)[1].quantile(0.2) > 0.999
    check_against_dense(splats, 20, 33, gradient_tolerance=GRADIENTS)


def test_no_background_is_black():
    splats = random_splats(30, 20, 20)
    without = composite(*replace(splats, backgrounds=None).args(), width=20, height=20)
    black = composite(*replace(splats, backgrounds=torch.zeros(1, 3)).args(), width=20, height=20)
    assert torch.equal(without[0], black[0])
    check_against_dense(replace(splats, backgrounds=None), 20, 20, gradient_tolerance=GRADIENTS)


def _degenerate(kind: str) -> Splats:
    splats = random_splats(40, 33, 18, seed=5)
    means, conics, opacities = splats.means2d, splats.conics.clone(), splats.opacities.clone()
    depths, radii = splats.depths, None
    if kind == "huge":
        conics *= 1e-7
    elif kind == "tiny":
        conics *= 1e4
    elif kind == "needles":  # 0.55 px thick as after the low-pass, up to 100 px long
        splats = random_splats(40, 33, 18, seed=5, sigma=(0.55, 100.0))
        conics = splats.conics
    elif kind == "opaque":
        opacities[:] = 1.0
    elif kind == "transparent":
        opacities[:] = 0.0
    elif kind == "off-screen":
        means = means + 1000.0
    elif kind == "far off-screen":
        means = means * 1e30
    elif kind == "one depth":
        depths = torch.full_like(depths, 3.0)
    elif kind == "behind the camera":  # negative depths sort as numbers, too
        depths = depths - 5.0
    elif kind == "culled":
        radii = torch.zeros_like(splats.radii)
    if radii is None:
        radii = enclosing_radii(conics, opacities)
    return replace(
        splats, means2d=means, conics=conics, opacities=opacities, depths=depths, radii=radii
    )


@pytest.mark.parametrize(
    "kind",
    ["huge", "tiny", "needles", "opaque", "transparent", "off-screen", "far off-screen",
     "one depth", "behind the camera", "culled"],
)  # fmt: skip
def test_degenerate_scenes_match_the_dense_reference(kind):
    # A needle's sigma is a difference of terms of 1e4: eight digits leave three.
    tolerance = 2e-3 if kind == "needles" else 1e-4
    check_against_dense(_degenerate(kind), 33, 18, gradient_tolerance=tolerance)


@settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(
    n=st.integers(0, 30), width=st.integers(1, 40), height=st.integers(1, 40),
    cameras=st.integers(1, 2), channels=st.sampled_from([1, 3, 5]), seed=st.integers(0, 10**6),
    smallest=st.floats(0.3, 3.0), stretch=st.floats(1.0, 30.0), margin=st.floats(0.0, 30.0),
    opaque=st.booleans(), few_depths=st.booleans(),
)  # fmt: skip
def test_fuzzed_scenes_match_the_dense_reference(
    n, width, height, cameras, channels, seed, smallest, stretch, margin, opaque, few_depths
):
    splats = random_splats(
        n, width, height, cameras=cameras, channels=channels, seed=seed,
        sigma=(smallest, smallest * stretch), margin=margin,
    )  # fmt: skip
    if opaque:
        ones = torch.ones_like(splats.opacities)
        splats = replace(splats, opacities=ones, radii=enclosing_radii(splats.conics, ones))
    if few_depths:
        splats = replace(splats, depths=splats.depths.round())
    # Sigma of an ellipse stretched 30 times loses 900 float32 roundings.
    check_against_dense(splats, width, height, gradient_tolerance=2e-3)


def test_background_gradient_is_the_finite_difference():
    # The image is linear in the background, so a difference of 1 is exact up to float32.
    splats = random_splats(40, 19, 21, cameras=2).leaves()
    weights = torch.rand(2, 21, 19, 3)

    def loss(backgrounds):
        image, _ = composite(*replace(splats, backgrounds=backgrounds).args(), width=19, height=21)
        return (image.double() * weights).sum()

    loss(splats.backgrounds).backward()
    for cam in range(2):
        for channel in range(3):
            step = torch.zeros(2, 3)
            step[cam, channel] = 1.0
            there, back = splats.backgrounds.detach() + step, splats.backgrounds.detach()
            difference = (loss(there) - loss(back)).item()
            # 400 pixels, each rounded to 1e-7.
            assert splats.backgrounds.grad[cam, channel].item() == pytest.approx(
                difference, rel=1e-5, abs=1e-4
            )


def test_absgrad_is_the_sum_of_absolute_pixel_gradients():
    splats = random_splats(12, 9, 8, seed=7, sigma=(0.6, 3.0)).leaves()
    weights = torch.randn(1, 8, 9, 3)
    image, _ = composite(*splats.args(), width=9, height=8, absgrad=True)
    image.backward(weights)
    absolute = torch.zeros(1, 12, 2)
    for row in range(8):
        for column in range(9):
            alone = splats.leaves()
            out, _ = composite(*alone.args(), width=9, height=8)
            (out[0, row, column] * weights[0, row, column]).sum().backward()
            absolute += alone.means2d.grad.abs()
    # 72 float32 terms added in two orders.
    torch.testing.assert_close(splats.means2d.absgrad, absolute, rtol=1e-4, atol=1e-5)
    signed = splats.leaves()
    composite(*signed.args(), width=9, height=8)[0].backward(weights)
    assert torch.equal(signed.means2d.grad, splats.means2d.grad)


def test_order_of_the_inputs_does_not_matter():
    splats = random_splats(300, 40, 30, seed=11)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    shuffled = replace(
        splats,
        **{k: v[:, order] for k, v in splats.__dict__.items() if k != "backgrounds"},
    )
    image, alpha = composite(*splats.args(), width=40, height=30)
    image2, alpha2 = composite(*shuffled.args(), width=40, height=30)
    assert torch.equal(image, image2) and torch.equal(alpha, alpha2)


def test_nothing_behind_an_opaque_wall_is_seen_or_trained():
    wall = random_splats(3, 32, 32, seed=1)
    flat = torch.tensor([1e-6, 0.0, 1e-6]).expand(1, 3, 3)
    ones = torch.ones(1, 3)  # 0.999 covered twice leaves 1e-6: every pixel stops at the second
    wall = replace(
        wall, conics=flat, opacities=ones, depths=ones, radii=enclosing_radii(flat, ones)
    )
    behind = random_splats(50, 32, 32, seed=2)
    both = Splats(
        *(torch.cat(pair, 1) for pair in zip(wall.args()[:6], behind.args()[:6], strict=True)),
        wall.backgrounds,
    )
    both = replace(both, depths=both.depths + 1 * (torch.arange(53) >= 3)).leaves()
    image, _ = composite(*both.args(), width=32, height=32)
    assert torch.equal(image, composite(*wall.args(), width=32, height=32)[0])
    image.sum().backward()
    for name in ("means2d", "conics", "colors", "opacities"):
        assert not getattr(both, name).grad[:, 3:].any(), name


def _run(splats: Splats, width: int, height: int, absgrad: bool = False):
    leaves = splats.leaves()
    image, alpha = composite(*leaves.args(), width=width, height=height, absgrad=absgrad)
    (image.square().sum() + alpha.square().sum()).backward()
    return [image, alpha, *(getattr(leaves, k).grad for k in DIFFERENTIABLE)]


def test_same_bits_whatever_the_number_of_threads():
    splats = random_splats(3000, 130, 90, seed=4)
    before = numba.get_num_threads()
    try:
        results = []
        for threads in {1, before, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            results += [_run(splats, 130, 90) for _ in range(2)]
    finally:
        numba.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_bands_of_tiles_give_the_same(monkeypatch):
    splats = random_splats(2000, 100, 60, seed=6, channels=5)
    whole = _run(splats, 100, 60)
    monkeypatch.setattr(compositing, "MAX_GRADIENT_BYTES", 40_000)
    banded = _run(splats, 100, 60)
    assert torch.equal(whole[0], banded[0]) and torch.equal(whole[1], banded[1])
    for a, b in zip(whole[2:], banded[2:], strict=True):
        # The same terms, added band by band.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * a.abs().max().item())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_culled_non_finite_gaussian_changes_nothing(bad):
    splats = random_splats(60, 32, 32, seed=8)
    expected = _run(splats, 32, 32)
    for cull in (True, False):  # a caller that forgets to cull must not crash it, either
        broken = Splats(*(t.clone() for t in splats.args()))
        broken.means2d[0, 20] = bad
        broken.conics[0, 21] = bad
        if cull:
            broken.radii[0, 20:22] = 0
        got = _run(broken, 32, 32)
        without = Splats(*(t.clone() for t in splats.args()))
        without.radii[0, 20:22] = 0
        want = _run(without, 32, 32)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert not torch.equal(got[0], expected[0])


def test_conics_that_are_no_ellipse_stay_inside_their_radii():
    splats = random_splats(20, 64, 64, seed=9)
    hyperbola = torch.tensor([0.5, 2.0, 0.5]).expand(1, 20, 3)
    splats = replace(splats, conics=hyperbola, radii=torch.full((1, 20, 2), 3, dtype=torch.int32))
    result = _run(splats, 64, 64)
    assert all(torch.isfinite(t).all() for t in result)


@pytest.mark.parametrize("n", [0, 5])
def test_nothing_to_draw_gives_the_background(n):
    splats = random_splats(n, 17, 9, cameras=2)
    leaves = replace(splats, radii=torch.zeros_like(splats.radii)).leaves()
    image, alpha = composite(*leaves.args(), width=17, height=9)
    assert not alpha.any()
    assert torch.equal(image, leaves.backgrounds[:, None, None].expand_as(image))
    image.sum().backward()
    assert torch.equal(leaves.backgrounds.grad, torch.full((2, 3), 17.0 * 9.0))
    assert not leaves.means2d.grad.any()


def test_two_python_threads_may_render_at_once():
    splats = random_splats(500, 64, 64, seed=10)
    expected = _run(splats, 64, 64)
    results = []
    threads = [
        threading.Thread(target=lambda: results.extend(_run(splats, 64, 64) for _ in range(5)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_backward_twice_gives_the_same_gradients():
    leaves = random_splats(100, 30, 30).leaves()
    image, _ = composite(*leaves.args(), width=30, height=30)
    (first,) = torch.autograd.grad(image.sum(), leaves.means2d, retain_graph=True)
    (second,) = torch.autograd.grad(image.sum(), leaves.means2d)
    assert torch.equal(first, second)
