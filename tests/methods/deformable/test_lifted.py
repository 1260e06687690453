"""Tracks in the world, nodes' trajectories where nobody sees them, and splines fitted to both."""

from __future__ import annotations

import math

import torch

from scene4d.methods.deformable.lifted import (
    LiftedTracks,
    candidates,
    completed,
    farthest,
    unprojected,
)
from scene4d.methods.deformable.nodes import Timing, nearest_nodes
from scene4d.methods.deformable.start import fitted_nodes
from scene4d.rendering.motion.poses import pose_apply, quat_of_rotation

FRAMES = 12


def turning(angle: float) -> torch.Tensor:
    """[3, 3] about z."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rigid_tracks(*, hidden: bool = False) -> tuple[LiftedTracks, torch.Tensor, torch.Tensor]:
    """80 points of a body that turns by 0.2 a frame and shifts; what is seen of them."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(80, 3, generator=generator)
    rotations = torch.stack([turning(0.2 * k) for k in range(FRAMES)])
    shifts = torch.tensor([0.1, -0.05, 0.02]) * torch.arange(FRAMES)[:, None]
    places = torch.einsum("fij,nj->nfi", rotations, points) + shifts
    seen = torch.ones(80, FRAMES, dtype=torch.bool)
    if hidden:  # each is seen in five frames alone
        first = torch.arange(80) % (FRAMES - 4)
        frame = torch.arange(FRAMES)
        seen = (frame >= first[:, None]) & (frame < first[:, None] + 5)
    times = torch.arange(FRAMES) / 10.0
    known = torch.where(seen[..., None], places, torch.zeros_like(places))
    return LiftedTracks(times=times, places=known, seen=seen), places, rotations


def test_hidden_nodes_go_with_what_is_seen_around_them() -> None:
    tracks, places, rotations = rigid_tracks(hidden=True)
    chosen = torch.arange(0, 80, 7)
    turns, found = completed(tracks, chosen)
    error = (found.transpose(0, 1) - places[chosen]).norm(dim=-1)
    # rigid motion is told exactly but for the small pull to no rotation
    assert float(error.max()) < 0.02
    middle = [int(tracks.seen[row].nonzero()[2]) for row in chosen.tolist()]
    for k, at in enumerate(middle):
        wanted = rotations @ rotations[at].T
        assert float((turns[:, k] - wanted).abs().max()) < 0.02


def test_a_track_that_slips_onto_another_surface_is_not_followed() -> None:
    tracks, places, _ = rigid_tracks()
    tracks.places[3, 6:] += torch.tensor([0.0, 0.0, 5.0])
    tracks.seen[0, 6:] = False
    _, found = completed(tracks, torch.tensor([0]))
    assert float((found[:, 0] - places[0]).norm(dim=-1).max()) < 0.05


def test_candidates_stand_for_the_others_and_are_few() -> None:
    tracks, places, _ = rigid_tracks(hidden=True)
    some = candidates(tracks, 30)
    assert 5 < len(some) <= 30 and len(set(some.tolist())) == len(some)
    kept, spacing = farthest(places.transpose(0, 1), 10)
    assert len(kept) == 10
    apart = torch.cdist(places[kept, 0], places[kept, 0]).fill_diagonal_(9.0)
    assert float(apart.min()) >= spacing * 0.99  # the body is rigid: the same in every frame


def test_splines_are_fitted_to_the_trajectories() -> None:
    tracks, places, rotations = rigid_tracks(hidden=True)
    chosen = torch.arange(0, 80, 5)
    turns, found = completed(tracks, chosen)
    timing = Timing(
        start_s=0.0, duration_s=1.1, knot_interval_s=0.2, rest_s=0.5, spacing=0.5
    )  # fmt: skip
    nodes = fitted_nodes(tracks, chosen, turns, found, timing, neighbours=4)
    with torch.no_grad():
        motions = nodes.motions(tracks.times)
    # at rest nothing has moved, and a body's nodes move it as one
    at_rest = pose_apply(motions[5], places[chosen, 5])
    torch.testing.assert_close(at_rest, places[chosen, 5], atol=1e-4, rtol=0)
    for frame in (0, 3, 8, 11):
        moved = pose_apply(motions[frame], places[chosen, 5])
        assert float((moved - places[chosen, frame]).norm(dim=-1).max()) < 0.05
        quats = motions[frame, :, :4]
        wanted = quat_of_rotation(rotations[frame] @ rotations[5].T)
        assert float((quats @ wanted).abs().min()) > 0.999
    assert nodes.neighbours.shape == (16, 4)
    assert float(nodes.bonds.min()) > 0.9  # all of one body


def test_bodies_that_pass_each_other_are_not_tied_together() -> None:
    frames = torch.arange(FRAMES)
    still = torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
    one = still[:10, None].expand(10, FRAMES, 3)
    two = still[10:, None] + torch.stack([frames - 6.0, 0 * frames, 0 * frames], -1)
    places = torch.cat([one, two])
    tracks = LiftedTracks(
        times=frames / 10.0, places=places, seen=torch.ones(20, FRAMES, dtype=torch.bool)
    )
    chosen = torch.arange(20)
    turns = torch.eye(3).repeat(FRAMES, 20, 1, 1)
    timing = Timing(start_s=0.0, duration_s=1.1, knot_interval_s=0.2, rest_s=0.6, spacing=0.3)
    nodes = fitted_nodes(tracks, chosen, turns, places.transpose(0, 1), timing, neighbours=6)
    assert bool((nodes.neighbours[:10] < 10).all()) and bool((nodes.neighbours[10:] >= 10).all())
    # a point of one body, met by a node of the other, follows its own body's nodes
    point = places[:1, 6]
    which, logits = nearest_nodes(point, places[:, 6], nodes.neighbours, spacing=0.3)
    assert which[0, 0] == 0 and bool((which < 10).all()) and float(logits[0, 0]) == 0.0


def test_three_nodes_are_enough_to_follow() -> None:
    places = torch.eye(3)
    near = torch.tensor([[1, 2], [0, 2], [0, 1]])
    which, logits = nearest_nodes(torch.zeros(5, 3), places, near, spacing=1.0)
    assert which.shape == (5, 4)
    assert float(logits.softmax(1)[:, 3].max()) < 1e-9


def test_pixels_at_edges_of_depth_are_of_no_surface() -> None:
    from methods.lpgs.test_parent_child import camera

    at = camera(20)
    depth = torch.full((20, 20), 4.0)
    depth[:, 10:] = 8.0
    depth[3, 3] = 0.0
    xy = torch.tensor([[5.5, 10.5], [9.5, 10.5], [15.5, 10.5], [3.5, 3.5], [4.2, 3.9]])
    world, good = unprojected(at, xy, depth)
    assert good.tolist() == [True, False, True, False, False]
    local = at.viewmat[:3, :3] @ world[0] + at.viewmat[:3, 3]
    torch.testing.assert_close(local[2], torch.tensor(4.0), atol=1e-4, rtol=0)
