"""``rasterization``: 3D Gaussians to images, with the arguments and results of gsplat 1.5.3.

=====================  ===========================================================================
argument               what this rasteriser does with it
=====================  ===========================================================================
means ... Ks           one scene, any number of cameras: ``[N, ...]`` and ``[C, ...]``; gsplat's
                       leading scene-batch dimensions are not supported; skew is not used
colors                 ``[N, D]`` or ``[C, N, D]``; with ``sh_degree`` 0-3 ``[N, K, 3]`` or
                       ``[C, N, K, 3]``, or (not in gsplat) a pair of the constant function's
                       ``[.., 1, 3]`` and the others' ``[.., K - 1, 3]``, which saves joining them
near_plane, far_plane, as in gsplat; a Gaussian at or behind the camera is culled whatever
radius_clip, eps2d     ``near_plane`` is
packed, tile_size,     accepted; they do not change the images here, and ``meta`` always has
channel_chunk,         gsplat's ``packed=False`` layout, with zeros where culled (on CUDA
segmented              culled entries are whatever gsplat leaves there)
backgrounds, absgrad,  as in gsplat
render_mode,
rasterize_mode
camera_model           only "pinhole"
rolling_shutter        only global (None or gsplat's ``RollingShutterType.GLOBAL``)
sparse_grad, covars,   not supported: any value but the default raises UnsupportedArgumentError
distributed, with_ut,
with_eval3d, radial_-,
tangential_-, thin_-
prism_coeffs, ftheta_-
coeffs, viewmats_rs
=====================  ===========================================================================

``meta`` holds ``means2d`` (an autograd node: ``retain_grad()`` and ``absgrad`` work as in gsplat),
``radii``, ``depths``, ``conics``, ``opacities``, ``batch_ids``/``camera_ids``/``gaussian_ids``
(None), ``width``, ``height``, ``tile_size``, ``tile_width``, ``tile_height``, ``n_batches``,
``n_cameras``. gsplat's own intersection lists (``isect_ids`` ...) are only there on CUDA.

Gradients flow to everything but the intrinsics, also through the SH view direction to means and
poses.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import Scene4dError
from scene4d.rendering.backends import BackendName, choose_backend
from scene4d.rendering.splats import reference
from scene4d.rendering.splats.cuda import load_gsplat
from scene4d.rendering.splats.reference import Projected, ProjectionSettings

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
_MAX_SH_DEGREE = 3

Rendered = tuple[
    Float[Tensor, "C height width X"], Float[Tensor, "C height width 1"], dict[str, Any]
]


class UnsupportedArgumentError(Scene4dError):
    """An argument of gsplat's that this rasteriser does not have was given."""


def rasterization(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, " ..."] | tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]],
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "C D"] | None = None,
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: Any = None,
    viewmats_rs: Tensor | None = None,
) -> Rendered:
    """Draw Gaussians: colours ``[C, H, W, X]``, alphas ``[C, H, W, 1]`` and ``meta``.

    Arguments, order, defaults and results are gsplat 1.5.3's; the module says what is supported.
    ``means`` and ``scales`` (standard deviations) in scene units; ``quats`` wxyz, normalised here;
    ``opacities`` 0..1; ``viewmats`` world-to-camera, OpenCV axes; ``Ks``, ``radius_clip`` in px;
    ``eps2d`` in px^2. X is D for "RGB", 1 for "D" (accumulated depth) and "ED" (expected depth),
    D + 1 for "RGB+D" and "RGB+ED", depth last. Runs on the back end for the device of ``means``.
    """
    return rasterize(**locals())


def rasterize(
    *args: Any, backend: Literal["auto", "numba", "gsplat", "reference"] = "auto", **kwargs: Any
) -> Rendered:
    """:func:`rasterization` on a named back end; "auto" goes by the device of ``means``.

    Raises UnsupportedArgumentError, BackendUnavailableError (gsplat without a working GPU) or
    Scene4dError (shapes and dtypes that do not fit), naming what does.
    """
    bound = _SIGNATURE.bind(*args, **kwargs)
    _refuse_unsupported(bound.arguments)
    bound.apply_defaults()
    names = {f: bound.arguments[f] for f in _Call.__dataclass_fields__}
    call = _Call(**names)
    call.check()
    name = choose_backend(call.means.device) if backend == "auto" else backend
    if name == "gsplat":
        supported = {k: v for k, v in bound.arguments.items() if k not in _UNSUPPORTED}
        return load_gsplat()(**{**supported, "colors": call.joined_colors, "packed": False})
    return call.draw(name)


def view_colors(
    coeffs: tuple[Float[Tensor, "N 1 3"], Float[Tensor, "N rest 3"]],
    means: Float[Tensor, "N 3"],
    viewmats: Float[Tensor, "C 4 4"],
    sh_degree: int,
) -> Float[Tensor, "C N 3"]:
    """The colours that :func:`rasterization` gives to harmonics, ``max(SH(direction) + 0.5, 0)``:
    to composite other channels beside them in one pass."""
    steps = _numba_steps(means) if choose_backend(means.device) == "numba" else _reference_steps()
    visible = torch.ones(len(viewmats), len(means), dtype=torch.bool, device=means.device)
    given = coeffs if steps.pairs else torch.cat(coeffs, dim=-2)
    shaded: Tensor = steps.sh_colors(given, means, viewmats, visible, sh_degree)
    return shaded


_SIGNATURE = inspect.signature(rasterization)
_UNSUPPORTED = (
    "sparse_grad", "distributed", "camera_model", "covars", "with_ut", "with_eval3d",
    "radial_coeffs", "tangential_coeffs", "thin_prism_coeffs", "ftheta_coeffs",
    "rolling_shutter", "viewmats_rs",
)  # fmt: skip


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        default = _SIGNATURE.parameters[name].default
        value = given.get(name, default)
        if value is default or (not isinstance(value, Tensor) and value == default):
            continue
        if name == "rolling_shutter" and getattr(value, "name", None) == "GLOBAL":
            continue
        shown = "a tensor" if isinstance(value, Tensor) else repr(value)
        raise UnsupportedArgumentError(
            f"rasterization({name}=...) is not supported, got {shown}",
            fix=f"leave it at {default!r}; supported: pinhole cameras without distortion, dense "
            f"gradients, SH degree 0-{_MAX_SH_DEGREE}, render modes {', '.join(_MODES)}, classic "
            "and antialiased",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """The arguments that matter to the CPU back ends."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | tuple[Tensor, Tensor]
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    tile_size: int
    backgrounds: Tensor | None
    render_mode: RenderMode
    absgrad: bool
    rasterize_mode: Literal["classic", "antialiased"]

    def check(self) -> None:
        """Raise Scene4dError for shapes, types and values that cannot be drawn."""
        N, C = self.means.shape[0], self.viewmats.shape[0]
        expected = {
            "means": (N, 3), "quats": (N, 4), "scales": (N, 3), "opacities": (N,),
            "viewmats": (C, 4, 4), "Ks": (C, 3, 3),
        }  # fmt: skip
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise Scene4dError(f"shape is {list(got)}, expected {list(shape)}", where=name)
        if self.render_mode not in _MODES:
            raise Scene4dError(f"{self.render_mode!r} is none of {_MODES}", where="render_mode")
        if self.rasterize_mode not in ("classic", "antialiased"):
            raise Scene4dError(
                f"{self.rasterize_mode!r} is neither 'classic' nor 'antialiased'",
                where="rasterize_mode",
            )
        if self.width < 1 or self.height < 1 or self.tile_size < 1:
            raise Scene4dError(
                f"width {self.width}, height {self.height} and tile_size {self.tile_size} "
                "must be at least 1"
            )
        self._check_colors(N, C)
        self._check_types()

    @property
    def joined_colors(self) -> Tensor:
        """Colours or coefficients as one tensor."""
        return self.colors if isinstance(self.colors, Tensor) else torch.cat(self.colors, dim=-2)

    def _check_colors(self, N: int, C: int) -> None:
        pieces = self.colors if isinstance(self.colors, tuple) else (self.colors,)
        shapes = [list(piece.shape) for piece in pieces]
        if self.sh_degree is None:
            fits = len(shapes) == 1 and shapes[0][:-1] in ([N], [C, N])
            wanted = f"[{N}, D] or [{C}, {N}, D]"
        elif not 0 <= self.sh_degree <= _MAX_SH_DEGREE:
            raise UnsupportedArgumentError(
                f"sh_degree={self.sh_degree}; supported are 0 to {_MAX_SH_DEGREE}"
            )
        else:
            needed = (self.sh_degree + 1) ** 2
            fits = all(s[:-2] in ([N], [C, N]) and s[-1] == 3 for s in shapes)
            fits = fits and sum(s[-2] for s in shapes) >= needed
            fits = fits and (len(shapes) == 1 or (shapes[0][-2] == 1 and len(shapes) == 2))
            fits = fits and len({len(s) for s in shapes}) == 1
            wanted = (
                f"[{N}, K, 3] or [{C}, {N}, K, 3] with K >= {needed} (sh_degree is set), or such "
                "K split into a pair of 1 and K - 1"
            )
        if not fits:
            got = " and ".join(str(s) for s in shapes)
            raise Scene4dError(f"shape is {got}, expected {wanted}", where="colors")
        if self.backgrounds is not None and list(self.backgrounds.shape) != [C, shapes[0][-1]]:
            raise Scene4dError(
                f"shape is {list(self.backgrounds.shape)}, expected {[C, shapes[0][-1]]}",
                where="backgrounds",
            )

    def _check_types(self) -> None:
        named = {k: getattr(self, k) for k in ("quats", "scales", "opacities", "viewmats", "Ks")}
        named["backgrounds"] = self.backgrounds
        pieces = (self.colors,) if isinstance(self.colors, Tensor) else self.colors
        for name, tensor in (*named.items(), *(("colors", piece) for piece in pieces)):
            if tensor is None:
                continue
            if (tensor.dtype, tensor.device) != (self.means.dtype, self.means.device):
                raise Scene4dError(
                    f"is {tensor.dtype} on {tensor.device}, but means are {self.means.dtype} on "
                    f"{self.means.device}",
                    where=name,
                )

    @property
    def settings(self) -> ProjectionSettings:
        """The part that concerns the projection."""
        return ProjectionSettings(
            width=self.width,
            height=self.height,
            near_plane=self.near_plane,
            far_plane=self.far_plane,
            radius_clip=self.radius_clip,
            eps2d=self.eps2d,
            antialiased=self.rasterize_mode == "antialiased",
        )

    def draw(self, backend: BackendName) -> Rendered:
        """Project, shade and composite on one of the CPU back ends."""
        steps = _numba_steps(self.means) if backend == "numba" else _reference_steps()
        gaussians = (self.means, self.quats, self.scales, self.opacities)
        projected = steps.project(*gaussians, self.viewmats, self.Ks, self.settings)
        opacities = self.opacities.expand(len(self.viewmats), -1)
        if projected.compensations is not None:
            opacities = opacities * projected.compensations
        colors, backgrounds = self._channels(steps, projected)
        rendered, alphas = steps.composite(
            projected.means2d, projected.conics, colors, opacities, projected.depths.detach(),
            projected.radii, backgrounds, width=self.width, height=self.height,
            absgrad=self.absgrad,
        )  # fmt: skip
        if self.render_mode.endswith("ED"):
            expected = rendered[..., -1:] / alphas.clamp_min(1e-10)
            rendered = torch.cat([rendered[..., :-1], expected], dim=-1)
        return rendered, alphas, self._meta(projected, opacities)

    def _channels(self, steps: _Steps, projected: Projected) -> tuple[Tensor, Tensor | None]:
        """What is composited: colours, depth or both, [C, N, X], and its background."""
        C = len(self.viewmats)
        depth, backgrounds = projected.depths[..., None], self.backgrounds
        if self.render_mode in ("D", "ED"):
            return depth, None
        if self.sh_degree is None:
            colors = self.joined_colors.expand(C, -1, -1)
        else:
            coeffs = self.colors if steps.pairs else self.joined_colors
            colors = steps.sh_colors(
                coeffs, self.means, self.viewmats, projected.visible, self.sh_degree
            )
        if self.render_mode == "RGB":
            return colors, backgrounds
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(C, 1)], dim=-1)
        return torch.cat([colors, depth], dim=-1), backgrounds

    def _meta(self, projected: Projected, opacities: Tensor) -> dict[str, Any]:
        return {
            "batch_ids": None,
            "camera_ids": None,
            "gaussian_ids": None,
            "radii": projected.radii,
            "means2d": projected.means2d,
            "depths": projected.depths,
            "conics": projected.conics,
            "opacities": opacities,
            "tile_width": math.ceil(self.width / self.tile_size),
            "tile_height": math.ceil(self.height / self.tile_size),
            "width": self.width,
            "height": self.height,
            "tile_size": self.tile_size,
            "n_batches": 1,
            "n_cameras": len(self.viewmats),
        }


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """The three functions that make a back end."""

    project: Any
    sh_colors: Any
    composite: Any
    pairs: bool
    """Whether ``sh_colors`` takes coefficients in two parts."""


def _reference_steps() -> _Steps:
    return _Steps(
        project=reference.project,
        sh_colors=reference.sh_colors,
        composite=reference.composite_reference,
        pairs=False,
    )


def _numba_steps(means: Tensor) -> _Steps:
    """The kernels, which take float32 on the CPU."""
    if means.dtype != torch.float32 or means.device.type != "cpu":
        raise Scene4dError(
            f"the numba back end takes float32 on the CPU, got {means.dtype} on {means.device}",
            where="means",
            fix="convert the tensors, or call rasterize(..., backend='reference')",
        )
    from scene4d.rendering.splats.compositing import composite
    from scene4d.rendering.splats.harmonics import sh_colors
    from scene4d.rendering.splats.projection import project

    return _Steps(project=project, sh_colors=sh_colors, composite=composite, pairs=True)
