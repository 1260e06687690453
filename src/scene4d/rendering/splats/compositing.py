"""Front-to-back alpha compositing of projected Gaussians on the CPU, with gradients.

Semantics are gsplat's (Ye et al., arXiv:2409.06765; Kerbl et al. 2023, eq. 3): with
``sigma = (a dx^2 + c dy^2) / 2 + b dx dy``, ``alpha = min(0.999, opacity exp(-sigma))``; a Gaussian
is skipped where ``sigma < 0`` or ``alpha < 1/255``; a pixel stops before the Gaussian that would
leave a transmittance of 1e-4 or less. Design and figures: docs/rasteriser.md.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.rendering.splats import binning
from scene4d.rendering.splats.binning import TILE
from scene4d.rendering.splats.compositing_kernels import (
    ACROSS,
    HIGH,
    PIXELS,
    ROW,
    ROW_ABS,
    WIDE,
    backward_band,
    forward_band,
    reduce_rows,
)
from scene4d.rendering.splats.reference import check_shapes
from scene4d.rendering.threads import KERNEL_LOCK

# Hits whose gradients are held at once; more are composited in bands of tiles.
MAX_GRADIENT_BYTES = 384 * 2**20


def _bands(tile_hits: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Runs of tiles with at most ``limit`` hits each; a tile with more is a run of its own."""
    bands, begin, held = [], 0, 0
    for tile, hits in enumerate(tile_hits):
        if held and held + hits > limit:
            bands.append((begin, tile))
            begin, held = tile, 0
        held += int(hits)
    bands.append((begin, len(tile_hits)))
    return bands


class _Binned:
    """One camera's Gaussians, packed by depth, and their hits band by band."""

    def __init__(self, means, conics, colors, opacities, depths, radii, width, height, row) -> None:
        self.width, self.height = width, height
        self.tiles_x, self.tiles_y = -(-width // TILE), -(-height // TILE)
        self.workers = numba.get_num_threads()
        self.chunks = 4 * self.workers
        self.order = binning.visible_by_depth(
            means, conics, opacities, depths, radii, width, height, self.chunks
        )
        self.packed, extra = binning.pack(self.order, means, conics, opacities, colors, radii)
        self.extra = extra if extra.shape[1] else None
        counted = self._count(0, self.tiles_x * self.tiles_y)
        limit = MAX_GRADIENT_BYTES // (4 * row)
        self.bands = _bands(counted[0].sum(axis=0), limit)
        self.only_band = self._list(0, counted) if len(self.bands) == 1 else None

    def _count(self, first, last):
        return binning.count_hits(
            self.packed, self.tiles_x, self.tiles_y, self.width, first, last, self.chunks
        )

    def _list(self, first, counted):
        return binning.list_hits(
            self.packed, *counted, self.tiles_x, self.tiles_y, self.width, first
        )

    def band(self, index: int) -> tuple[Any, ...]:
        """``hits, starts, slots, homes`` of one band."""
        if self.only_band is not None:
            return self.only_band
        first, last = self.bands[index]
        return self._list(first, self._count(first, last))


class _Frame:
    """What compositing one camera writes, and what going back needs of it."""

    def __init__(self, binned: _Binned, channels: int) -> None:
        pixels = binned.tiles_x * binned.tiles_y * PIXELS
        self.transmittance = np.empty(pixels, np.float32)
        self.stops = np.empty(pixels, np.int32)
        self.rendered: np.ndarray | None
        self.alphas: np.ndarray | None
        self.rendered = np.empty((binned.height, binned.width, channels), np.float32)
        self.alphas = np.empty((binned.height, binned.width), np.float32)
        self.masks = np.empty(0, np.uint32)

    def draw(self, binned: _Binned, index: int, listed: tuple[Any, ...], background) -> None:
        """Composite one band of tiles; the block masks of its hits stay in ``masks``."""
        hits, starts, _, _ = listed
        self.masks = np.empty(len(hits), np.uint32)
        forward_band(
            binned.packed, binned.extra, hits, starts, binned.bands[index][0], binned.tiles_x,
            background, self.masks, self.transmittance, self.stops, self.rendered, self.alphas,
            binned.workers,
        )  # fmt: skip


def _array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return tensor.detach().to("cpu", dtype).contiguous().numpy()


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, conics, colors, opacities, depths, radii, backgrounds, size, absgrad):
        width, height = size
        cameras, n, channels = colors.shape
        arrays = [_array(t) for t in (means2d, conics, colors, opacities, depths)]
        extents = _array(radii, torch.int32)
        background = np.zeros((cameras, channels), np.float32)
        if backgrounds is not None:
            background[:] = _array(backgrounds)
        row = (ROW_ABS if absgrad else ROW) + max(channels - 3, 0)
        rendered = np.empty((cameras, height, width, channels), np.float32)
        alphas = np.empty((cameras, height, width, 1), np.float32)
        kept = []
        with KERNEL_LOCK:
            for c in range(cameras):
                mean, conic, color, opacity, depth = (a[c] for a in arrays)
                binned = _Binned(mean, conic, color, opacity, depth, extents[c], width, height, row)
                frame = _Frame(binned, channels)
                frame.rendered, frame.alphas = rendered[c], alphas[c, :, :, 0]
                for index in range(len(binned.bands)):
                    frame.draw(binned, index, binned.band(index), background[c])
                frame.rendered = frame.alphas = None
                kept.append((binned, frame))
        ctx.kept, ctx.background, ctx.row, ctx.absgrad = kept, background, row, absgrad
        ctx.means2d = means2d if absgrad else None
        ctx.shape = (cameras, n, channels)
        return torch.from_numpy(rendered), torch.from_numpy(alphas)

    @staticmethod
    def backward(ctx, grad_rendered, grad_alphas):
        cameras, n, channels = ctx.shape
        g_rendered, g_alphas = _array(grad_rendered), _array(grad_alphas)
        shapes = [(n, 2), (n, 3), (n,), (n, channels), (n, 2) if ctx.absgrad else (0, 2)]
        grads = [np.zeros((cameras, *s), np.float32) for s in shapes]
        grad_background = np.zeros((cameras, channels), np.float32)
        with KERNEL_LOCK:
            for c, (binned, frame) in enumerate(ctx.kept):
                if ctx.needs_input_grad[6]:
                    grad_background[c] = _background_gradient(binned, frame, g_rendered[c])
                into = tuple(g[c] for g in grads)
                _backward_camera(
                    binned, frame, ctx.background[c], g_rendered[c], g_alphas[c, :, :, 0],
                    ctx.row, ctx.absgrad, into,
                )  # fmt: skip
        means, conics, opacities, colors, absolute_means = map(torch.from_numpy, grads)
        if ctx.absgrad:
            ctx.means2d.absgrad = absolute_means
        background = torch.from_numpy(grad_background) if ctx.needs_input_grad[6] else None
        return means, conics, colors, opacities, None, None, background, None, None


def _backward_camera(binned, frame, background, g_rendered, g_alphas, row, absgrad, grads) -> None:
    absolute_too = True if absgrad else None
    transmittance, stops = frame.transmittance, frame.stops
    for index in range(len(binned.bands)):
        listed = binned.band(index)
        masks = frame.masks
        if len(binned.bands) > 1:
            again = _Frame(binned, g_rendered.shape[2])
            again.draw(binned, index, listed, background)
            masks = again.masks
        hits, starts, slots, homes = listed
        rows = np.empty((len(hits), row), np.float32)
        backward_band(
            binned.packed, binned.extra, hits, homes, starts, binned.bands[index][0],
            binned.tiles_x, background, masks, transmittance.copy(), stops, g_rendered, g_alphas,
            absolute_too, rows, binned.workers,
        )  # fmt: skip
        reduce_rows(binned.order, binned.packed, slots, rows, absolute_too, grads)


def _background_gradient(binned, frame, g_rendered) -> np.ndarray:
    """Sum over pixels of the transmittance left, times the output gradient; in float64."""
    across = (binned.tiles_y, binned.tiles_x, TILE // HIGH, ACROSS, HIGH, WIDE)
    image = frame.transmittance.reshape(across).transpose(0, 2, 4, 1, 3, 5)
    image = image.reshape(binned.tiles_y * TILE, binned.tiles_x * TILE)
    left = image[: binned.height, : binned.width].astype(np.float64)
    return np.einsum("hw,hwd->d", left, g_rendered)


def composite(
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
    """Composite projected Gaussians front to back: ``rendered`` and ``alphas``.

    ``means2d`` in px with pixel centres at +0.5; ``conics`` (a, b, c) of the inverse 2D covariance
    in 1/px^2; ``opacities`` in 0..1; ``depths`` only order (ties by index); ``radii`` half extents
    in px, 0 or less where culled: they must enclose ``alpha >= 1/255``, what lies outside may or
    may not be drawn. Differentiable in means2d, conics, colors, opacities and backgrounds. With
    ``absgrad``, ``means2d.absgrad`` [C, N, 2] holds after the backward pass the sum over pixels of
    the gradient's absolute value (Ye et al., arXiv:2404.10484).

    The same inputs give the same bits, whatever the number of threads.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels")
    cameras, n = means2d.shape[:2]
    check_shapes(
        means2d=(means2d, (cameras, n, 2)), conics=(conics, (cameras, n, 3)),
        colors=(colors, (cameras, n, None)), opacities=(opacities, (cameras, n)),
        depths=(depths, (cameras, n)), radii=(radii, (cameras, n, 2)),
    )  # fmt: skip
    if backgrounds is not None:
        check_shapes(backgrounds=(backgrounds, (cameras, colors.shape[2])))
    return _Composite.apply(
        means2d, conics, colors, opacities, depths, radii, backgrounds, (width, height), absgrad
    )
