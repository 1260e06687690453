"""Places of what is seen, for priors of xyz: closed forms, and what is guided."""

import math
from dataclasses import replace

import pytest
import torch
from training.objectives.test_guidance import NEAR, SPHERE, gradients, objective, splats, step_of

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.rays import camera_rays
from scene4d.priors.gaussian import GaussianPrior
from scene4d.rendering.render import DEPTH, Render
from scene4d.representations.task import World
from scene4d.training.objectives.places import place_code, places_seen

pytestmark = pytest.mark.unchecked_shapes


def cameras():
    """Two, turned and moved, with a lens that bends rays."""
    turn = torch.linalg.qr(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    turn = turn * torch.linalg.det(turn)[:, None, None]
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[:, :3, :3], c2w[:, :3, 3] = turn, torch.tensor([[1.0, 2.0, 3.0], [-2.0, 0.0, 1.0]])
    K = torch.tensor([[20.0, 0, 8], [0, 25.0, 6], [0, 0, 1]]).expand(2, 3, 3)
    bent = Distortion("opencv", (-0.1, 0.02, 0.01))
    return Camera(c2w=c2w, K=K, width=16, height=12, distortion=bent)


def render_of(depth, **changes):
    alpha = torch.ones_like(depth)
    return Render(rgb=torch.zeros(*depth.shape, 3), alpha=alpha, depth=depth, **changes)


def test_a_balls_places_lie_on_the_ball():
    """Depth of a ball about each camera is the ray's share along the axis."""
    camera = cameras()
    ahead = -camera.c2w[:, None, None, :3, 2]
    depth = 2.5 * (camera_rays(camera).directions * ahead).sum(dim=-1)
    found = places_seen(render_of(depth), camera, settled=False)
    away = found - camera.c2w[:, None, None, :3, 3]
    # float32
    torch.testing.assert_close(away.norm(dim=-1), torch.full((2, 12, 16), 2.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(away / 2.5, camera_rays(camera).directions, atol=1e-5, rtol=0)


def test_a_planes_places_lie_on_the_plane_and_are_differentiable_in_depth():
    camera = Camera(c2w=torch.eye(4), K=torch.tensor([[20.0, 0, 8], [0, 25, 6], [0, 0, 1]]),
                    width=16, height=12)  # fmt: skip
    depth = torch.full((12, 16), 3.0, requires_grad=True)
    found = places_seen(render_of(depth), camera, settled=False)
    # (x - 8) / 20 * 3, and y upwards
    assert found[0, 0].tolist() == pytest.approx([-7.5 * 3 / 20, 5.5 * 3 / 25, -3.0])
    (slope,) = torch.autograd.grad(found[0, 0].sum(), depth)
    assert float(slope[0, 0]) == pytest.approx(-7.5 / 20 + 5.5 / 25 - 1)
    assert not slope[1:].any()


def test_places_of_the_time_asked_for_go_before_those_of_the_depth():
    camera, depth = cameras(), torch.ones(2, 12, 16)
    there = torch.randn(2, 1, 12, 16, 3, generator=torch.Generator().manual_seed(1))
    render = render_of(depth, positions=there)
    assert torch.equal(places_seen(render, camera, settled=True), there[:, 0])
    moment = places_seen(render_of(depth), camera, settled=True)
    assert torch.equal(moment, places_seen(render, camera, settled=False))


def test_codes_are_bounded_and_half_at_the_extent():
    places = torch.tensor([[0.0, 0, 0], [3, 0, 4], [0, -5e6, 0]])
    found = place_code(places, 5.0)
    assert found[0].tolist() == [0, 0, 0]
    assert found[1].tolist() == pytest.approx([0.3, 0.0, 0.4])
    assert found[2].tolist() == pytest.approx([0, -1, 0], abs=1e-5)


class Notes(GaussianPrior):
    """Keeps what it is shown."""

    def __init__(self, channels=("rgb", "xyz")):
        super().__init__(lambda condition: torch.zeros(()), 0.1, channels=channels)
        self.cameras = []

    def denoise(self, x_t, alpha, sigma, condition=None):
        self.cameras.append(condition.camera)
        return super().denoise(x_t, alpha, sigma, condition)


def test_colour_and_places_of_one_render_are_guided_together_or_apart():
    scene, found = splats(), {}
    for chosen in ("all", "rgb", "xyz"):
        objective(Notes(), options=replace(NEAR, channels=chosen), poses=SPHERE)(step_of(scene))
        found[chosen] = gradients(scene)
    colours = next(n for n in found["all"] if "sh0" in n)
    means = next(n for n in found["all"] if n.endswith("means"))
    assert float(found["xyz"].get(colours, torch.zeros(1)).abs().max()) == 0.0
    assert float(found["xyz"][means].abs().max()) > 0
    both = found["rgb"][means] + found["xyz"][means]
    # sums in another order, of float32
    torch.testing.assert_close(found["all"][means], both, rtol=1e-3, atol=1e-6)


def test_what_the_prior_is_shown_is_the_code_of_what_the_scene_shows():
    scene, prior, world = splats(), Notes(("xyz",)), World(extent=2.0)
    term = objective(prior, poses=SPHERE, world=world, options=replace(NEAR, size=40))
    term(step_of(scene))
    camera = prior.cameras[0]
    render = scene.eval().render(camera, want=DEPTH)
    shown = term._seen_by_prior(render, camera, 1, torch.zeros(3))
    assert shown.shape == (1, 3, 40, 40) and float(shown.detach().norm(dim=1).max()) < 1
    # What is seen lies among the splats: none is further from the origin than so.
    there = render.alpha.detach() > 0.5
    length = shown.detach()[0, :, there].norm(dim=0) / render.alpha.detach()[there]
    away = 2.0 * length / (1 - length)
    reach = float(scene.gaussians["means"].detach().norm(dim=1).max())
    assert there.any() and 0 < float(away.max()) < 1.5 * reach
    assert not shown[0, :, render.alpha == 0].any()


@pytest.mark.parametrize("knows", [True, False])
def test_of_what_moves_the_places_at_the_first_second_are_asked_for(knows):
    """A scene that stands one unit further to the right at the first second than now."""
    asked = []

    class Moving(type(splats())):
        def render(self, camera, *, background=None, want=None):
            asked.append(want.positions_at)
            made = super().render(
                camera, background=background, want=replace(want, positions_at=())
            )
            if not knows:
                return made
            now = places_seen(made, camera, settled=False)
            return replace(made, positions=(now + torch.tensor([1.0, 0.0, 0.0]))[None])

    scene = splats()
    scene.__class__ = Moving
    world = World(times=(3.0, 9.0))
    term = objective(Notes(("xyz",)), poses=SPHERE, world=world)
    term(step_of(scene))
    assert set(asked) == {(3.0,)}
    camera = term.prior.cameras[0]
    with torch.no_grad():
        render = scene.eval().render(camera, want=term._want())
        found = term._seen_by_prior(render, camera, 1, torch.zeros(3))[0, 0]
        plain = places_seen(replace(render, positions=None), camera, settled=False)
        shift = torch.tensor([1.0 if knows else 0.0, 0.0, 0.0])
        wanted = render.alpha * place_code(plain + shift, 1.0)[..., 0]
    torch.testing.assert_close(found, wanted)
    assert math.isfinite(float(found.sum()))
