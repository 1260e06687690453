"""Gaussians projected into cameras on the CPU, and the gradients back.

What is computed is ``reference.project``, in float32. The gradient of a pose is summed per chunk
of 512 Gaussians and then over the chunks in order, so nothing depends on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.rendering.splats.projection_kernels import (
    CAMERA,
    CX,
    CY,
    FX,
    FY,
    POSE,
    U_MIN,
    V_MIN,
    num_chunks,
    project_backward,
    project_forward,
)
from scene4d.rendering.splats.reference import (
    FOV_MARGIN,
    Projected,
    ProjectionSettings,
    check_shapes,
)
from scene4d.rendering.splats.simd import LANES
from scene4d.rendering.threads import KERNEL_LOCK


def empty(*shape: int) -> Tensor:
    """Float32 memory that NumPy allocates: in huge pages where Linux offers them.

    Torch's allocator gets a gradient of 200k x 48 floats page by page, each time, which took ten
    times as long as filling it.
    """
    return torch.from_numpy(np.empty(shape, np.float32))


def flat(tensor: Tensor) -> np.ndarray:
    """The values in row-major order, one-dimensional; shared with the tensor where it can be."""
    return tensor.detach().contiguous().numpy().reshape(-1)


def _packed_cameras(viewmats: Tensor, Ks: Tensor, s: ProjectionSettings) -> np.ndarray:
    """One row of ``CAMERA`` float32 per camera, computed in float64."""
    K = Ks.detach().double().numpy()
    cameras = np.zeros((len(K), CAMERA), np.float32)
    cameras[:, :POSE] = viewmats.detach().numpy()[:, :3].reshape(-1, POSE)
    fx, fy, cx, cy = K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]
    cameras[:, [FX, FY, CX, CY]] = np.stack([fx, fy, cx, cy], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a focal length of 0 culls everything
        for size, focal, centre, low in ((s.width, fx, cx, U_MIN), (s.height, fy, cy, V_MIN)):
            margin = FOV_MARGIN * 0.5 * size / focal
            cameras[:, low] = -centre / focal - margin
            cameras[:, low + 1] = (size - centre) / focal + margin
    return cameras


def _packed_settings(s: ProjectionSettings) -> np.ndarray:
    values = (s.width, s.height, s.near_plane, s.far_plane, s.radius_clip, s.eps2d)
    return np.array(values, np.float32)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, viewmats, Ks, settings):
        n, count = len(means), len(viewmats)
        cameras, packed = _packed_cameras(viewmats, Ks, settings), _packed_settings(settings)
        means2d, depths = empty(count, n, 2), empty(count, n)
        conics, radii = empty(count, n, 3), torch.empty(count, n, 2, dtype=torch.int32)
        compensations = empty(count, n if settings.antialiased else 0)
        outputs = (means2d, depths, conics, radii, compensations)
        inputs = [flat(t) for t in (means, quats, scales, opacities)]
        with KERNEL_LOCK:
            project_forward(
                *inputs, n, cameras, packed, settings.antialiased, tuple(map(flat, outputs))
            )
        ctx.save_for_backward(means, quats, scales, radii)
        ctx.cameras, ctx.packed, ctx.antialiased = cameras, packed, settings.antialiased
        ctx.mark_non_differentiable(radii)
        return outputs

    @staticmethod
    def backward(ctx, g_means2d, g_depths, g_conics, _, g_compensations):
        means, quats, scales, radii = ctx.saved_tensors
        n, count = len(means), len(ctx.cameras)
        grads = (
            *(flat(g) for g in (g_means2d, g_depths, g_conics)),
            flat(g_compensations) if ctx.antialiased else None,
        )
        results = tuple(empty(*t.shape) for t in (means, quats, scales))
        poses = np.zeros((num_chunks(n), count, POSE * LANES), np.float32)
        with KERNEL_LOCK:
            project_backward(
                tuple(flat(t) for t in (means, quats, scales)), n, ctx.cameras, ctx.packed,
                flat(radii), grads, tuple(map(flat, results)), poses,
            )  # fmt: skip
        viewmats = torch.zeros(count, 4, 4)
        total = poses.sum(axis=0, dtype=np.float64).reshape(count, 3, 4, LANES).sum(axis=-1)
        viewmats[:, :3] = torch.from_numpy(total)
        return *results, None, viewmats, None, None


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """Zero rows added, which are culled: a quaternion of zero length is no rotation."""
    return torch.cat([tensor, tensor.new_zeros(rows, *tensor.shape[1:])])


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    settings: ProjectionSettings,
) -> Projected:
    """Project Gaussians into cameras on the CPU; as ``reference.project``, float32 only.

    Differentiable in means, quats, scales and viewmats. The same inputs give the same bits,
    whatever the number of threads.
    """
    n, count = len(means), len(viewmats)
    check_shapes(
        means=(means, (n, 3)), quats=(quats, (n, 4)), scales=(scales, (n, 3)),
        opacities=(opacities, (n,)), viewmats=(viewmats, (count, 4, 4)), Ks=(Ks, (count, 3, 3)),
    )  # fmt: skip
    gaussians = [means, quats, scales, opacities]
    if n < LANES:
        gaussians = [_padded(t, LANES - n) for t in gaussians]
    means2d, depths, conics, radii, compensations = _Project.apply(
        *gaussians, viewmats, Ks, settings
    )
    return Projected(
        means2d=means2d[:, :n],
        depths=depths[:, :n],
        conics=conics[:, :n],
        radii=radii[:, :n],
        compensations=compensations[:, :n] if settings.antialiased else None,
    )
