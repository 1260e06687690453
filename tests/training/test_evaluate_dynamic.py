"""Evaluating a run on a dynamic capture: figures, what follows points, and fitted test poses."""

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.poses import se3_exp
from scene4d.cameras.rays import camera_rays
from scene4d.data.scene import View
from scene4d.evaluation.masked import Regions
from scene4d.evaluation.protocol import DynamicFigures, evaluate
from scene4d.rendering.render import Render
from scene4d.representations.base import Representation
from scene4d.training.evaluate_dynamic import fitted_camera, following, with_fitted_poses

WIDTH, HEIGHT = 40, 32


def camera(c2w=None):
    K = torch.tensor([[30.0, 0, WIDTH / 2], [0, 30.0, HEIGHT / 2], [0, 0, 1]])
    return Camera(c2w=torch.eye(4) if c2w is None else c2w, K=K, width=WIDTH, height=HEIGHT,
                  time=torch.tensor(0.0))  # fmt: skip


class Wall(Representation):
    """A painted plane z = -2 that knows its depth."""

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {}

    @classmethod
    def from_saved(cls, tensors, plain):
        return cls()

    def render(self, camera, *, background=None, want=None):
        rays = camera_rays(camera)
        far = -(rays.origins[..., 2] + 2.0) / rays.directions[..., 2]
        x, y = (rays.origins + far[..., None] * rays.directions)[..., :2].unbind(-1)
        rgb = torch.stack([0.5 + 0.4 * (3 * x).sin(), 0.5 + 0.4 * (4 * y).cos(), 0 * x + 0.3], -1)
        depth = torch.full_like(x, 2.0 + float(camera.position[2].detach()))
        return Render(rgb=rgb, alpha=torch.ones_like(x), depth=depth)


def moved_view():
    """What a camera saw that stood a little elsewhere than the capture says."""
    off = se3_exp(torch.tensor([0.012, -0.008, 0.0, 0.006, 0.004, 0.0]))
    return View(index=0, camera=camera(), rgb=Wall().render(camera(off)).rgb)


def test_a_test_camera_is_fitted_to_its_picture():
    view = moved_view()
    fitted = fitted_camera(Wall(), view, None, None)
    before, after = ((Wall().render(c).rgb - view.rgb).abs().mean() for c in (view.camera, fitted))
    assert after < 0.5 * before
    # nothing to fit to, or nothing better: the camera stays
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    assert fitted_camera(Wall(), view, None, nothing) is view.camera
    right = View(index=0, camera=camera(), rgb=Wall().render(camera()).rgb)
    assert torch.equal(fitted_camera(Wall(), right, None, None).c2w, right.camera.c2w)


def test_figures_with_fitted_poses_stand_beside_the_others():
    everything = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    dynamic = DynamicFigures(regions={0: Regions(covisible=everything)}, results={"flicker": 1.0})
    found = with_fitted_poses(Wall(), [moved_view()], None, dynamic, lpips=False)
    result = evaluate(Wall(), [moved_view()], lpips=False, dynamic=found).results()
    assert result["flicker"] == 1.0
    assert result["mpsnr_fitted"] > result["mpsnr"] + 3
    assert result["psnr_fitted"] > result["psnr"] + 3
    assert "NAME_fitted" in found.metrics and "fps_fitted" not in result


def test_what_knows_no_motion_stays_where_it_is():
    positions = following(Wall(), torch.device("cpu"))(camera(), (0.0, 0.5, 1.0))
    assert positions.shape == (3, HEIGHT, WIDTH, 3)
    assert torch.equal(positions[0], positions[2])
    assert torch.allclose(positions[..., 2], torch.tensor(-2.0))


def test_what_moves_is_asked_for_its_positions():
    there = torch.arange(2 * HEIGHT * WIDTH * 3.0).reshape(2, HEIGHT, WIDTH, 3)

    class Moving(Wall):
        def render(self, camera, *, background=None, want=None):
            assert want.positions_at == (0.25, 0.5)
            plain = super().render(camera)
            return Render(rgb=plain.rgb, alpha=plain.alpha, depth=plain.depth, positions=there)

    assert torch.equal(following(Moving(), torch.device("cpu"))(camera(), (0.25, 0.5)), there)
