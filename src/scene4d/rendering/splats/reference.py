"""The splat rasteriser in plain torch: any float dtype, any device, differentiable throughout.

It is written to be checked (fp64 ``gradcheck``) and to check the fast back ends with, not to be
fast. Sources: Zwicker et al. 2001, EWA volume splatting; Kerbl et al. 2023, 3D Gaussian splatting
(projection, SH, compositing); Yu et al. 2024, Mip-Splatting (antialiased mode); Radl et al. 2024,
StopThePop, appendix B (opacity-aware extents); Ye et al., arXiv:2409.06765 (gsplat's conventions).

Frames: ``viewmats`` map world to camera with OpenCV axes (+y down, +z forward). Pixels are measured
from the image's top-left corner, pixel centres lie at +0.5. Skew ``K[0, 1]`` is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scene4d.cameras.quaternions import rotation_from_quat

ALPHA_MIN = 1.0 / 255.0
"""Contributions below it are skipped."""
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
"""A pixel stops before the Gaussian that would leave this much or less."""
MAX_EXTENT = 3.33
"""Standard deviations drawn at most; exp(-3.33^2 / 2) is just below 1/255."""
MAX_RADIUS = 2.0**24
"""Pixels; a wider footprint cannot be placed in float32 and is culled."""
MAX_QUAT_NORM = 1e15
"""A quaternion longer than this, or shorter than its inverse, is culled: float32 cannot norm it."""
MAX_INVERSE = 1e12
"""Largest entry of an inverse viewmat, scene units; beyond it, a camera stands nowhere."""
FOV_MARGIN = 0.3
"""The Jacobian is evaluated at most this share of the half field of view outside the image."""
SH_C0 = 0.28209479177387814


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """What a projection needs to know beside tensors; defaults are gsplat's."""

    width: int
    height: int
    near_plane: float = 0.01
    """Depth in scene units; what lies nearer, or at or behind the camera, is culled."""
    far_plane: float = 1e10
    radius_clip: float = 0.0
    """Pixels; footprints not larger than this in x and in y are culled."""
    eps2d: float = 0.3
    """Low-pass: added to both variances of the footprint, px^2."""
    antialiased: bool = False
    """Lower the opacity by as much as the low-pass enlarged the footprint."""


@dataclass(frozen=True, kw_only=True)
class Projected:
    """N Gaussians as C cameras see them; all zero where culled."""

    means2d: Float[Tensor, "C N 2"]
    depths: Float[Tensor, "C N"]
    conics: Float[Tensor, "C N 3"]
    """(xx, xy, yy) of the inverse 2D covariance after the low-pass, px^-2."""
    radii: Int[Tensor, "C N 2"]
    """Half extents in x and y that enclose alpha >= 1/255, px; 0 where culled."""
    compensations: Float[Tensor, "C N"] | None
    """Factor on the opacity; only in antialiased mode."""

    @property
    def visible(self) -> Bool[Tensor, "C N"]:
        """Which Gaussians are drawn."""
        return (self.radii > 0).all(dim=-1)


def check_shapes(**tensors: tuple[Tensor, Sequence[int | None]]) -> None:
    """Raises ValueError for a tensor of another shape than expected; None is any number.

    Kernels read as many numbers as one tensor's shape tells them, from all of them.
    """
    for name, (tensor, shape) in tensors.items():
        fits = tensor.ndim == len(shape)
        if not fits or any(e not in (None, n) for n, e in zip(tensor.shape, shape, strict=True)):
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")


def _slope_limits(K: Tensor, settings: ProjectionSettings) -> tuple[Tensor, Tensor]:
    """Smallest and largest x/z and y/z at which the Jacobian is evaluated, [M, 2] each."""
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1)
    centre = K[:, :2, 2]
    size = K.new_tensor([settings.width, settings.height])
    margin = FOV_MARGIN * 0.5 * size / focal
    return -centre / focal - margin, (size - centre) / focal + margin


def _footprint(
    mean: Tensor, quat: Tensor, scale: Tensor, viewmat: Tensor, K: Tensor, s: ProjectionSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """mean2d [M, 2], depth, low-passed covariance (xx, xy, yy) [M, 3], det before and after it.

    EWA: the covariance is A A^T with A = J W R S, J the perspective's Jacobian. Its determinant is
    the sum of squared 2x2 minors of A (Cauchy-Binet): never negative, nothing cancels.
    """
    p = (viewmat[:, :3, :3] @ mean[:, :, None])[..., 0] + viewmat[:, :3, 3]
    z = p[:, 2]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1)
    slope = p[:, :2] / z[:, None]
    mean2d = focal * slope + K[:, :2, 2]
    low, high = _slope_limits(K, s)
    slope = torch.minimum(torch.maximum(slope, low), high)
    W = viewmat[:, :3, :3]
    JW = (focal / z[:, None])[..., None] * (W[:, :2] - slope[..., None] * W[:, 2:3])
    A = JW @ (rotation_from_quat(quat) * scale[:, None, :])
    xx, yy = (A * A).sum(-1).unbind(-1)
    xy = (A[:, 0] * A[:, 1]).sum(-1)
    det = torch.linalg.cross(A[:, 0], A[:, 1]).square().sum(-1)
    det_blurred = det + s.eps2d * (xx + yy) + s.eps2d**2
    return mean2d, z, torch.stack([xx + s.eps2d, xy, yy + s.eps2d], dim=-1), det, det_blurred


def _finite(*tensors: Tensor) -> Tensor:
    return torch.stack([t[:, None].flatten(1).isfinite().all(dim=1) for t in tensors]).all(dim=0)


def _extents(
    opacity: Tensor, cov: Tensor, det: Tensor, det_blurred: Tensor, s: ProjectionSettings
) -> Tensor:
    """Half extents [M, 2] in whole pixels (as floats) of the region with alpha >= 1/255."""
    if s.antialiased:
        opacity = opacity * (det / det_blurred).sqrt()
    reach = (2.0 * (opacity / ALPHA_MIN).clamp_min(1.0).log()).sqrt().clamp_max(MAX_EXTENT)
    radius = (reach[:, None] * cov[:, ::2].sqrt()).ceil()
    keep = (opacity >= ALPHA_MIN) & (radius > s.radius_clip).any(dim=-1)
    keep &= (radius > 0).all(dim=-1) & (radius <= MAX_RADIUS).all(dim=-1)
    return radius * keep[:, None]


def _radii(
    mean: Tensor,
    quat: Tensor,
    scale: Tensor,
    opacity: Tensor,
    viewmat: Tensor,
    K: Tensor,
    s: ProjectionSettings,
) -> Int[Tensor, "M 2"]:
    """Half extents in whole pixels, 0 where nothing is drawn."""
    mean2d, z, cov, det, det_blurred = _footprint(mean, quat, scale, viewmat, K, s)
    keep = _finite(mean, quat, scale, mean2d, z, cov, det_blurred, 1 / det_blurred)
    norm = quat.norm(dim=-1)
    keep &= (
        (norm >= 1 / MAX_QUAT_NORM)
        & (norm <= MAX_QUAT_NORM)
        & (z >= s.near_plane)
        & (z <= s.far_plane)
        & (z > 0)
    )
    radius = _extents(opacity, cov, det, det_blurred, s)
    size = mean2d.new_tensor([s.width, s.height])
    keep &= ((mean2d + radius > 0) & (mean2d - radius < size) & (radius > 0)).all(dim=-1)
    return torch.where(keep[:, None], radius, 0.0).to(torch.int32)


def project(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    settings: ProjectionSettings,
) -> Projected:
    """Project Gaussians into cameras; differentiable in all but opacities and intrinsics.

    Lengths in scene units; ``quats`` wxyz, normalised here; ``scales`` are standard deviations;
    ``opacities`` (0..1) only bound the radii. Culled with zero gradient: what is nearer than the
    near plane, behind the far one, off the image, too faint, or not a finite ellipse.
    """
    C, N = len(viewmats), len(means)
    n = torch.arange(N, device=means.device).repeat(C)
    c = torch.arange(C, device=means.device).repeat_interleave(N)
    Ks = Ks.detach()

    def gathered(n: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return means[n], quats[n], scales[n], opacities[n], viewmats[c], Ks[c]

    with torch.no_grad():
        radii = _radii(*gathered(n, c), settings)
    # Only what is drawn enters the graph, so that no 0 * inf can reach a gradient.
    drawn = (radii > 0).all(dim=-1).nonzero()[:, 0]
    mean, quat, scale, _, viewmat, K = gathered(n[drawn], c[drawn])
    mean2d, z, cov, det, det_blurred = _footprint(mean, quat, scale, viewmat, K, settings)
    conic = torch.stack([cov[:, 2], -cov[:, 1], cov[:, 0]], dim=-1) / det_blurred[:, None]

    def scattered(values: Tensor) -> Tensor:
        zeros = values.new_zeros((C * N, *values.shape[1:]))
        return zeros.index_put((drawn,), values).unflatten(0, (C, N))

    return Projected(
        means2d=scattered(mean2d),
        depths=scattered(z),
        conics=scattered(conic),
        radii=radii.unflatten(0, (C, N)),
        compensations=scattered((det / det_blurred).sqrt()) if settings.antialiased else None,
    )


def camera_centres(viewmats: Float[Tensor, "C 4 4"]) -> Float[Tensor, "C 3"]:
    """Where the cameras stand in the world; the origin, without a gradient, for a matrix that is
    singular or so nearly that a gradient through its inverse would overflow."""
    with torch.no_grad():
        inverse = torch.linalg.inv_ex(viewmats).inverse
        largest = inverse.abs().nan_to_num(nan=torch.inf).flatten(1).amax(dim=1)
        usable = (largest < MAX_INVERSE)[:, None, None]
    identity = torch.eye(4, dtype=viewmats.dtype, device=viewmats.device)
    # Replaced before the inversion: a gradient of 0 times an infinite inverse is not a number.
    return torch.linalg.inv_ex(torch.where(usable, viewmats, identity)).inverse[:, :3, 3]


def sh_basis(direction: Float[Tensor, "*m 3"], degree: int) -> Float[Tensor, "*m K"]:
    """Real spherical harmonics up to ``degree`` (0-3) at unit directions, K = (degree + 1)^2.

    Order and signs are those of 3DGS: by degree l, then m = -l..l, with the (-1)^m phase.
    """
    x, y, z = direction.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        c = 0.4886025119029199  # sqrt(3 / 4 pi)
        basis += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = 1.0925484305920792  # sqrt(15 / 4 pi)
        basis += [c * x * y, -c * y * z]
        basis += [0.31539156525252005 * (3 * z * z - 1)]  # sqrt(5 / 16 pi)
        basis += [-c * x * z, 0.5 * c * (x * x - y * y)]
    if degree >= 3:
        c = 0.5900435899266435  # sqrt(35 / 32 pi)
        d = 2.890611442640554  # sqrt(105 / 4 pi)
        e = 0.4570457994644658  # sqrt(21 / 32 pi)
        basis += [-c * y * (3 * x * x - y * y), d * x * y * z, -e * y * (5 * z * z - 1)]
        basis += [0.3731763325901154 * z * (5 * z * z - 3)]  # sqrt(7 / 16 pi)
        basis += [-e * x * (5 * z * z - 1), 0.5 * d * z * (x * x - y * y)]
        basis += [-c * x * (x * x - 3 * y * y)]
    return torch.stack(basis, dim=-1)


def sh_colors(
    coeffs: Float[Tensor, "N K 3"] | Float[Tensor, "C N K 3"],
    means: Float[Tensor, "N 3"],
    viewmats: Float[Tensor, "C 4 4"],
    visible: Bool[Tensor, "C N"],
    degree: int,
) -> Float[Tensor, "C N 3"]:
    """Colours ``max(SH(direction) + 0.5, 0)`` seen along camera-to-Gaussian; 0 where culled.

    Differentiable in the coefficients and, through the direction, in means and viewmats.
    """
    c, n = visible.nonzero(as_tuple=True)
    direction = means[n] - camera_centres(viewmats)[c]
    squared = direction.square().sum(dim=-1, keepdim=True)
    # Without a length there is no direction, and no gradient.
    length = torch.where(squared > 0, squared, torch.inf).sqrt()
    basis = sh_basis(direction / length, degree)
    used = (coeffs[n] if coeffs.ndim == 3 else coeffs[c, n])[:, : basis.shape[-1]]
    colors = ((basis[..., None] * used).sum(dim=-2) + 0.5).clamp_min(0.0)
    return colors.new_zeros((*visible.shape, 3)).index_put((c, n), colors)


@dataclass(frozen=True, kw_only=True)
class _AbsoluteGradients:
    """Where a block adds its share of sum over pixels |d loss / d means2d|."""

    total: Tensor
    ids: Tensor

    def add(self, grad: Tensor) -> None:
        self.total.index_add_(0, self.ids, grad.detach().abs().sum(dim=0))


def _composite_pixels(
    gaussians: tuple[Tensor, ...], pixels: Tensor, absgrad: _AbsoluteGradients | None
) -> tuple[Tensor, Tensor]:
    """Colours [P, D] and transmittances [P] of pixels under M Gaussians sorted front to back."""
    mean2d, conic, color, opacity = gaussians
    delta = mean2d[None] - pixels[:, None]
    if absgrad is not None and delta.requires_grad:
        delta.register_hook(absgrad.add)
    dx, dy = delta.unbind(-1)
    a, b, c = conic.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacity * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
    with torch.no_grad():
        reached = torch.cumprod(1 - alpha, dim=1) > TRANSMITTANCE_MIN
    after = torch.cumprod(1 - torch.where(reached, alpha, 0.0), dim=1)
    before = torch.cat([after.new_ones(len(pixels), 1), after], dim=1)
    weights = torch.where(reached, alpha, 0.0) * before[:, :-1]
    return weights @ color, before[:, -1]


_BLOCK = 32
"""Side in px of the squares that are composited in one go."""
_PAIRS = 1 << 21
"""Pixel-Gaussian pairs held at a time: about 200 MB in fp32 with gradients."""


def _composite_block(
    gaussians: tuple[Tensor, ...], pixels: Tensor, absgrad: _AbsoluteGradients | None
) -> Tensor:
    """Colours and transmittance [P, D + 1], in pieces that are computed again when going back."""
    pieces = []
    for piece in pixels.split(max(1, _PAIRS // max(1, len(gaussians[0])))):
        if torch.is_grad_enabled():
            color, left = checkpoint(
                _composite_pixels, gaussians, piece, absgrad,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        else:
            color, left = _composite_pixels(gaussians, piece, absgrad)
        pieces.append(torch.cat([color, left[:, None]], dim=-1))
    return torch.cat(pieces)


def _composite_camera(
    gaussians: tuple[Tensor, ...],
    depths: Tensor,
    radii: Tensor,
    size: tuple[int, int],
    absgrad: Tensor | None,
) -> Tensor:
    """One camera: colours without background and transmittance, [H, W, D + 1]."""
    width, height = size
    means2d = gaussians[0].detach()
    order = depths.detach().sort(stable=True).indices
    order = order[(radii[order] > 0).all(dim=-1)]
    rows = []
    for top in range(0, height, _BLOCK):
        row = []
        for left in range(0, width, _BLOCK):
            ys = torch.arange(top, min(top + _BLOCK, height), device=means2d.device)
            xs = torch.arange(left, min(left + _BLOCK, width), device=means2d.device)
            half = means2d.new_tensor([len(xs), len(ys)]) / 2
            away = (means2d[order] - (half + means2d.new_tensor([left, top]))).abs()
            ids = order[(away < radii[order] + half).all(dim=-1)]
            pixels = torch.cartesian_prod(ys, xs).flip(-1).to(means2d) + 0.5
            share = None if absgrad is None else _AbsoluteGradients(total=absgrad, ids=ids)
            block = _composite_block(tuple(t[ids] for t in gaussians), pixels, share)
            row.append(block.unflatten(0, (len(ys), len(xs))))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


def composite_reference(
    means2d: Float[Tensor, "C N 2"],
    conics: Float[Tensor, "C N 3"],
    colors: Float[Tensor, "C N D"],
    opacities: Float[Tensor, "C N"],
    depths: Float[Tensor, "C N"],
    radii: Int[Tensor, "C N 2"],
    backgrounds: Float[Tensor, "C D"] | None,
    *,
    width: int,
    height: int,
    absgrad: bool = False,
) -> tuple[Float[Tensor, "C height width D"], Float[Tensor, "C height width 1"]]:
    """Composite front to back (3DGS, eq. 3); arguments and meaning as ``compositing.composite``.

    alpha = min(0.999, opacity exp(-sigma)), skipped below 1/255; a pixel stops before the Gaussian
    that would leave a transmittance of 1e-4 or less. Depths only order, ties by index.
    """
    total = torch.zeros_like(means2d, requires_grad=False) if absgrad else None
    images = []
    for camera in range(len(means2d)):
        gaussians = tuple(t[camera] for t in (means2d, conics, colors, opacities))
        share = None if total is None else total[camera]
        size = (width, height)
        images.append(_composite_camera(gaussians, depths[camera], radii[camera], size, share))
    image = torch.stack(images)
    rendered, left = image[..., :-1], image[..., -1:]
    if backgrounds is not None:
        rendered = rendered + left * backgrounds[:, None, None]
    if total is not None:
        means2d.absgrad = total  # type: ignore[attr-defined]
    return rendered, 1 - left
