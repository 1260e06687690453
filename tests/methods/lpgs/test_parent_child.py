"""Parent/child splats: what unpacking keeps, quantisers as mathematics, masks, families."""

import math
from dataclasses import replace

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.methods.lpgs.attributes import own_inputs
from scene4d.methods.lpgs.parent_child import START_STEPS, ParentChildSplats
from scene4d.methods.lpgs.quantisers import Quantiser
from scene4d.methods.lpgs.seeds import parents_of
from scene4d.methods.lpgs.settings import Settings
from scene4d.methods.lpgs.smallest_turn import smallest_turn
from scene4d.methods.lpgs.structure import CODED, Structure
from scene4d.rendering.fields.hash_grid import GridShape
from scene4d.representations.blending_weights import largest_weights
from scene4d.representations.gaussians import GaussianSplats

GRID = GridShape.growing(levels=3, features=2, coarsest=2, finest=16, max_rows=200)
PLAIN = Structure(
    num_children=0, sh_degree=1, grid=None, hidden=16, attention=True, contraction=True,
    centre=(0.5, 0.0, -0.5), radius=2.0, position_bits=14,
)  # fmt: skip
STRUCTURES = {
    "parents": PLAIN,
    "grid": replace(PLAIN, grid=GRID),
    "children": replace(PLAIN, num_children=3),
    "families": replace(PLAIN, num_children=3, grid=GRID),
    "box": replace(PLAIN, num_children=1, grid=GRID, contraction=False, attention=False),
}
NEVER = 2.0
"""A share of training that is not reached."""


def splats(count=80, *, seed=0, degree=1):
    g = torch.Generator().manual_seed(seed)
    return GaussianSplats(
        {
            "means": torch.randn(count, 3, generator=g),
            "quats": torch.randn(count, 4, generator=g),
            "scales": torch.randn(count, 3, generator=g) * 0.5 - 2,
            "opacities": torch.randn(count, generator=g) * 2,
            "sh0": torch.randn(count, 1, 3, generator=g),
            "shN": torch.randn(count, (degree + 1) ** 2 - 1, 3, generator=g) * 0.3,
        }
    )


def camera(size=40, distance=6.0):
    c2w = torch.eye(4)
    c2w[2, 3] = distance
    focal = 1.2 * size
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=size, height=size)


def built(structure, *, count=80, seed=1, **settings):
    generator = torch.Generator().manual_seed(seed)
    return ParentChildSplats.from_splats(
        splats(count), structure, Settings(**settings), generator=generator
    )


def trained(structure, *, count=80, **settings):
    """A scene whose network and grid say something."""
    scene = built(structure, count=count, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in scene.named_parameters():
            if name.startswith(("network", "grid")):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return scene


def covariances(quats, stds):
    rotation = rotation_from_quat(quats)
    return rotation @ torch.diag_embed(stds**2) @ rotation.mT


# What an untrained scene looks like


@pytest.mark.parametrize("name", STRUCTURES)
def test_an_untrained_scene_looks_like_its_teacher(name):
    """Before rounding, and with parents alone, nothing is lost."""
    scene = built(STRUCTURES[name], warm_up=NEVER, quantise_at=NEVER)
    got, want = scene.render(camera()), splats().render(camera())
    # float32: other axes of the same Gaussians, a logit there and back.
    torch.testing.assert_close(got.rgb, want.rgb, rtol=0, atol=1e-4)
    torch.testing.assert_close(got.alpha, want.alpha, rtol=0, atol=1e-4)


def test_bands_that_the_teacher_does_not_show_are_not_taken_over():
    teacher = splats()
    teacher.active_sh_degree = 0
    scene = ParentChildSplats.from_splats(teacher, PLAIN, Settings(quantise_at=NEVER))
    got, want = scene.render(camera()), teacher.render(camera())
    torch.testing.assert_close(got.rgb, want.rgb, rtol=0, atol=1e-4)  # float32


def test_shares_of_the_pictures_sum_to_their_alphas():
    """A pixel's blending weights sum to its alpha, whatever the colours."""
    teacher, cameras = splats(), [camera(), camera(30, 4.0)]
    shares = largest_weights(teacher, cameras)
    with torch.no_grad():
        want = sum(teacher.render(c).alpha.sum() for c in cameras)
    torch.testing.assert_close(shares.sum(), want, rtol=1e-4, atol=0)  # float32 sums of 1e3 terms


def test_what_is_hidden_or_out_of_sight_is_dropped_first():
    """Row 0 is a wall before row 1, row 2 is behind the camera."""
    teacher = splats(3)
    with torch.no_grad():
        teacher.gaussians["means"].copy_(torch.tensor([[0.0, 0, 2], [0, 0, 0], [0, 0, 20]]))
        teacher.gaussians["scales"].fill_(0.0)
        teacher.gaussians["opacities"].fill_(9.0)
    shares = largest_weights(teacher, [camera()])
    # The wall is a Gaussian, too: around its middle something shows.
    assert shares[0] > 5 * shares[1] > 0 and shares[2] == 0
    keep = parents_of(teacher, PLAIN, [camera()])["keep"]
    assert keep.argsort(descending=True).tolist() == [0, 1, 2]


def test_rounding_keeps_every_value_within_half_a_step():
    scene = built(PLAIN)
    unpacked = scene.unpack().tensors
    for name in CODED:
        if name in ("opacities", "rotations"):
            continue
        got = unpacked[name].reshape(len(scene.means), -1)
        error = (got - scene.gaussians[name].reshape(got.shape)).abs()
        # A float32 of size 10 is off by 1e-6.
        assert error.max() <= START_STEPS[name] / 2 + 2e-6, name
    turned = (unpacked["quats"][:, 1:] - scene.gaussians["rotations"]).abs()
    assert turned.max() <= START_STEPS["rotations"] / 2 + 2e-6


def test_rounded_places_are_stable_and_near():
    """Half a cell of the cube is 2 radii / 2^bits wide in each axis where space is as it is."""
    scene = built(PLAIN)
    unpacked = scene.unpack()
    moved = (unpacked.tensors["means"] - scene.means).abs()
    inside = (scene.means - torch.tensor(PLAIN.centre)).norm(dim=-1) < PLAIN.radius - 0.01
    assert inside.sum() > 20
    assert moved[inside].max() <= 2 * PLAIN.radius / 2**14 * 1.01 + 1e-6
    with torch.no_grad():
        scene.gaussians["means"].copy_(unpacked.tensors["means"])
    again = scene.unpack().tensors["means"]
    # Centres of cells stay in their cells; float32 there and back.
    torch.testing.assert_close(again, unpacked.tensors["means"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("bits", [8, 14, 20])
def test_gaussians_however_far_away_stay_where_they_are_seen(bits):
    """The contracted space ends in a sphere; cells at its surface have their centres beyond it."""
    structure = replace(PLAIN, position_bits=bits)
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    far = splats(300)
    with torch.no_grad():
        far.gaussians["means"].copy_(directions * torch.logspace(0, 12, 300)[:, None])
    scene = ParentChildSplats.from_splats(far, structure)
    local = (scene.unpack().tensors["means"] - torch.tensor(PLAIN.centre)) / PLAIN.radius
    assert local.isfinite().all()
    before = (far.means - torch.tensor(PLAIN.centre)) / PLAIN.radius
    seen = torch.nn.functional.cosine_similarity(local, before)
    # A cell is 4 / 2^bits wide at a distance of at least 1/2 (4 / 2 of the shell).
    cells = local.norm(dim=-1) > 1
    assert seen[cells].min() > math.cos(4 / 2**bits * math.sqrt(3)) - 1e-6
    assert scene.cells(scene.means).min() >= 0
    assert scene.cells(scene.means).max() < 2**bits


# smallest_turn


def test_the_smallest_turn_describes_the_same_gaussians():
    g = torch.Generator().manual_seed(3)
    quats = torch.randn(20_000, 4, generator=g, dtype=torch.float64)
    stds = torch.rand(20_000, 3, generator=g, dtype=torch.float64) + 0.01
    vectors, order = smallest_turn(quats)
    assert vectors.dtype == torch.float64
    quat = torch.cat([torch.ones_like(vectors[:, :1]), vectors], dim=1)
    # The table of 24 turns is float32: its 1/sqrt(2) is off by 1e-8.
    torch.testing.assert_close(
        covariances(quat, stds.gather(1, order)), covariances(quats, stds), rtol=0, atol=1e-7
    )


def test_the_smallest_turn_is_at_most_63_degrees():
    """Largest angle to the nearest of the cube's turns: tan(a / 2) = sqrt(23 - 16 sqrt 2), at a =
    62.8 degrees (Mackenzie 1958)."""
    quats = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(4))
    lengths = smallest_turn(quats)[0].norm(dim=-1)
    assert lengths.max() <= math.sqrt(23 - 16 * math.sqrt(2)) + 1e-5  # float32
    assert lengths.max() > 0.55  # the bound is nearly reached, so it is about this quantity


@pytest.mark.parametrize(
    "quat",
    [
        [1.0, 0, 0, 0],
        [-1.0, 0, 0, 0],
        [0, 1.0, 0, 0],
        [0, 0, 1.0, 0],
        [0, 0, 0, 1.0],
        [0, 0.6, 0.8, 0],
        [1e-30, 0, 0, 0],
        [1e-20, 1e-20, 0, 0],
        [0, 0, 3e-25, 1e-25],
        [0.0, 0, 0, 0],
        [1e20, 2e20, 0, 0],
    ],
)
def test_the_smallest_turn_of_special_quaternions(quat):
    quats, stds = torch.tensor([quat]), torch.tensor([[0.1, 0.2, 0.4]])
    vectors, order = smallest_turn(quats)
    assert vectors.isfinite().all()
    assert sorted(order[0].tolist()) == [0, 1, 2]
    largest = max(abs(v) for v in quat) or 1.0
    expected = covariances(quats / largest, stds)
    found = covariances(torch.cat([torch.ones(1, 1), vectors], dim=1), stds.gather(1, order))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # float32


# Quantisers


def test_a_quantiser_rounds_to_its_steps_and_passes_gradients_straight_through():
    g = torch.Generator().manual_seed(5)
    quantiser = Quantiser(3, 0.1)
    with torch.no_grad():
        quantiser.log_step += torch.tensor([0.0, 0.7, -0.4])
    values = torch.randn(500, 3, generator=g, requires_grad=True)
    rounded = quantiser(values)
    step = quantiser.step.detach()
    assert ((rounded - values).abs() <= step / 2 * (1 + 1e-4)).all()  # float32
    torch.testing.assert_close(rounded, quantiser.codes(values) * step, rtol=1e-6, atol=1e-7)
    weights = torch.randn(500, 3, generator=g)
    (rounded * weights).sum().backward()
    torch.testing.assert_close(values.grad, weights, rtol=1e-5, atol=1e-6)


def test_a_quantisers_step_learns_from_the_rounding_error():
    """LSQ (Esser et al. 2020, eq. 3): d out / d step = round(v / step) - v / step."""
    g = torch.Generator().manual_seed(6)
    quantiser = Quantiser(2, 0.25)
    values, weights = torch.randn(300, 2, generator=g), torch.randn(300, 2, generator=g)
    (quantiser(values) * weights).sum().backward()
    scaled = values.double() / quantiser.step.detach().double()
    by_hand = (weights.double() * (scaled.round() - scaled)).sum(0) * 0.25  # d step / d log step
    torch.testing.assert_close(quantiser.log_step.grad.double(), by_hand, rtol=1e-4, atol=1e-4)


def fitted_quantiser(place, width):
    quantiser = Quantiser(1, 0.5)
    with torch.no_grad():
        quantiser.place.fill_(place)
        quantiser.log_width.fill_(math.log(width))
    return quantiser


@pytest.mark.parametrize(("place", "width"), [(0.0, 1.0), (0.3, 0.2), (-4.7, 3.0), (100.0, 25.0)])
def test_bits_are_those_of_a_discretised_logistic_distribution(place, width):
    quantiser = fitted_quantiser(place, width)
    codes = torch.arange(-2000, 2001).float()[:, None] + round(place)
    bits = quantiser.bits(codes * 0.5).detach().double()

    def cdf(x):
        return torch.sigmoid((x.double() - place) / width)

    # Differences of the left tails, where float64 does not cancel.
    offset = codes[:, 0].double() - place
    left = -offset.abs() + place
    expected = -(cdf(left + 0.5) - cdf(left - 0.5)).clamp_min(2.0**-16).log2()
    torch.testing.assert_close(bits, expected, rtol=0, atol=2e-3)  # float32 of 1 part in 1000
    probable = expected < 15.9
    # The tails below 2^-16 are cut: at most some codes' worth on either side.
    assert float((2.0 ** -bits[probable]).sum()) == pytest.approx(1.0, abs=2e-3 * (1 + width / 4))


def test_bits_far_out_are_finite_and_so_are_their_gradients():
    quantiser = Quantiser(3, 0.1)
    values = torch.tensor([[0.0, 1e4, -1e9], [1e-9, 1e30, 3.0]], requires_grad=True)
    bits = quantiser.bits(values)
    bits.sum().backward()
    assert bits.isfinite().all()
    assert bits.max() <= 3 * 16
    for tensor in (values, *quantiser.parameters()):
        assert tensor.grad.isfinite().all()


def test_bits_have_their_gradients():
    quantiser = Quantiser(2, 0.4).double()
    values = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    parameters = (quantiser.log_step, quantiser.place, quantiser.log_width)
    with torch.no_grad():
        quantiser.place += 0.1
    assert torch.autograd.gradcheck(
        lambda v, *_: quantiser.bits(v), (values.requires_grad_(), *parameters)
    )


def test_fitting_finds_place_and_width_of_logistic_values():
    uniform = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(8)).clamp(
        1e-6, 1 - 1e-6
    )
    quantiser = Quantiser(1, 0.5)
    quantiser.fit((torch.logit(uniform) * 3.0 + 7.0) * 0.5)
    # The median of n logistic values spreads by 2 widths / sqrt(n) = 0.013; so does their mean.
    assert float(quantiser.place.detach()) == pytest.approx(7.0, abs=0.05)
    assert float(quantiser.log_width.detach().exp()) == pytest.approx(3.0, rel=0.01)
    before = [p.clone() for p in quantiser.parameters()]
    quantiser.fit(torch.zeros(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(before, quantiser.parameters(), strict=True))


# Masks


def test_masked_parents_are_not_drawn_and_masks_that_are_on_change_nothing():
    scene = built(PLAIN, quantise_at=NEVER)
    whole = scene.render(camera()).rgb
    with torch.no_grad():
        scene.gaussians["keep"].fill_(0.01)
    torch.testing.assert_close(scene.render(camera()).rgb, whole, rtol=0, atol=0)
    with torch.no_grad():
        scene.gaussians["keep"][::2] = -0.01
    half = splats()
    remaining = {k: v.detach()[1::2] for k, v in half.gaussians.items()}
    want = GaussianSplats(remaining).render(camera()).rgb
    torch.testing.assert_close(scene.render(camera()).rgb, want, rtol=0, atol=1e-4)  # float32
    assert scene.describe() == {"num_gaussians": 40, "num_parents": 40}


def test_a_masks_gradient_is_the_sigmoids():
    """On, from the picture (a mask multiplies the opacity); off, from the size alone."""
    scene = built(PLAIN)
    with torch.no_grad():
        scene.gaussians["keep"][0] = -0.5
    keep = scene.gaussians["keep"]
    slope = keep.detach().sigmoid() * (1 - keep.detach().sigmoid())
    unpacked = scene.unpack()
    (grad,) = torch.autograd.grad(unpacked.tensors["alphas"].sum(), [keep])
    expected = unpacked.tensors["alphas"].detach() * slope[1:]
    torch.testing.assert_close(grad[1:], expected)
    assert grad[0] == 0
    scene._rate_turn = 0  # looks at every 4th parent, from the first on
    (grad,) = torch.autograd.grad(scene.estimated_bytes(), [keep])
    bits = sum(scene._quantiser(n).bits(scene._flat(n)[:1]) for n in CODED)
    kept = 79
    place = 3 * 14 - (math.log2(kept) - 1.44)
    assert float(grad[0]) == pytest.approx(
        float((slope[0] * (bits + place)).detach()) * 80 / 20 / 8, rel=1e-5
    )  # float32


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_size_of_few_parents_is_a_number(count):
    scene = built(PLAIN, count=count)
    sizes = [float(scene.estimated_bytes().detach()) for _ in range(5)]
    assert all(math.isfinite(size) and size > 0 for size in sizes)


# Families


def test_one_parent_has_its_children():
    scene = trained(STRUCTURES["children"], count=1)
    assert scene.describe() == {"num_gaussians": 4, "num_parents": 1}
    unpacked = scene.unpack()
    assert unpacked.parent.tolist() == [0, 0, 0, 0]
    assert unpacked.child.tolist() == [-1, 0, 1, 2]
    assert scene.unpacked_splats().num_gaussians == 4


def test_children_start_near_their_parent_small_and_faint():
    scene = built(STRUCTURES["families"], quantise_at=NEVER)
    t, parent, child = (lambda u: (u.tensors, u.parent, u.child))(scene.unpack())
    kids = child >= 0
    away = (t["means"][kids] - scene.means[parent[kids]]).norm(dim=-1)
    assert (away < 2 * scene.stds[parent[kids]].max(dim=-1).values).all()
    assert (t["alphas"][kids] < scene.alphas[parent[kids]]).all()
    assert (t["scales"][kids].mean(1) < scene.gaussians["scales"][parent[kids]].mean(1)).all()


def test_children_lie_along_their_parents_turned_axes():
    """place = parent + R S offset, by matrices."""
    scene = trained(STRUCTURES["children"], quantise_at=NEVER)
    unpacked = scene.unpack()
    offsets = scene.network.offsets(
        scene.network.tokens(_own(scene), None)
    )[unpacked.parent[80:], unpacked.child[80:]]  # fmt: skip
    parent = unpacked.parent[80:]
    rotation = rotation_from_quat(scene.quats[parent])
    moved = (rotation @ (scene.stds[parent] * offsets)[..., None])[..., 0]
    expected = scene.means[parent] + moved
    torch.testing.assert_close(unpacked.tensors["means"][80:], expected, rtol=0, atol=1e-5)


def _own(scene):
    return own_inputs({name: scene._flat(name) for name in CODED}, scene.structure)


def test_the_dead_take_part_in_nothing():
    """Whatever a dead child would be (its place changes with the weights that make it), the
    living look the same; and a living one's place does matter to its family."""
    scene = trained(STRUCTURES["families"])
    place = scene.network.place

    def unpacked(dead, moved):
        with torch.no_grad():
            scene.gaussians["keep_children"].fill_(1.0)
            scene.gaussians["keep_children"][:, dead] = -1.0
            before = place.bias.clone()
            place.bias[3 * moved : 3 * moved + 3] += 5.0
            after = scene.unpack()
            place.bias.copy_(before)
            return scene.unpack(), after

    before, after = unpacked(dead=1, moved=1)
    assert (before.child != 1).all()
    for name, value in before.tensors.items():
        torch.testing.assert_close(after.tensors[name], value, rtol=0, atol=0)
    before, after = unpacked(dead=1, moved=2)
    others = before.child != 2
    assert not torch.equal(before.tensors["sh0"][others], after.tensors["sh0"][others])


def test_a_family_looks_the_same_whoever_else_there_is():
    """Parents whose children are all dead are corrected alike, also where nobody has children."""
    scene = trained(STRUCTURES["families"])
    with torch.no_grad():
        scene.gaussians["keep_children"][:-1] = -1.0
    some = scene.unpack()
    with torch.no_grad():
        scene.gaussians["keep_children"][-1] = -1.0
    nobody = scene.unpack()
    assert len(nobody.parent) == 80
    for name in ("scales", "quats", "alphas", "sh0", "shN"):
        # float32 sums of other shapes
        torch.testing.assert_close(
            nobody.tensors[name][:79], some.tensors[name][:79], rtol=0, atol=1e-5
        )


def test_no_child_appears_during_warm_up():
    scene = trained(STRUCTURES["families"], warm_up=0.4)
    scene.on_progress(0.39)
    assert scene.describe()["num_gaussians"] == len(scene.unpack().parent) == 80
    scene.on_progress(0.4)
    assert scene.describe()["num_gaussians"] == len(scene.unpack().parent) == 320


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradients_reach_everything_that_is_drawn(name):
    scene = trained(STRUCTURES[name])
    render = scene.render(camera())
    (render.rgb.square().sum() + 1e-3 * scene.estimated_bytes()).backward()
    for parameter_name, parameter in scene.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.any(), parameter_name


# Keeping


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_saved_scene_is_the_same_bit_for_bit(name):
    import json

    groups = ("means", *CODED, "keep", "keep_children", "quantisers", "grid", "network")
    rates = dict.fromkeys(groups, 1e-3)
    scene = trained(STRUCTURES[name], learning_rates=rates, extent=1.5, warm_up=0.2)
    with torch.no_grad():
        scene.gaussians["keep"][::5] = -1.0
    scene.coder_ratio = 1.07
    scene.estimated_bytes()  # the next estimate looks at other parents
    plain = json.loads(json.dumps(dict(scene.plain_data())))
    again = ParentChildSplats.from_saved(scene.state_dict(), plain)
    assert torch.equal(again.render(camera()).rgb, scene.render(camera()).rgb)
    assert torch.equal(again.estimated_bytes(), scene.estimated_bytes())
    assert again.plain_data() == scene.plain_data()
    assert again.describe() == scene.describe()
    assert again.structure == scene.structure


def test_plain_splats_look_like_the_scene_they_come_from():
    scene = trained(STRUCTURES["families"])
    got, want = scene.unpacked_splats().render(camera()).rgb, scene.render(camera()).rgb
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)  # a float32 logit there and back
