"""The projection and SH kernels against the fp64 reference, and both against gsplat's own torch."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optional_packages import import_or_skip

from scene4d.rendering.splats import harmonics, projection, reference
from scene4d.rendering.splats.reference import ProjectionSettings

WIDTH, HEIGHT = 40, 28
NAMES = ("means", "quats", "scales", "opacities", "viewmats", "Ks")
OUTPUTS = ("means2d", "depths", "conics", "compensations")


def run(project, scene, settings_, dtype, *, only=None):
    """Outputs, gradients of a fixed random combination of them, and the radii."""
    tensors = {k: scene[k].detach().to(dtype) for k in NAMES}
    for name in ("means", "quats", "scales", "viewmats"):
        tensors[name].requires_grad_()
    got = project(*tensors.values(), settings_)
    loss = torch.zeros((), dtype=torch.float64)
    for i, name in enumerate(OUTPUTS):
        value = getattr(got, name)
        if value is None:
            continue
        weight = torch.randn(value.shape, generator=torch.Generator().manual_seed(i))
        if only is not None:
            weight = weight * only.reshape(only.shape + (1,) * (value.ndim - 2))
        loss = loss + (value.double() * weight.double()).sum()
    loss.backward()
    grads = {k: tensors[k].grad.double() for k in ("means", "quats", "scales", "viewmats")}
    return got, grads


def compare(scene, settings_, *, rtol=2e-5):
    """Kernel in float32 against the reference in float64.

    Culling and radii may differ where a value rounds across a whole pixel or a plane; such entries
    are counted, must be few, and take no part in the gradients.
    """
    exact = reference.project(*(scene[k].double() for k in NAMES), settings_)
    quick = projection.project(*(scene[k].float() for k in NAMES), settings_)
    both = exact.visible & quick.visible
    differing = (exact.radii != quick.radii).any(dim=-1)
    assert differing.sum() <= 0.01 * differing.numel() + 1
    assert ((exact.radii - quick.radii)[both].abs() <= 1).all()
    assert (quick.conics[~quick.visible] == 0).all() and (quick.means2d[~quick.visible] == 0).all()
    got, grads = run(projection.project, scene, settings_, torch.float32, only=both)
    want, expected = run(reference.project, scene, settings_, torch.float64, only=both)
    for name in OUTPUTS:
        value, truth = getattr(got, name), getattr(want, name)
        if value is None:
            assert truth is None
            continue
        value, truth = value[both].double(), truth[both]
        # 1e-5 of the value (a dozen float32 operations), and of 40 px for positions.
        torch.testing.assert_close(value, truth, rtol=1e-5, atol=2e-5, msg=name)
    for name, grad in grads.items():
        scale = expected[name].norm() + 1e-12
        assert (grad - expected[name]).norm() / scale < rtol, name


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("num", [1, 7, 8, 9, 515, 1500])
def test_kernel_matches_the_reference(random_scene, num, antialiased):
    """Sizes around the eight lanes and the chunks of 512."""
    scene = random_scene(num, num=num, cameras=3)
    # 2e-5: gradients add a few dozen float32 roundings of 6e-8, the conics' grow by their ratio.
    compare(scene, ProjectionSettings(width=WIDTH, height=HEIGHT, antialiased=antialiased))


def test_kernel_matches_beside_and_far_outside_the_field_of_view(random_scene):
    """Where the slopes of the Jacobian are clamped, on both sides of the principal point."""
    scene = random_scene(1, num=400, cameras=2)
    scene["means"] = scene["means"] * torch.tensor([4.0, 3.0, 1.0])
    scene["scales"] = scene["scales"] * 6
    exact = reference.project(*(scene[k] for k in NAMES), ProjectionSettings(width=40, height=28))
    position = torch.einsum("cij,nj->cni", scene["viewmats"][:, :3, :3], scene["means"])
    slope = position[..., 0] / (position[..., 2] + 3)
    low, high = reference._slope_limits(scene["Ks"], ProjectionSettings(width=40, height=28))
    outside = (slope < low[:, :1]) | (slope > high[:, :1])
    assert (outside & exact.visible).sum() > 20
    compare(scene, ProjectionSettings(width=WIDTH, height=HEIGHT), rtol=5e-5)


def test_off_diagonal_conic_gradient_is_whole(random_scene):
    """A loss on the off-diagonal element alone, against finite differences of the reference."""
    scene = random_scene(2, num=8, cameras=1)
    settings_ = ProjectionSettings(width=WIDTH, height=HEIGHT)
    tensors = {k: scene[k].float() for k in NAMES}
    tensors["quats"].requires_grad_()
    projection.project(*tensors.values(), settings_).conics[..., 1].sum().backward()
    grad = tensors["quats"].grad.double()
    step = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sides = []
    for sign in (1, -1):
        moved = {**scene, "quats": scene["quats"] + sign * 1e-5 * step}
        conics = reference.project(*(moved[k] for k in NAMES), settings_).conics
        sides.append(conics[..., 1].sum())
    # 1e-5: float32 kernel; the differences themselves are good to 1e-9.
    assert (grad * step).sum().item() == pytest.approx(
        ((sides[0] - sides[1]) / 2e-5).item(), rel=1e-5, abs=1e-6
    )


def test_the_number_of_threads_does_not_change_a_bit(random_scene):
    import numba

    scene = random_scene(3, num=3000, cameras=2)
    settings_ = ProjectionSettings(width=WIDTH, height=HEIGHT, antialiased=True)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            got, grads = run(projection.project, scene, settings_, torch.float32)
            results.append([got.conics, *grads.values()])
    finally:
        numba.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38, 0.0])
def test_degenerate_gaussians_have_no_gradient_and_do_no_harm(random_scene, name, bad):
    scene = random_scene(4, num=20, cameras=2)
    scene[name] = scene[name].clone()
    scene[name][5] = bad
    settings_ = ProjectionSettings(width=WIDTH, height=HEIGHT)
    got, grads = run(projection.project, scene, settings_, torch.float32)
    kept = [i for i in range(20) if i != 5]
    clean = {k: v[kept] if len(v) == 20 else v for k, v in scene.items()}
    expected = projection.project(*(clean[k].float() for k in NAMES), settings_)
    assert torch.equal(got.conics[:, kept], expected.conics)
    for grad in grads.values():
        assert grad.isfinite().all()
    drawable = name in ("means", "scales") and bad == 0.0  # at the origin, or a point: both fine
    drawable |= name == "opacities" and bad > 1  # taken as it is
    if not drawable:
        assert (got.radii[:, 5] == 0).all()
        assert (grads["means"][5] == 0).all() and (grads["quats"][5] == 0).all()


def test_no_gaussians_and_bad_cameras():
    settings_ = ProjectionSettings(width=4, height=4)
    empty = [torch.zeros(0, k) for k in (3, 4, 3)]
    cameras = torch.full((1, 4, 4), math.nan), torch.eye(3)[None]
    got = projection.project(*empty, torch.zeros(0), *cameras, settings_)
    assert got.means2d.shape == (1, 0, 2)
    one = torch.ones(1, 3), torch.ones(1, 4), torch.ones(1, 3), torch.ones(1)
    got = projection.project(*one, *cameras, settings_)
    assert not got.visible.any()
    assert not projection.project(
        *one, torch.eye(4)[None], torch.zeros(1, 3, 3), settings_
    ).visible[0]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fuzzed_gaussians_never_give_what_is_not_finite(data):
    """Any float32 at all, NaN, infinities and denormals included."""
    value = st.floats(width=32)
    tame = st.floats(-4, 4, width=32)
    numbers = st.lists(st.one_of(tame, tame, value), min_size=55, max_size=55)
    flat = torch.tensor(data.draw(numbers)).float()
    means, quats = flat[:15].reshape(5, 3).clone(), flat[15:35].reshape(5, 4).clone()
    scales, opacities = flat[35:50].reshape(5, 3).clone(), flat[50:].clone()
    inputs = [t.requires_grad_() for t in (means, quats, scales)]
    viewmats = torch.eye(4)[None].clone().requires_grad_()
    K = torch.tensor([[[30.0, 0, 12], [0, 30.0, 15], [0, 0, 1]]])
    settings_ = ProjectionSettings(width=WIDTH, height=HEIGHT, antialiased=data.draw(st.booleans()))
    got = projection.project(*inputs, opacities, viewmats, K, settings_)
    seen = got.visible
    for name in ("means2d", "depths", "conics"):
        assert getattr(got, name).isfinite().all()
    assert (got.conics[..., 0][seen] >= 0).all() and (got.depths[seen] >= 0.01).all()
    assert (got.radii >= 0).all() and (got.radii <= reference.MAX_RADIUS).all()
    (got.means2d.sum() + got.depths.sum()).backward()
    for t in (*inputs, viewmats):
        assert t.grad.isfinite().all()
    hidden = ~seen[0]
    assert (means.grad[hidden] == 0).all()


def sh_inputs(scene, dtype, pair):
    tensors = {k: scene[k].detach().to(dtype) for k in ("colors", "means", "viewmats")}
    if pair:
        tensors["first"] = tensors["colors"][..., :1, :].clone()
        tensors["rest"] = tensors["colors"][..., 1:, :].clone()
    for t in tensors.values():
        t.requires_grad_()
    return tensors


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("per_camera", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_sh_kernel_matches_the_reference(random_scene, degree, per_camera, pair):
    """With more coefficients stored than used, and with clamped and culled colours."""
    scene = random_scene(degree, num=530, cameras=3, sh_degree=3)
    scene["colors"] = scene["colors"] * 3
    if per_camera:
        scene["colors"] = torch.stack([scene["colors"], -scene["colors"], 0.5 * scene["colors"]])
    visible = torch.rand(3, 530, generator=torch.Generator().manual_seed(1)) < 0.6
    weight = torch.randn(3, 530, 3, generator=torch.Generator().manual_seed(2))
    a = sh_inputs(scene, torch.float32, pair)
    b = sh_inputs(scene, torch.float64, False)
    coeffs = (a["first"], a["rest"]) if pair else a["colors"]
    got = harmonics.sh_colors(coeffs, a["means"], a["viewmats"], visible, degree)
    want = reference.sh_colors(b["colors"], b["means"], b["viewmats"], visible, degree)
    # 2e-6 of colours up to 10: sixteen float32 products.
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-6)
    clear = (want.abs() > 1e-5) | (want == 0)  # off the clamp's edge, both or none are clamped
    assert clear.all() and (want[visible] == 0).any()
    (got * weight).sum().backward()
    (want * weight.double()).sum().backward()
    coefficient_grad = a["colors"].grad
    if pair:
        coefficient_grad = torch.cat([a["first"].grad, a["rest"].grad], dim=-2)
    used = (degree + 1) ** 2
    assert (coefficient_grad[..., used:, :] == 0).all()
    pairs = [(coefficient_grad, b["colors"].grad)]
    if degree:
        pairs += [(a[k].grad, b[k].grad) for k in ("means", "viewmats")]
    for grad, expected in pairs:
        # 5e-6: a few dozen float32 roundings; the pose sums 1000 terms of either sign.
        assert (grad.double() - expected).norm() / expected.norm() < 5e-6


@pytest.mark.parametrize("num", [1, 7, 8, 9])
def test_sh_kernel_at_sizes_around_the_lanes(random_scene, num):
    scene = random_scene(num, num=num, cameras=2, sh_degree=3)
    a, b = (sh_inputs(scene, t, False) for t in (torch.float32, torch.float64))
    visible = torch.ones(2, num, dtype=torch.bool)
    got = harmonics.sh_colors(a["colors"], a["means"], a["viewmats"], visible, 3)
    want = reference.sh_colors(b["colors"], b["means"], b["viewmats"], visible, 3)
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-6)
    got.square().sum().backward()
    want.square().sum().backward()
    for name in ("colors", "means"):
        difference = (a[name].grad.double() - b[name].grad).norm()
        assert difference <= 5e-6 * b[name].grad.norm()


def test_sh_of_bad_gaussians_is_zero_with_zero_gradient(random_scene):
    scene = random_scene(1, num=12, cameras=1, sh_degree=3)
    a = sh_inputs(scene, torch.float32, False)
    with torch.no_grad():
        a["means"][3] = math.nan
        a["means"][4] = math.inf
        a["means"][5] = reference.camera_centres(a["viewmats"])[0]
    visible = torch.ones(1, 12, dtype=torch.bool)
    visible[0, 3:6] = False
    colors = harmonics.sh_colors(a["colors"], a["means"], a["viewmats"], visible, 3)
    colors.sum().backward()
    for name in ("colors", "means", "viewmats"):
        assert a[name].grad.isfinite().all()
    assert (a["colors"].grad[3:6] == 0).all() and (a["means"].grad[3:6] == 0).all()


def gsplat_projection(scene, settings_):
    """gsplat's plain torch version, which knows neither opacities nor the clip."""
    torch_impl = import_or_skip("gsplat.cuda._torch_impl")
    covars, _ = torch_impl._quat_scale_to_covar_preci(
        scene["quats"], scene["scales"], compute_preci=False
    )
    return torch_impl._fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], settings_.width, settings_.height,
        eps2d=settings_.eps2d, calc_compensations=True,
    )  # fmt: skip


def test_reference_projection_agrees_with_gsplats_torch(random_scene):
    scene = random_scene(8, num=300, cameras=2)
    scene["opacities"][:] = 1.0
    scene["means"] = scene["means"] * torch.tensor([3.0, 2.0, 1.0])
    settings_ = ProjectionSettings(width=WIDTH, height=HEIGHT, antialiased=True)
    leaves = ("means", "quats", "scales", "viewmats")
    results = []
    for ours in (True, False):
        tensors = {k: scene[k].detach().clone() for k in NAMES}
        for name in leaves:
            tensors[name].requires_grad_()
        if ours:
            p = reference.project(*tensors.values(), settings_)
            values = (p.means2d, p.depths, p.conics, p.compensations)
            visible = p.visible
        else:
            radii, *values = gsplat_projection(tensors, settings_)
            visible = (radii > 0).all(dim=-1)
        results.append((tensors, values, visible))
    # gsplat's bound of 3.33 sigma is ours, or sqrt(2 ln 255) = 3.329 where that rounds down; what
    # is drawn faintly or not at all may differ, few in number.
    both = results[0][2] & results[1][2]
    assert (results[0][2] != results[1][2]).sum() <= 2 and both.sum() > 150
    for _, values, _ in results:
        weights = torch.Generator().manual_seed(0)
        loss = sum(
            (v[both] * torch.randn(v[both].shape, generator=weights, dtype=torch.float64)).sum()
            for v in values
        )
        loss.backward()
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a[both], b[both], rtol=1e-9, atol=1e-10)
    for name in leaves:
        # Float64 with gsplat's determinant, which cancels for needles: hence not 1e-15.
        torch.testing.assert_close(
            results[0][0][name].grad, results[1][0][name].grad, rtol=1e-7, atol=1e-7
        )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_reference_sh_agrees_with_gsplats_torch(degree):
    torch_impl = import_or_skip("gsplat.cuda._torch_impl")
    generator = torch.Generator().manual_seed(degree)
    directions = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    coeffs = torch.randn(50, 16, 3, generator=generator, dtype=torch.float64)
    expected = torch_impl._spherical_harmonics(degree, directions, coeffs)
    basis = reference.sh_basis(torch.nn.functional.normalize(directions, dim=-1), degree)
    got = (basis[..., None] * coeffs[:, : basis.shape[-1]]).sum(dim=-2)
    # 1e-7: gsplat's constants are rounded to about 16, some to 10, digits.
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
