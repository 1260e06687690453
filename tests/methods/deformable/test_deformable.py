"""Deformable splats as a representation: what they render at a time, and as plain arrays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from formats.test_moving_splats import random_moving
from methods.lpgs.test_parent_child import camera as static_camera
from scipy.spatial.transform import Rotation

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.moving_splats import MovingSplats
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.rendering.render import Want
from scene4d.representations.contract import check_representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.saved import check_tensors


def camera_at(time: float | None, size: int = 48) -> Camera:
    seconds = None if time is None else torch.tensor(time)
    return replace(static_camera(size), time=seconds)


def compact(*, windows: bool = False) -> MovingSplats:
    """Random moving splats small enough to be seen as a whole, and larger than a pixel."""
    moving = random_moving(windows=windows)
    cloud = moving.cloud
    knots = moving.knots.copy()
    knots[..., 4:] *= 0.1
    cloud = replace(
        cloud,
        means=cloud.means * np.float32(0.2),
        log_scales=np.clip(cloud.log_scales, -3.0, -1.5),
        sh=cloud.sh[:, :4],
    )
    return replace(moving, cloud=cloud, knots=knots)


def test_the_contract_holds_for_it() -> None:
    splats = DeformableSplats.of(compact(windows=True))
    splats.on_progress(0.9)
    check_representation(
        splats, camera_at(0.9, 64), distance=4.0, atol=0.02, pose_rtol=0.2
    )  # tolerances of splatting: tests/representations/test_contract.py


def test_a_batch_of_several_times_is_each_of_them() -> None:
    splats = DeformableSplats.of(compact())
    cameras = [camera_at(time) for time in (0.3, 1.7, 0.3, 0.9)]
    want = Want(depth=True, positions_at=(0.5,), parts=("dynamic",), shares=True)
    with torch.no_grad():
        batch = splats.render(Camera.stack(cameras), want=want, background=torch.ones(3))
        for row, camera in enumerate(cameras):
            alone = splats.render(camera, want=want, background=torch.ones(3))
            for name in ("rgb", "alpha", "depth", "positions"):
                torch.testing.assert_close(
                    getattr(batch, name)[row], getattr(alone, name), atol=1e-5, rtol=1e-4
                )
            assert batch.parts["dynamic"].rgb[row].shape == alone.parts["dynamic"].rgb.shape
            for name, share in alone.shares.items():
                torch.testing.assert_close(batch.shares[name][row], share, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(batch.rgb[0], batch.rgb[1], atol=1e-2)


@pytest.mark.parametrize("windows", [False, True])
def test_it_draws_what_its_plain_arrays_say(windows: bool) -> None:
    moving = compact(windows=windows)
    splats = DeformableSplats.of(moving)
    for time in (0.4, 1.6):
        still = GaussianSplats.of(moving.at(time), extent=splats.extent)
        with torch.no_grad():
            drawn, wanted = (s.render(camera_at(time)).rgb for s in (splats, still))
        # poses are blended in float32 here and in float64 there
        torch.testing.assert_close(drawn, wanted, atol=2e-3, rtol=0)
        np.testing.assert_allclose(splats.splats(time).means, moving.at(time).means, atol=1e-4)
    without = splats.render(camera_at(None)).rgb
    assert torch.equal(without, splats.render(camera_at(moving.start_s)).rgb)


def test_shares_are_what_each_part_gives_to_the_picture() -> None:
    splats = DeformableSplats.of(compact())
    with torch.no_grad():
        whole = splats.render(camera_at(0.9), want=Want(shares=True, positions_at=(0.2, 0.5)))
        for part in (splats.static, splats.moving_ones):
            part.gaussians["sh0"].fill_(-0.5 / 0.28209479177387814)  # black
            part.gaussians["shN"].zero_()
        splats.moving_ones.gaussians["sh0"].fill_(0.5 / 0.28209479177387814)  # white
        white = splats.render(camera_at(0.9))
    torch.testing.assert_close(whole.shares["dynamic"], white.rgb[..., 0], atol=1e-4, rtol=0)
    both = whole.shares["static"] + whole.shares["dynamic"]
    torch.testing.assert_close(both, whole.alpha, atol=1e-5, rtol=0)
    assert whole.positions is not None and whole.positions.shape[0] == 2


def test_moving_the_scene_and_the_camera_changes_nothing() -> None:
    splats = DeformableSplats.of(compact())
    similarity = np.eye(4)
    similarity[:3, :3] = 1.5 * Rotation.from_rotvec([0.4, -0.2, 0.9]).as_matrix()
    similarity[:3, 3] = (0.3, 1.0, -0.7)
    camera = camera_at(0.8)
    c2w = torch.from_numpy(similarity).float() @ camera.c2w
    c2w[:3, :3] /= 1.5
    with torch.no_grad():
        one = splats.render(camera).rgb
        two = splats.moved(similarity).render(camera.with_pose(c2w)).rgb
    torch.testing.assert_close(one, two, atol=5e-3, rtol=0)


def one_gaussian(turn: float = 0.0) -> MovingSplats:
    """An opaque ball before the camera, which moves by 0.4 along x and by ``turn`` a knot."""
    knots = np.zeros((1, 5, 7), np.float32)
    for k in range(5):
        angle = turn * (k - 1)
        knots[0, k] = (np.cos(angle / 2), 0, 0, np.sin(angle / 2), 0.4 * (k - 1), 0, 0)
    cloud = SplatCloud(
        means=np.zeros((1, 3), np.float32), quats=np.float32([[1, 0, 0, 0]]),
        log_scales=np.full((1, 3), -1.5, np.float32), logit_opacities=np.float32([6.0]),
        sh=np.full((1, 1, 3), 1.0, np.float32),
    )  # fmt: skip
    return MovingSplats(
        cloud=cloud, num_moving=1, node_indices=np.zeros((1, 4), np.uint16),
        node_weights=np.full((1, 4), 0.25, np.float32), knots=knots, start_s=0.0,
        knot_interval_s=1.0, duration_s=2.0,
    )  # fmt: skip


def test_positions_at_other_times_are_where_the_surface_is_then() -> None:
    splats = DeformableSplats.of(one_gaussian())
    render = splats.render(camera_at(0.0), want=Want(positions_at=(0.0, 1.0, 1.5)))
    assert render.positions is not None and render.positions.shape[0] == 3
    seen = render.alpha > 0.5
    assert bool(seen.any())
    for place, x in zip(render.positions, (0.0, 0.4, 0.6), strict=True):
        wanted = torch.tensor([x, 0.0, 0.0]).expand(int(seen.sum()), 3)
        torch.testing.assert_close(place[seen], wanted, atol=1e-5, rtol=0)
    # a loss on them moves the motion
    render.positions[1][seen].sum().backward()
    assert float(splats.nodes.places.grad.abs().sum()) > 0


def test_parts_are_what_stands_still_and_what_moves() -> None:
    moving = compact()
    splats = DeformableSplats.of(moving)
    parts = splats.render(camera_at(0.7), want=Want(parts=("static", "dynamic"))).parts
    still = GaussianSplats.of(
        SplatCloud(
            **{
                n: getattr(moving.cloud, n)[moving.num_moving :]
                for n in ("means", "quats", "log_scales", "logit_opacities", "sh")
            }
        ),
        extent=splats.extent,
    )
    torch.testing.assert_close(parts["static"].rgb, still.render(camera_at(0.7)).rgb)
    assert set(parts) == {"static", "dynamic"}
    assert float(parts["dynamic"].alpha.detach().max()) > 0.1


def test_without_anything_that_moves_it_is_static_splats() -> None:
    moving = compact()
    nothing = replace(
        moving, num_moving=0, node_indices=moving.node_indices[:0],
        node_weights=moving.node_weights[:0], knots=moving.knots[:0],
    )  # fmt: skip
    splats = DeformableSplats.of(nothing)
    still = GaussianSplats.of(moving.cloud, extent=splats.extent)
    torch.testing.assert_close(splats.render(camera_at(1.0)).rgb, still.render(camera_at(0.0)).rgb)
    positions = splats.render(camera_at(1.0), want=Want(positions_at=(0.0,))).positions
    assert positions is not None and positions.shape[-1] == 3


def test_what_a_checkpoint_may_not_hold() -> None:
    splats = DeformableSplats.of(compact())
    plain = json.loads(json.dumps(dict(splats.plain_data())))
    tensors = dict(splats.state_dict())
    check_tensors(tensors, DeformableSplats.saved_forms(plain), where="file")
    strangers = {**tensors, "moving_ones.node_indices": tensors["moving_ones.node_indices"] + 9}
    with pytest.raises(DataError, match="follow nodes"):
        DeformableSplats.from_saved(strangers, plain)
    short = {**plain, "timing": {**plain["timing"], "duration_s": 99.0}}
    with pytest.raises(DataError, match="too few knots"):
        DeformableSplats.from_saved(tensors, short)
    with pytest.raises(DataError, match="lacks the table static"):
        DeformableSplats.from_saved(tensors, {})
    with pytest.raises(DataError, match="node_rates"):
        DeformableSplats.from_saved(tensors, {**plain, "node_rates": {"colour": 1.0}})
    lacking = {k: v for k, v in tensors.items() if k != "nodes.places"}
    with pytest.raises(DataError, match=r"lacks nodes\.places"):
        check_tensors(lacking, DeformableSplats.saved_forms(plain), where="file")


def test_what_is_not_there_costs_nothing_and_changes_nothing() -> None:
    """Gaussians outside of their windows are left out of the picture before they are moved."""
    splats = DeformableSplats.of(compact(windows=True))
    moving, want = splats.moving_ones, Want(shares=True, positions_at=(0.2,))
    late = torch.arange(moving.num_gaussians) % 2 == 1
    camera = camera_at(0.7)
    with torch.no_grad():
        moving.gaussians["window_edges"][late] += 1.0
        drawn = moving.drawn_at(torch.tensor(0.7))
        assert len(drawn) > 0 and not late[drawn].any()
        before = splats.render(camera, want=want)
        moving.means[late] = moving.means[~late]
        moving.gaussians["sh0"][late] = 9.0
        after = splats.render(camera, want=want)
    assert torch.equal(before.rgb, after.rgb) and torch.equal(before.alpha, after.alpha)
    assert before.positions is not None and after.positions is not None
    assert torch.equal(before.positions, after.positions)
