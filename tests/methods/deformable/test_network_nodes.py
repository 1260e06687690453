"""Nodes whose poses a network tells, held to what splines are held to."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from methods.deformable.test_deformable import camera_at, compact
from methods.deformable.test_lifted import rigid_tracks

from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.lifted import completed
from scene4d.methods.deformable.network_nodes import NetworkNodes
from scene4d.methods.deformable.nodes import SplineNodes, Timing
from scene4d.methods.deformable.start import fitted_nodes
from scene4d.rendering.motion.poses import pose_apply, quat_of_rotation
from scene4d.representations.saved import check_tensors


def spline_nodes() -> tuple[SplineNodes, torch.Tensor, torch.Tensor]:
    """Splines of a body that turns by 0.2 a frame; where its nodes are, and its rotations."""
    tracks, places, rotations = rigid_tracks()
    chosen = torch.arange(0, 80, 5)
    turns, found = completed(tracks, chosen)
    timing = Timing(start_s=0.0, duration_s=1.1, knot_interval_s=0.2, rest_s=0.5, spacing=0.5)
    nodes = fitted_nodes(tracks, chosen, turns, found, timing, neighbours=4)
    return nodes, places[chosen], rotations


def network(steps: int) -> NetworkNodes:
    generator = torch.Generator().manual_seed(0)
    return NetworkNodes.fitted(spline_nodes()[0], generator, steps=steps)


@pytest.fixture(scope="module")
def fitted() -> NetworkNodes:
    """Of the body that turns, about as far as it gets."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scene4d.methods.deformable.network_nodes._BATCH", 96)
        return network(250)


def test_a_rigidly_moving_cloud_is_recovered(fitted: NetworkNodes) -> None:
    _, places, rotations = spline_nodes()
    nodes = deepcopy(fitted)
    times = torch.arange(12) / 10.0
    with torch.no_grad():
        nodes.settle()
        motions = nodes.motions(times)
    at_rest = pose_apply(motions[5], places[:, 5])
    torch.testing.assert_close(at_rest, places[:, 5], atol=1e-4, rtol=0)
    for frame in (0, 3, 8, 11):
        moved = pose_apply(motions[frame], places[:, 5])
        # 250 steps of fitting bring nodes within a tenth of their spacing of 0.5
        assert float((moved - places[:, frame]).norm(dim=-1).median()) < 0.05
        wanted = quat_of_rotation(rotations[frame] @ rotations[5].T)
        assert float((motions[frame, :, :4] @ wanted).abs().min()) > 0.99


def test_gradients_are_slopes() -> None:
    nodes = network(0).double()
    times = torch.tensor([0.13, 0.77], dtype=torch.float64, requires_grad=True)
    last = nodes.network.last
    weight, bias = last.weight.detach()[:, :3].clone(), last.bias.detach().clone()
    whole = last.weight.detach().clone()

    def poses(times, weight, bias):
        given = {
            "nodes.network.last.weight": torch.cat([weight, whole[:, 3:]], 1),
            "nodes.network.last.bias": bias,
        }
        return torch.func.functional_call(_Poses(nodes), given, (times,))

    inputs = (times, weight.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(poses, inputs, eps=1e-8, atol=1e-5)  # near bends of ReLUs
    first = nodes.network.layers[0].weight
    nodes.poses(times).square().sum().backward()
    slope = float(first.grad[3, 5])
    with torch.no_grad():
        values = []
        for step in (1e-6, -1e-6):
            first[3, 5] += step
            values.append(float(nodes.poses(times).square().sum()))
            first[3, 5] -= step
    assert abs((values[0] - values[1]) / 2e-6 - slope) < 1e-6 + 1e-4 * abs(slope)


class _Poses(torch.nn.Module):
    def __init__(self, nodes: NetworkNodes) -> None:
        super().__init__()
        self.nodes = nodes

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        return self.nodes.poses(times)


def test_time_is_clamped_and_at_first_nothing_moves() -> None:
    nodes = network(0)
    times = torch.tensor([-5.0, 0.0, 1.1, 9.0])
    with torch.no_grad():
        poses = nodes.poses(times)
    assert torch.equal(poses[0], poses[1]) and torch.equal(poses[2], poses[3])
    # of the body's size of 2 or so: the last layer starts small
    assert float((poses[..., 4:] - nodes.rest[:, 4:]).abs().max()) < 0.2


def with_network(nodes: NetworkNodes) -> DeformableSplats:
    """Random splats that follow a network's nodes."""
    splats = DeformableSplats.of(compact())
    moving = splats.moving_ones
    moving.node_indices = moving.node_indices % len(nodes)
    rates = {"network": 1e-4}
    return DeformableSplats(splats.static, moving, nodes, node_rates=rates)


def test_files_hold_splines_and_say_how_far_these_are_off(fitted: NetworkNodes, caplog) -> None:
    caplog.set_level("INFO", logger="scene4d")
    splats = with_network(deepcopy(fitted))
    nodes = splats.nodes
    assert isinstance(nodes, NetworkNodes)
    plain = splats.moving()
    told = [r.getMessage() for r in caplog.records if "motion as splines" in r.getMessage()]
    assert len(told) == 1
    usual, worst = nodes.knots_error()
    assert 0 <= usual <= worst and f"{worst:.2g} scene units" in told[0]
    splats.moving()
    assert sum("motion as splines" in r.getMessage() for r in caplog.records) == 1  # told once
    again = DeformableSplats.of(plain)
    times = torch.linspace(0.0, 1.1, 23)
    with torch.no_grad():
        home = nodes.rest[:, 4:]
        off = pose_apply(nodes.motions(times), home.expand(23, -1, 3))
        off = off - pose_apply(again.nodes.motions(times), home.expand(23, -1, 3))
    # blends of quaternions' components are off from products of rotations by little more
    assert float(off.norm(dim=-1).max()) < 1.5 * worst + 1e-3
    assert worst < 0.2


def test_a_checkpoint_brings_the_network_back() -> None:
    splats = with_network(network(1))
    tensors, plain = splats.state_dict(), splats.plain_data()
    check_tensors(tensors, DeformableSplats.saved_forms(plain), where="here")
    again = DeformableSplats.from_saved(tensors, plain)
    camera = camera_at(0.7)
    assert torch.equal(again.render(camera).rgb, splats.render(camera).rgb)
    groups = [[(g.name, g.learning_rate) for g in s.parameter_groups()] for s in (again, splats)]
    assert groups[0] == groups[1] and groups[0][-1] == ("nodes.network", 1e-4)
    before = {**plain, "node_rates": {}}
    before.pop("motion")
    assert "nodes.places" in DeformableSplats.saved_forms(before)  # runs from before the choice
