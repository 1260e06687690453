"""Gaussians that follow nodes: kernels against plain torch, plain torch against slopes."""

from __future__ import annotations

import numba
import pytest
import torch

from scene4d.formats import moving_splats
from scene4d.rendering.motion.skinning import skin, skin_reference


def random_inputs(count: int, nodes: int = 6, *, dtype=torch.float32, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    poses = normal(nodes, 7)
    poses[:, :4] *= 1.0 + 0.5 * torch.rand(nodes, 1, generator=generator)
    indices = torch.randint(nodes, (count, 4), generator=generator, dtype=torch.int32)
    weights = torch.softmax(normal(count, 4), dim=1)
    values = [normal(count, 3), normal(count, 4), poses, weights]
    means, quats, poses, weights = (v.to(dtype).requires_grad_() for v in values)
    return [means, quats, poses, indices, weights]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_the_kernels_give_what_plain_torch_gives(count: int) -> None:
    exact = random_inputs(count, dtype=torch.float64)
    fast = random_inputs(count)
    generator = torch.Generator().manual_seed(1)
    pulls = [torch.randn(count, k, generator=generator) for k in (3, 4)]
    results = []
    for inputs, function in ((fast, skin), (exact, skin_reference)):
        outputs = function(*inputs)
        sum((o * p).sum() for o, p in zip(outputs, pulls, strict=True)).backward()
        results.append([*outputs, *(inputs[k].grad for k in (0, 1, 2, 4))])
    # float32; blends of opposite turns are short, and dividing by them magnifies
    for got, wanted in zip(*results, strict=True):
        scale = float(wanted.detach().abs().max()) if wanted.numel() else 1.0
        torch.testing.assert_close(got.double(), wanted, atol=2e-4 * scale, rtol=1e-3)


def test_gradients_are_slopes() -> None:
    means, quats, poses, indices, weights = random_inputs(5, dtype=torch.float64, seed=3)

    def function(*floats):
        return skin_reference(*floats[:3], indices, floats[3])

    assert torch.autograd.gradcheck(function, (means, quats, poses, weights))


def test_the_blend_is_that_of_moving_splats() -> None:
    means, quats, poses, indices, weights = (
        t.detach() for t in random_inputs(50, dtype=torch.float64)
    )
    poses[:, :4] /= poses[:, :4].norm(dim=1, keepdim=True)
    blend = moving_splats.blended_poses(poses.numpy(), indices.numpy(), weights.numpy())
    wanted = moving_splats.quat_rotate(blend[:, :4], means.numpy()) + blend[:, 4:]
    new_means, new_quats = skin_reference(means, quats, poses, indices, weights)
    torch.testing.assert_close(new_means, torch.from_numpy(wanted))
    turned = moving_splats.quat_product(blend[:, :4], quats.numpy())
    torch.testing.assert_close(new_quats, torch.from_numpy(turned))


def test_one_pose_for_all_nodes_moves_rigidly_and_lengths_stay() -> None:
    means, quats, poses, indices, weights = (t.detach() for t in random_inputs(40))
    poses = poses[:1].expand(6, 7).contiguous()
    moved, turned = skin(means, quats, poses, indices, weights)
    one, two = (torch.pdist(points) for points in (moved, means))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)  # float32
    torch.testing.assert_close(turned.norm(dim=1), quats.norm(dim=1))


def test_weights_count_by_their_shares() -> None:
    inputs = [t.detach() for t in random_inputs(20)]
    doubled = [*inputs[:4], 2.0 * inputs[4]]
    for one, two in zip(skin(*inputs), skin(*doubled), strict=True):
        torch.testing.assert_close(one, two)


def test_the_number_of_threads_changes_no_bit() -> None:
    def results() -> list[torch.Tensor]:
        inputs = random_inputs(3000)
        outputs = skin(*inputs)
        sum(o.square().sum() for o in outputs).backward()
        return [*outputs, *(inputs[k].grad for k in (0, 1, 2, 4))]

    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = results()
    finally:
        numba.set_num_threads(before)
    for a, b in zip(one, results(), strict=True):
        assert torch.equal(a, b)
