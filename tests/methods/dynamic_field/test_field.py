"""The static + dynamic field: the contract, its parts, times, and that it learns what moves."""

import math
from dataclasses import replace

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError, UsageError
from scene4d.methods.dynamic_field.field import (
    RAYS_AT_ONCE,
    DynamicField,
    Settings,
    dynamic_share,
)
from scene4d.methods.dynamic_field.method import DynamicFieldMethod
from scene4d.methods.dynamic_field.parts import PlainGrid
from scene4d.methods.dynamic_field.place import Place
from scene4d.rendering.fields.occupancy import DYNAMIC, STATIC
from scene4d.rendering.render import Want
from scene4d.representations.contract import check_representation

PLACE = Place(
    centre=(0.5, -1.0, 2.0), radius=2.0, near=0.05, far=6.0, uniform_to=3.0, start_s=1.0,
    duration_s=4.0,
)  # fmt: skip
SETTINGS = Settings(
    place=PLACE,
    static_grid=PlainGrid(resolutions=(4, 9), rows=(125, 256), features=2),
    dynamic_grid=PlainGrid(resolutions=(3, 6), rows=(48, 128), features=2, last_resolutions=(2, 4)),
    neurons=16,
    view_degree=1,
    appearance=0,
    times=5,
    march_steps=48,
    cells=8,
    static_until=0.2,
    rays=64,
    pictures=4,
    grid_lr=0.02,
    network_lr=0.01,
    dynamic_network_lr=0.001,
)


def camera_at(time=2.0, *, size=12):
    """Outside of the ball, looking at its centre."""
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([0.5, -1.0, 7.0])
    K = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=size, height=size, time=torch.tensor(time))


def a_field(settings=SETTINGS, *, looked=True, strength=1.0):
    """A field of something: tables large enough that both media show structure."""
    field = DynamicField(settings, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in (field.static, field.dynamic):
            part.grids.table.copy_(
                strength * torch.randn(part.grids.table.shape,
                                       generator=torch.Generator().manual_seed(1))
            )  # fmt: skip
    # Nothing is left out: the picture would jump where a sample enters a cell that counts as empty,
    # by what a cell may hold (a step's alpha of 0.003), and the pose's slope with it.
    field.occupancy.least = 1e-4
    if looked:
        generator = torch.Generator().manual_seed(2)
        for medium in [STATIC, DYNAMIC] * 6:  # until there is none that nobody looked at
            field.look(medium, share=1.0, decay=1.0, generator=generator)
    return field


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("progress", [None, 0.1, 0.37, 1.0])
def test_the_contract_holds(looked, progress):
    """Also of what was saved before the dynamic part took part."""
    field = a_field(looked=looked, strength=0.5)
    if progress is not None:
        field.on_progress(progress)
    check_representation(field, camera_at(size=16), distance=5.0)


def test_samples_move_from_step_to_step_of_training_alone():
    field = a_field()
    still = field.render(camera_at()).rgb
    for progress in (0.37, 0.38):
        field.on_progress(progress)
        moved = field.render(camera_at()).rgb
        assert not torch.equal(moved, still)
        field.on_progress(progress)
        assert torch.equal(field.render(camera_at()).rgb, moved)
    assert torch.equal(field.eval().render(camera_at()).rgb, still)


def test_rays_are_cameras_of_one_pixel():
    field, camera = a_field(), camera_at()
    whole = field.render(camera, want=Want(depth=True, parts=("static", "dynamic")))
    x, y = torch.tensor([0, 5, 11, 7]), torch.tensor([3, 5, 0, 11])
    cameras = replace(
        camera,
        c2w=camera.c2w.expand(4, 4, 4),
        K=camera.K.expand(4, 3, 3),
        time=camera.time.expand(4),
    ).cropped(x, y, 1, 1)
    rays = field.render(cameras, want=Want(depth=True, parts=("static", "dynamic")))
    assert rays.rgb.shape == (4, 1, 1, 3) and rays.depth.shape == (4, 1, 1)
    for got, expected in (
        (rays.rgb, whole.rgb), (rays.depth, whole.depth),
        (rays.parts["dynamic"].rgb, whole.parts["dynamic"].rgb),
    ):  # fmt: skip
        torch.testing.assert_close(got[:, 0, 0], expected[y, x], rtol=0, atol=1e-5)


def test_pictures_of_more_than_one_chunk_are_those_of_their_crops_with_gradients(monkeypatch):
    """More than one chunk is rendered again on the way back: the same gradients, less memory."""
    field, camera = a_field(), camera_at()
    assert RAYS_AT_ONCE >= 1024
    gradients = []
    for at_once in (10_000, 50):
        monkeypatch.setattr("scene4d.methods.dynamic_field.field.RAYS_AT_ONCE", at_once)
        render = field.render(camera)
        parts = render.extras["samples"]
        assert len(parts) == -(-144 // at_once)
        loss = render.rgb.square().mean() + sum(p.density.sum() for p in parts) * 1e-3
        gradients.append(torch.autograd.grad(loss, list(field.parameters()), allow_unused=True))
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-3, atol=1e-6)  # order of float32 sums


def test_the_whole_is_the_sum_of_its_parts_where_one_is_empty():
    """And each part is the field alone: without the other, the whole picture is it."""
    field, camera = a_field(), camera_at()
    parts = field.render(camera, want=Want(parts=("static", "dynamic"))).parts
    assert set(parts) == {"static", "dynamic"}
    for name, other in (("static", "dynamic"), ("dynamic", "static")):
        alone = a_field()
        getattr(alone, other).first_log_density = -40.0
        got = alone.render(camera)
        torch.testing.assert_close(got.rgb, parts[name].rgb, rtol=0, atol=1e-5)
        torch.testing.assert_close(got.alpha, parts[name].alpha, rtol=0, atol=1e-5)


def constant(field, *, static, dynamic):
    """Both fields the same everywhere: no features, so densities as before training, grey."""
    with torch.no_grad():
        for part, density in ((field.static, static), (field.dynamic, dynamic)):
            part.grids.table.zero_()
            part.colour_network.weights[-1].zero_()
            part.first_log_density = math.log(density)
    field.occupancy.dynamic.fill_(1.0)
    return field


def test_fog_of_constant_density_in_closed_form():
    """exp(-(sum of densities) times length); grey; the expected depth of an exponential."""
    field = constant(a_field(looked=False), static=0.3, dynamic=0.2)
    render = field.render(camera_at(), want=Want(depth=True, parts=("static", "dynamic")))
    length = PLACE.far - PLACE.near
    alpha = -math.expm1(-0.5 * length)
    torch.testing.assert_close(render.alpha, torch.full((12, 12), alpha), rtol=1e-5, atol=0)
    torch.testing.assert_close(render.rgb, torch.full((12, 12, 3), alpha / 2), rtol=1e-5, atol=0)
    for name, density in (("static", 0.3), ("dynamic", 0.2)):
        expected = torch.full((12, 12), -math.expm1(-density * length))
        torch.testing.assert_close(render.parts[name].alpha, expected, rtol=1e-5, atol=0)
    mean = PLACE.near + 2 - length / math.expm1(0.5 * length)  # of exp(-t/2)/2 on the ray
    middle = float(render.depth[5:7, 5:7].mean().detach())
    # Samples at the middles of 48 steps: second order in them
    assert middle == pytest.approx(mean * PLACE.radius, rel=0.005)


def test_only_the_dynamic_part_knows_the_time():
    field = a_field()
    early, late = (
        field.render(camera_at(t), want=Want(parts=("static", "dynamic"))).parts for t in (1.2, 4.8)
    )
    assert torch.equal(early["static"].rgb, late["static"].rgb)
    assert (early["dynamic"].rgb - late["dynamic"].rgb).abs().max() > 0.01
    # Beyond the capture's time stands still what was at its end.
    end, after = (field.render(camera_at(t)).rgb for t in (5.0, 9.0))
    torch.testing.assert_close(end, after)
    start, none = field.render(camera_at(1.0)).rgb, field.render(replace(camera_at(), time=None))
    torch.testing.assert_close(start, none.rgb)


def test_training_starts_with_the_static_part_alone():
    field = a_field()
    field.on_progress(0.1)
    early = field.render(camera_at())
    assert (early.extras["samples"][0].density[:, 1] == 0).all()
    field.on_progress(0.2)
    assert (field.render(camera_at()).extras["samples"][0].density[:, 1] > 0).any()


def test_the_code_of_a_time_counts_in_training_alone():
    field = a_field(replace(SETTINGS, appearance=3))
    field.seconds.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    plain = field.render(camera_at(2.0)).rgb
    with torch.no_grad():
        field.codes[1] = 3.0
    assert torch.equal(field.render(camera_at(2.0)).rgb, plain)
    field.on_progress(1.0)
    assert torch.equal(field.render(camera_at(2.0)).rgb, plain)
    field.on_progress(0.5)
    coded = field.render(camera_at(2.0))
    coded.rgb.sum().backward()
    assert field.codes.grad[1].any() and not field.codes.grad[[0, 2, 3, 4]].any()
    assert not torch.equal(coded.rgb, plain)


def test_the_dynamic_share_of_nothing_is_none():
    field = a_field(looked=False)
    samples = field.render(camera_at()).extras["samples"][0]
    share = dynamic_share(samples.density)
    assert ((share >= 0) & (share <= 1)).all()
    assert not dynamic_share(torch.zeros(3, 2)).any()


def test_grids_that_no_field_has_are_refused():
    plain = dict(a_field().plain_data())
    plain["static_grid"] = {**plain["static_grid"], "rows": [125, 1 << 26], "features": 64}
    with pytest.raises((DataError, ValueError), match="larger"):
        DynamicField.saved_forms(plain)
    with pytest.raises(UsageError, match="no coarser"):
        DynamicFieldMethod(finest=8, coarsest=16)


def test_shares_are_what_each_part_makes_up_of_a_pixel():
    """Of constant fog: alpha times the part's share of the density, wherever it is."""
    field = constant(a_field(looked=False), static=0.3, dynamic=0.2)
    render = field.render(camera_at(), want=Want(shares=True))
    torch.testing.assert_close(render.shares["dynamic"], 0.4 * render.alpha)
    torch.testing.assert_close(render.shares["static"], 0.6 * render.alpha)
    assert not field.render(camera_at()).shares
    assert set(field.render(camera_at(), want=Want(parts=("dynamic",))).parts) == {"dynamic"}


def test_the_gradients_of_a_field_are_finite_differences():
    """float64, through the definition of the look-up; places away from cells' faces."""
    field = a_field().double()
    places = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    seen = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    parameters = list(field.dynamic.parameters())

    def found(at, *values):
        names = [name for name, _ in field.dynamic.named_parameters()]
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(field.dynamic, changed, (at, seen))

    inputs = (places.requires_grad_(), *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(found, inputs, fast_mode=True)


def test_the_kernels_of_a_field_give_what_its_definition_gives():
    """A whole picture's colours in float32 through the kernels, and in float64 without them."""
    field, places = a_field(), torch.rand(300, 4, generator=torch.Generator().manual_seed(4))
    seen = torch.randn(300, 4, generator=torch.Generator().manual_seed(5))
    fast = field.dynamic(places, seen)
    slow = a_field().double().dynamic(places.double(), seen.double())
    for got, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)  # float32 sums


def test_a_field_that_its_networks_turned_off_can_be_turned_on_by_its_tables():
    """Whatever the networks say: where a density is to grow, each step of the tables makes it."""
    field = a_field(strength=0.01).dynamic
    with torch.no_grad():
        last = field.density_network.weights[-1]
        last[0] = -last[0].abs()  # every unit turns density off
    place = torch.tensor([[0.4, 0.6, 0.5, 0.3]])
    optimiser = torch.optim.Adam([field.grids.table], lr=0.05, eps=1e-15)
    before = float(field.density(place).detach())
    for _ in range(60):
        optimiser.zero_grad()
        (-field.density(place).log().sum()).backward()
        optimiser.step()
    assert float(field.density(place).detach()) > 100 * before


def test_no_visible_part_of_a_field_is_lost_to_the_occupancy_grid():
    """Looked at everywhere, once or with decay since: what is left out of a ray is thinner than
    what counts as there, so the picture is that without a grid but for the sum of up to 48 parts of
    an alpha of 0.003."""
    plain, grid = a_field(looked=False), a_field(looked=False)
    for field in (plain, grid):
        for part in (field.static, field.dynamic):
            part.first_log_density = -7.0  # thin, but for a few places
    grid.occupancy.least = 0.003 / (grid.edges[1] - grid.edges[0])
    generator = torch.Generator().manual_seed(3)
    for medium in (STATIC, DYNAMIC):
        for turn in range(48):
            grid.look(medium, share=0.25, decay=0.9, generator=generator, turn=turn)
    whole, left = plain.render(camera_at()), grid.render(camera_at())
    counts = [r.extras["samples"][0].places.count for r in (whole, left)]
    assert counts[1] < counts[0]
    assert (whole.alpha - left.alpha).abs().max() < 48 * 0.003  # 0.033 here
    assert (whole.rgb - left.rgb).abs().max() < 48 * 0.003
