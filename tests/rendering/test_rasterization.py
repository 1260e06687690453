"""``rasterization`` as gsplat's callers know it; the Numba back end against the fp64 reference."""

import inspect
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from optional_packages import import_or_skip

from scene4d.errors import Scene4dError
from scene4d.rendering import backends
from scene4d.rendering.splats.cuda import gsplat_unavailable_reason
from scene4d.rendering.splats.rasterization import (
    UnsupportedArgumentError,
    rasterization,
    rasterize,
)

WIDTH, HEIGHT = 40, 28
LEAVES = ("means", "quats", "scales", "opacities", "colors", "backgrounds", "viewmats")


def draw(scene, dtype, backend, weights=None, **kwargs):
    """Image, alphas and meta; with ``weights`` also the gradients of the weighted image."""
    tensors = {k: v.detach().to(dtype) for k, v in scene.items()}
    for name in LEAVES:
        tensors[name].requires_grad_()
    image, alphas, meta = rasterize(
        **tensors, width=WIDTH, height=HEIGHT, absgrad=True, backend=backend, **kwargs
    )
    if weights is None:
        return image.detach(), alphas.detach(), meta, {}
    meta["means2d"].retain_grad()
    both = torch.cat([image, alphas], dim=-1)
    (both * weights[..., : both.shape[-1]].to(dtype)).sum().backward()
    grads = {k: tensors[k].grad for k in LEAVES if tensors[k].grad is not None}
    grads["means2d"], grads["absgrad"] = meta["means2d"].grad, meta["means2d"].absgrad
    return image.detach(), alphas.detach(), meta, grads


def sure_pixels(scene, **kwargs):
    """Pixels that a hair more or less of opacity, or of the cuts, does not change by a step.

    At the cut (alpha = 1/255) and at the stop (T = 1e-4) rounding decides whether a Gaussian
    counts: nudging every opacity by 1e-4 finds the pixels where one is within reach.
    """
    base = draw(scene, torch.float64, "reference", **kwargs)[0]
    nudged = [
        draw(
            {**scene, "opacities": scene["opacities"] * factor},
            torch.float64,
            "reference",
            **kwargs,
        )[0]
        for factor in (1 - 1e-4, 1 + 1e-4)
    ]
    # Without a step, both nudges change it as much the other way, but for squares of 1e-4.
    return ((nudged[0] + nudged[1] - 2 * base).abs() < 1e-6).all(dim=-1)


def compare(scene, *, allowed=0.02, rtol=1e-4, atol=2e-5, **kwargs):
    """Images and every gradient of both back ends, on the pixels that rounding cannot flip."""
    sure = sure_pixels(scene, **kwargs)
    assert (~sure).double().mean() <= allowed
    g = torch.Generator().manual_seed(9)
    weights = torch.randn(*sure.shape, 5, generator=g) * sure[..., None]
    got = draw(scene, torch.float32, "numba", weights, **kwargs)
    want = draw(scene, torch.float64, "reference", weights, **kwargs)
    for value, truth in zip(got[:2], want[:2], strict=True):
        # 2e-5 of values up to 5: depths, and sums of some fifty float32 products.
        torch.testing.assert_close(value[sure].double(), truth[sure], rtol=atol, atol=atol)
    assert got[3].keys() == want[3].keys()
    for name, truth in want[3].items():
        norm = truth.norm()
        # 1e-4: the sums run over all pixels with either sign, so float32's 6e-8 grows.
        assert (got[3][name].double() - truth).norm() <= rtol * norm + 1e-9, name


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("sh_degree", [None, 0, 1, 2, 3])
def test_numba_matches_the_reference(random_scene, sh_degree, rasterize_mode):
    scene = random_scene(20, sh_degree=sh_degree, cameras=3)
    compare(scene, sh_degree=sh_degree, rasterize_mode=rasterize_mode)


@pytest.mark.parametrize("render_mode", ["D", "ED", "RGB+D", "RGB+ED"])
def test_numba_matches_the_reference_in_depth(random_scene, render_mode):
    compare(random_scene(21), render_mode=render_mode)


def test_colors_per_camera_and_many_channels(random_scene):
    scene = random_scene(22)
    g = torch.Generator().manual_seed(0)
    scene["colors"] = torch.rand(2, 60, 7, generator=g, dtype=torch.float64)
    scene["backgrounds"] = torch.rand(2, 7, generator=g, dtype=torch.float64)
    a = draw(scene, torch.float32, "numba")
    b = draw(scene, torch.float64, "reference")
    sure = sure_pixels(scene)
    assert a[0].shape == (2, HEIGHT, WIDTH, 7)
    torch.testing.assert_close(a[0][sure].double(), b[0][sure], rtol=0, atol=1e-5)


def test_coefficients_in_two_parts_are_the_same(random_scene):
    scene = {k: v.float() for k, v in random_scene(23, sh_degree=3).items()}
    whole = rasterization(**scene, width=WIDTH, height=HEIGHT, sh_degree=2)[0]
    parts = scene["colors"][:, :1].clone(), scene["colors"][:, 1:].clone()
    for backend in ("numba", "reference"):
        split = rasterize(
            **{**scene, "colors": parts}, width=WIDTH, height=HEIGHT, sh_degree=2, backend=backend
        )[0]
        # The reference in float32 rounds differently, also at the cuts.
        limit = 0 if backend == "numba" else 5e-3
        assert (split - whole).abs().max() <= limit


@pytest.mark.parametrize("case", ["needles", "flat", "huge", "tiny", "transparent", "opaque"])
def test_numba_matches_the_reference_on_extreme_scenes(random_scene, case):
    scene = random_scene(24, num=40)
    if case == "needles":
        scene["scales"][:, 0] = 2.0
        scene["scales"][:, 1:] = 0.002
    if case == "flat":
        scene["scales"][:, 1] = 0.0
    if case == "huge":
        scene["scales"] = scene["scales"] * 15
    if case == "tiny":
        scene["scales"] = scene["scales"] * 1e-4
    if case == "transparent":
        scene["opacities"] = scene["opacities"] * 0.01
    if case == "opaque":
        scene["opacities"][:] = 1.0
    scene = {k: v.float().double() for k, v in scene.items()}
    # Edges of needles and stops behind opaque ones make more pixels unsure. The conics of needles
    # amplify rounding by their aspect ratio of some hundred.
    compare(scene, allowed=0.2, rtol=1e-3, atol=2e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10_000),
    num=st.integers(1, 40),
    spread=st.floats(0.1, 4.0),
    size=st.floats(0.05, 8.0),
    distance=st.floats(-1.0, 2.0),
)
@example(seed=3379, num=32, spread=0.75, size=6.5, distance=0.0)  # a cut behind others
def test_numba_matches_the_reference_on_fuzzed_scenes(
    random_scene, seed, num, spread, size, distance
):
    """Cameras inside, before and behind the cloud, so near planes and clamped slopes take part."""
    scene = random_scene(seed, num=num, cameras=2)
    scene["means"] = scene["means"] * spread
    scene["scales"] = scene["scales"] * size
    scene["viewmats"][:, 2, 3] += distance - 1
    scene = {k: v.float().double() for k, v in scene.items()}
    compare(scene, allowed=0.5, rtol=2e-3)


def test_bad_gaussians_draw_nothing_and_have_zero_gradients(random_scene):
    scene = random_scene(25, num=24)
    clean = {k: v[6:] if len(v) == 24 else v for k, v in scene.items()}
    scene["means"][0] = math.nan
    scene["means"][1, 2] = math.inf
    scene["scales"][2, 0] = math.nan
    scene["scales"][3] = math.inf
    scene["quats"][4] = 0
    scene["opacities"][5] = math.nan
    weights = torch.ones(2, HEIGHT, WIDTH, 5)
    for backend, dtype in (("numba", torch.float32), ("reference", torch.float32)):
        image, _, _, grads = draw(scene, dtype, backend, weights)
        assert torch.equal(image, draw(clean, dtype, backend)[0])
        for name, grad in grads.items():
            assert grad.isfinite().all(), (backend, name)
        for name in ("means", "quats", "scales", "opacities", "colors"):
            assert (grads[name][:6] == 0).all(), (backend, name)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_empty_scenes_show_the_background(backend):
    background = torch.tensor([[0.2, 0.4, 0.6]])
    image, alphas, _ = rasterize(
        torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3),
        torch.eye(4)[None], torch.eye(3)[None], 5, 3, backgrounds=background, backend=backend,
    )  # fmt: skip
    assert image.shape == (1, 3, 5, 3) and (alphas == 0).all()
    assert torch.equal(image, background.expand(3, 5, 3)[None])


def test_meta_is_gsplats(random_scene):
    scene = {k: v.float() for k, v in random_scene(26).items()}
    scene["means"].requires_grad_()
    image, alphas, meta = rasterization(**scene, width=WIDTH, height=HEIGHT, tile_size=16)
    assert image.shape == (2, HEIGHT, WIDTH, 3) and alphas.shape == (2, HEIGHT, WIDTH, 1)
    shapes = {"means2d": (2, 60, 2), "radii": (2, 60, 2), "depths": (2, 60)}
    shapes |= {"conics": (2, 60, 3), "opacities": (2, 60)}
    for name, shape in shapes.items():
        assert meta[name].shape == shape, name
    numbers = ("width", "height", "n_cameras", "tile_size", "tile_width", "tile_height")
    assert [meta[k] for k in numbers] == [WIDTH, HEIGHT, 2, 16, 3, 2]
    assert meta["radii"].dtype == torch.int32
    meta["means2d"].retain_grad()
    image.sum().backward()
    assert meta["means2d"].grad.abs().sum() > 0


def test_the_signature_is_gsplats():
    gsplat = import_or_skip("gsplat.rendering")
    ours = inspect.signature(rasterization).parameters
    theirs = inspect.signature(gsplat.rasterization).parameters
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        if name != "rolling_shutter":  # an enum of gsplat's, which we do not import
            assert ours[name].default == parameter.default, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("covars", torch.zeros(60, 3, 3)),
        ("camera_model", "fisheye"),
        ("with_ut", True),
        ("with_eval3d", True),
        ("sparse_grad", True),
        ("distributed", True),
        ("radial_coeffs", torch.zeros(2, 6)),
        ("viewmats_rs", torch.zeros(2, 4, 4)),
        ("rolling_shutter", "ROLLING_TOP_TO_BOTTOM"),
        ("sh_degree", 4),
    ],
)
def test_what_is_not_supported_is_named(random_scene, name, value):
    scene = {k: v.float() for k, v in random_scene(27, sh_degree=3).items()}
    with pytest.raises(UnsupportedArgumentError, match=name):
        rasterization(**scene, width=WIDTH, height=HEIGHT, **{name: value})


def test_arguments_that_change_nothing_are_accepted(random_scene):
    scene = {k: v.float() for k, v in random_scene(27).items()}
    a = rasterization(**scene, width=WIDTH, height=HEIGHT)[0]
    b = rasterization(
        **scene, width=WIDTH, height=HEIGHT, packed=False, tile_size=8, channel_chunk=4,
        segmented=True, camera_model="pinhole", sparse_grad=False,
    )[0]  # fmt: skip
    assert torch.equal(a, b)
    gsplat = import_or_skip("gsplat")
    shutter = gsplat.cuda._wrapper.RollingShutterType.GLOBAL
    c = rasterization(**scene, width=WIDTH, height=HEIGHT, rolling_shutter=shutter)[0]
    assert torch.equal(a, c)


def test_wrong_values_are_refused_by_name(random_scene):
    scene = {k: v.float() for k, v in random_scene(28).items()}
    wrong = {
        "colors": torch.zeros(59, 3),
        "backgrounds": torch.zeros(2, 4),
        "scales": scene["scales"].double(),
    }
    for name, value in wrong.items():
        with pytest.raises(Scene4dError, match=name):
            rasterize(**{**scene, name: value}, width=WIDTH, height=HEIGHT)
    with pytest.raises(Scene4dError, match="at least 1"):
        rasterize(**scene, width=0, height=HEIGHT)
    doubles = {k: v.double() for k, v in scene.items()}
    with pytest.raises(Scene4dError, match="float32"):
        rasterize(**doubles, width=WIDTH, height=HEIGHT)


def test_numba_draws_real_points_like_the_reference(shared_data):
    """138,766 COLMAP points of the garden scene in one of its cameras, a sixteenth of the size."""
    with np.load(shared_data / "garden_points" / "test_garden.npz") as data:
        arrays = {k: torch.from_numpy(data[k]) for k in ("means3d", "colors", "viewmats", "Ks")}
        width, height = int(data["width"]), int(data["height"])
    w, h = width // 16, height // 16
    scale = torch.tensor([w / width, h / height, 1.0])
    g = torch.Generator().manual_seed(0)
    n = len(arrays["means3d"])
    scene = {
        "means": arrays["means3d"].float(),
        "quats": torch.randn(n, 4, generator=g),
        "scales": 0.005 + 0.03 * torch.rand(n, 3, generator=g),
        "opacities": 0.1 + 0.8 * torch.rand(n, generator=g),
        "colors": arrays["colors"].float() / 255,
        "viewmats": arrays["viewmats"][1:2].float(),
        "Ks": arrays["Ks"][1:2].float() * scale[:, None],
    }
    got, alphas, _ = rasterization(**scene, width=w, height=h)
    exact = {k: v.double() for k, v in scene.items()}
    want, expected, _ = rasterize(**exact, width=w, height=h, backend="reference")
    assert 0.3 < alphas.mean() < 1
    for a, b in ((got, want), (alphas, expected)):
        off = (a.double() - b).abs()
        # Rounding at a cut flips a Gaussian of alpha 1/255 now and then, elsewhere 1e-5 holds.
        assert (off > 1e-5).double().mean() < 0.02
        assert off.max() < 2.5 / 255


def test_back_ends_are_probed_with_reasons():
    statuses = {s.name: s for s in backends.probe_backends()}
    assert statuses["numba"].available and statuses["reference"].available
    assert all(s.reason for s in statuses.values())
    assert statuses["gsplat"].available == (gsplat_unavailable_reason() is None)
    if not torch.cuda.is_available():
        assert "cuda" in statuses["gsplat"].reason.lower()


def test_the_choice_of_back_end_is_said_once(caplog):
    backends._announced.cache_clear()
    with caplog.at_level(logging.INFO, logger="scene4d"):
        assert backends.choose_backend("cpu") == "numba"
        assert backends.choose_backend(torch.device("cpu")) == "numba"
    assert [r.message for r in caplog.records] == ["splat rasteriser on cpu: numba"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_gsplat_without_a_gpu_says_why(random_scene):
    scene = {k: v.float() for k, v in random_scene(29).items()}
    with pytest.raises(Scene4dError, match="is_available"):
        rasterize(**scene, width=WIDTH, height=HEIGHT, backend="gsplat")
