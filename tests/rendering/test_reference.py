"""The plain-torch rasteriser against closed forms, invariances and finite differences."""

import math

import pytest
import torch

from scene4d.rendering.splats import reference
from scene4d.rendering.splats.rasterization import rasterize
from scene4d.rendering.splats.reference import ProjectionSettings

WIDTH, HEIGHT = 40, 28
SETTINGS = ProjectionSettings(width=WIDTH, height=HEIGHT)


def draw(scene, **kwargs):
    return rasterize(**scene, width=WIDTH, height=HEIGHT, backend="reference", **kwargs)


def one_gaussian(scale=0.1, depth=4.0, opacity=0.6):
    """An isotropic Gaussian on the axis of a camera whose principal point is off the centre."""
    K = torch.tensor([[[60.0, 0, 13.5], [0, 60.0, 10.5], [0, 0, 1]]], dtype=torch.float64)
    return {
        "means": torch.tensor([[0.0, 0, depth]], dtype=torch.float64),
        "quats": torch.tensor([[0.3, -0.5, 0.2, 0.9]], dtype=torch.float64),
        "scales": torch.full((1, 3), scale, dtype=torch.float64),
        "opacities": torch.tensor([opacity], dtype=torch.float64),
        "colors": torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64),
        "viewmats": torch.eye(4, dtype=torch.float64)[None],
        "Ks": K,
    }


def test_isotropic_gaussian_on_the_axis_has_the_known_footprint():
    rgb, alpha, meta = draw(one_gaussian())
    variance = (60.0 * 0.1 / 4.0) ** 2 + 0.3
    ys, xs = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    squared = (xs + 0.5 - 13.5) ** 2 + (ys + 0.5 - 10.5) ** 2
    expected = 0.6 * torch.exp(-squared.double() / (2 * variance))
    expected[expected < 1 / 255] = 0
    # 1e-14: float64 rounding of an exponential.
    torch.testing.assert_close(alpha[0, :, :, 0], expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(rgb[0, :, :, 1], 0.5 * expected, rtol=0, atol=1e-14)
    assert alpha[0, 10, 13, 0] == pytest.approx(0.6, abs=1e-14)  # the peak is the opacity
    radius = math.ceil(math.sqrt(2 * math.log(0.6 * 255)) * math.sqrt(variance))
    assert meta["radii"][0, 0].tolist() == [radius, radius]
    assert meta["depths"][0, 0] == pytest.approx(4.0)


def test_antialiased_mode_keeps_the_footprints_volume():
    """Opacity falls by as much as the low-pass widens the footprint (Mip-Splatting, eq. 9)."""
    scene = one_gaussian(scale=0.05)
    _, _, meta = draw(scene, rasterize_mode="antialiased")
    variance = (60.0 * 0.05 / 4.0) ** 2
    expected = 0.6 * variance / (variance + 0.3)
    assert meta["opacities"][0, 0] == pytest.approx(expected, abs=1e-14)


def test_footprint_of_a_stretched_gaussian_is_the_linearised_projection(random_scene):
    """EWA's covariance is D S D^T with D the projection's derivative, taken here by autograd."""
    scene = random_scene(3, num=1, cameras=1)
    scene["means"] = scene["means"] * 0.1
    mean, K, viewmat = scene["means"][0], scene["Ks"][0], scene["viewmats"][0]

    def pixel(point):
        p = viewmat[:3, :3] @ point + viewmat[:3, 3]
        return (K @ p)[:2] / p[2]

    D = torch.autograd.functional.jacobian(pixel, mean)
    A = D @ reference.rotation_from_quat(scene["quats"])[0] @ scene["scales"][0].diag()
    conic = torch.linalg.inv(A @ A.T + 0.3 * torch.eye(2, dtype=torch.float64))
    args = [scene[k] for k in ("means", "quats", "scales", "opacities", "viewmats", "Ks")]
    got = reference.project(*args, SETTINGS)
    expected = torch.stack([conic[0, 0], conic[0, 1], conic[1, 1]])
    # 1e-12: two float64 routes to the inverse of a well-conditioned 2 x 2 matrix.
    torch.testing.assert_close(got.conics[0, 0], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got.means2d[0, 0], pixel(mean), rtol=1e-13, atol=1e-13)


def test_moving_world_and_cameras_together_changes_nothing(random_scene):
    scene = random_scene(1, sh_degree=None)
    motion = torch.eye(4, dtype=torch.float64)
    quat = torch.tensor([0.2, 0.9, -0.3, 0.4], dtype=torch.float64)
    motion[:3, :3] = reference.rotation_from_quat(quat)
    motion[:3, 3] = torch.tensor([5.0, -2.0, 1.0])
    w, x, y, z = torch.nn.functional.normalize(quat, dim=0)
    left = torch.stack(
        [
            torch.stack([w, -x, -y, -z]),
            torch.stack([x, w, -z, y]),
            torch.stack([y, z, w, -x]),
            torch.stack([z, -y, x, w]),
        ]
    )
    moved = dict(scene)
    moved["means"] = scene["means"] @ motion[:3, :3].T + motion[:3, 3]
    moved["quats"] = scene["quats"] @ left.T
    moved["viewmats"] = scene["viewmats"] @ torch.linalg.inv(motion)
    # 1e-11: positions of size 5 in float64, times a focal length of 40 px.
    torch.testing.assert_close(draw(moved)[0], draw(scene)[0], rtol=0, atol=1e-11)


def test_scaling_world_and_distances_together_changes_nothing(random_scene):
    scene = random_scene(2, sh_degree=2)
    scaled = dict(scene)
    scaled["means"], scaled["scales"] = 7 * scene["means"], 7 * scene["scales"]
    scaled["viewmats"] = scene["viewmats"].clone()
    scaled["viewmats"][:, :3, 3] *= 7
    a, b = draw(scene, sh_degree=2), draw(scaled, sh_degree=2)
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(7 * a[2]["depths"], b[2]["depths"], rtol=1e-13, atol=1e-13)


def test_moving_the_principal_point_moves_the_picture(random_scene):
    """By whole pixels, on small Gaussians near the axis, where no slope is clamped."""
    scene = random_scene(4, cameras=1)
    scene["means"] = scene["means"] * 0.3
    shifted = {**scene, "Ks": scene["Ks"].clone()}
    shifted["Ks"][0, 0, 2] += 5
    shifted["Ks"][0, 1, 2] -= 3
    a, b = draw(scene)[1], draw(shifted)[1]
    torch.testing.assert_close(a[:, 3:, :-5], b[:, :-3, 5:], rtol=0, atol=1e-12)


def test_the_order_of_gaussians_does_not_matter(random_scene):
    scene = random_scene(5, sh_degree=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    names = ("means", "quats", "scales", "opacities", "colors")
    mixed = {**scene, **{k: scene[k][order] for k in names}}
    torch.testing.assert_close(
        draw(scene, sh_degree=1)[0], draw(mixed, sh_degree=1)[0], rtol=0, atol=1e-13
    )


def test_an_opaque_stack_stops_before_the_limit():
    """Each layer has alpha 0.9 at the centre: T is 0.1, 0.01, 0.001, and 1e-4 is not reached."""
    scene = one_gaussian(opacity=0.9)
    scene["means"] = scene["means"].repeat(6, 1)
    scene["means"][:, 2] += 1e-9 * torch.arange(6)
    for name in ("quats", "scales", "opacities", "colors"):
        scene[name] = scene[name].repeat(6, *[1] * (scene[name].ndim - 1))
    scene["colors"] = torch.eye(6, dtype=torch.float64)
    rgb, alpha, _ = draw(scene)
    centre = rgb[0, 10, 13]
    # 1e-8: the layers' depths, and so their widths, differ by 1e-9 of 4; T is a hair above 1e-4
    # or not after four layers, so only the first three are certain.
    expected = torch.tensor([0.9, 0.09, 0.009], dtype=torch.float64)
    torch.testing.assert_close(centre[:3], expected, rtol=0, atol=1e-8)
    assert centre[4] == 0 and centre[5] == 0
    assert alpha[0, 10, 13, 0] < 1 - 9e-5


def test_alpha_is_clamped_and_its_gradient_stops():
    scene = one_gaussian(opacity=1.0)
    scene["opacities"].requires_grad_()
    _, alpha, _ = draw(scene)
    assert alpha[0, 10, 13, 0].item() == pytest.approx(0.999, abs=1e-15)
    alpha[0, 10, 13, 0].backward()
    assert scene["opacities"].grad.item() == 0


@pytest.mark.parametrize("mode", ["D", "ED", "RGB+D", "RGB+ED"])
def test_depth_modes(mode):
    scene = one_gaussian()
    image, alpha, _ = draw(scene, render_mode=mode)
    depth = image[0, ..., -1]
    covered = alpha[0, ..., 0] > 0
    expected = torch.where(covered, 4.0, 0.0) if "ED" in mode else 4.0 * alpha[0, ..., 0]
    torch.testing.assert_close(depth, expected.double(), rtol=0, atol=1e-12)
    assert image.shape[-1] == (4 if "RGB" in mode else 1)


def test_sh_basis_is_orthonormal():
    """Gauss-Legendre in z times equal steps in angle integrates degree 6 exactly."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(8)
    angle = 2 * np.pi * np.arange(16) / 16
    z, phi = np.meshgrid(nodes, angle, indexing="ij")
    r = np.sqrt(1 - z**2)
    direction = torch.tensor(np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1))
    weight = torch.tensor(weights)[:, None].expand(8, 16) * 2 * np.pi / 16
    basis = reference.sh_basis(direction, 3)
    gram = torch.einsum("abk,abl,ab->kl", basis, basis, weight)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-13)


def _gradcheck_inputs(random_scene, sh_degree):
    """Few wide Gaussians, faint enough that no pixel stops and no alpha is near its clamp, and so
    wide that the cut at 1/255 lies outside the image."""
    scene = random_scene(11, num=3, cameras=2, sh_degree=sh_degree)
    scene["means"] = scene["means"] * 0.2
    scene["scales"] = scene["scales"] + 0.9
    scene["opacities"] = 0.3 + 0.3 * scene["opacities"]
    if sh_degree is not None:
        scene["colors"] = 0.2 * scene["colors"]  # colours stay off their clamp at 0
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
    return scene, names, tuple(scene[n].requires_grad_() for n in names)


@pytest.mark.parametrize("sh_degree", [None, 0, 3])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_gradients_are_the_finite_differences(random_scene, sh_degree, rasterize_mode):
    scene, names, inputs = _gradcheck_inputs(random_scene, sh_degree)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 10, 12, 4, generator=generator, dtype=torch.float64)
    intrinsics = scene["Ks"].detach() * torch.tensor([0.3, 0.3, 1.0])[:, None]

    def loss(*values):
        given = dict(zip(names, values, strict=True))
        image, alpha, _ = rasterize(
            **given, Ks=intrinsics, width=12, height=10, sh_degree=sh_degree, eps2d=0.3,
            render_mode="RGB+ED", rasterize_mode=rasterize_mode, backend="reference",
        )  # fmt: skip
        return (image * weights).sum() + (alpha[..., 0] * weights[..., 0]).sin().sum()

    # float64 central differences of step 1e-6 are good to about 1e-8 of the loss's size (10).
    # The fast mode compares along random directions; the full one would take minutes with SH.
    fast = sh_degree is not None or rasterize_mode == "classic"
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=2e-6, rtol=1e-5, fast_mode=fast)


def test_absgrad_is_the_sum_of_absolute_gradients(random_scene):
    """One pixel at a time, the plain gradient's absolute value is the pixel's share."""
    scene = random_scene(6, num=6, cameras=1, width=10, height=7)
    scene["means"].requires_grad_()
    weights = torch.randn(7, 10, generator=torch.Generator().manual_seed(1)).double()

    def small(**kwargs):
        return rasterize(**scene, width=10, height=7, backend="reference", **kwargs)

    image, _, meta = small(absgrad=True)
    (image[0, ..., 0] * weights).sum().backward()
    total = meta["means2d"].absgrad
    image, _, meta = small()
    shares = torch.zeros_like(total)
    for y in range(7):
        for x in range(10):
            value = image[0, y, x, 0] * weights[y, x]
            (share,) = torch.autograd.grad(value, meta["means2d"], retain_graph=True)
            shares += share.abs()
    assert total.abs().max() > 0
    torch.testing.assert_close(total, shares, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["means", "quats", "scales"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_numbers_are_culled_and_leave_the_rest_alone(random_scene, name, bad):
    scene = random_scene(7, sh_degree=1)
    without = {k: v[1:] if len(v) == 60 else v for k, v in scene.items()}
    scene[name] = scene[name].clone()
    scene[name][0, 1] = bad
    for key in ("means", "quats", "scales", "opacities", "colors", "viewmats"):
        scene[key].requires_grad_()
    image, _, meta = draw(scene, sh_degree=1)
    torch.testing.assert_close(image, draw(without, sh_degree=1)[0], rtol=0, atol=0)
    assert (meta["radii"][:, 0] == 0).all()
    image.square().sum().backward()
    for key in ("means", "quats", "scales", "opacities", "colors", "viewmats"):
        assert scene[key].grad.isfinite().all(), key
    assert (scene["means"].grad[0] == 0).all() and (scene["colors"].grad[0] == 0).all()


def test_near_far_and_behind_are_culled():
    scene = one_gaussian()
    depths = torch.tensor([-4.0, 0.0, 0.005, 0.02, 4.0, 60.0], dtype=torch.float64)
    scene["means"] = torch.stack([0 * depths, 0 * depths, depths], dim=-1)
    for name in ("quats", "scales", "opacities", "colors"):
        scene[name] = scene[name].repeat(6, *[1] * (scene[name].ndim - 1))
    scene["scales"] = scene["scales"] * 0.01
    _, _, meta = draw(scene, near_plane=0.01, far_plane=50.0)
    assert (meta["radii"][0] > 0).all(dim=-1).tolist() == [False] * 3 + [True, True, False]
    _, _, meta = draw(scene, near_plane=-10.0)
    assert not (meta["radii"][0, :2] > 0).any()


def test_radius_clip_drops_small_footprints():
    scene = one_gaussian()
    _, _, meta = draw(scene)
    radius = float(meta["radii"][0, 0, 0])
    assert draw(scene, radius_clip=radius - 0.5)[1].sum() > 0
    assert draw(scene, radius_clip=radius)[1].sum() == 0
