"""Gaussian splats: anisotropic 3D Gaussians with opacity and view-dependent colour.

Names: ``means`` [N, 3] world; ``quats`` [N, 4] wxyz, any length; ``scales`` [N, 3] log of the
standard deviations; ``opacities`` [N] logits; ``sh0`` [N, 1, 3] and ``shN`` [N, K - 1, 3]
spherical harmonics. Source: 3D Gaussian Splatting, Kerbl et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.data.points import random_points
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud, local_frame
from scene4d.plain import from_table
from scene4d.ranges import Count, NotNegative, Positive, Share, Within
from scene4d.rendering.render import RGB, Render, Want
from scene4d.rendering.splats.rasterization import rasterization, view_colors
from scene4d.rendering.splats.reference import SH_C0
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.saved import Form, form

if TYPE_CHECKING:
    from scene4d.data.scene import Points, Scene
    from scene4d.methods.splat.method import SplatMethod

NAMES = ("means", "quats", "scales", "opacities", "sh0", "shN")
NEAR_SHARE = 0.002
"""Of the scene's extent: what is nearer to a camera is not drawn (0.01 in a working frame)."""
_EXTENTS = 5.0
"""Of a capture around a content of size 1."""
PIXEL_BLUR = 0.3
"""Variance that 3DGS adds to what is projected, px^2."""
SPLATS_GRAPH_PIXELS = 1 << 24
"""See :attr:`Representation.graph_pixels`: rasterisation keeps few numbers of a pixel, and many of
every Gaussian, which rendering in pieces would keep for each piece."""


def sh_degree_of(num_coefficients: int) -> int:
    """The degree whose bands have ``num_coefficients`` in all (1, 4, 9 or 16)."""
    degrees = {1: 0, 4: 1, 9: 2, 16: 3}
    if num_coefficients not in degrees:
        raise DataError(
            f"there are {num_coefficients} harmonics for each Gaussian, expected 1, 4, 9 or 16"
        )
    return degrees[num_coefficients]


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """:meth:`GaussianSplats.plain_data`, as it may be."""

    learning_rates: Mapping[str, NotNegative]
    sh_bands_at: tuple[Share, ...]
    antialiased: bool
    extent: Positive
    max_num_gaussians: Count
    active_sh_degree: Annotated[int, Within(0, 3)]

    def __post_init__(self) -> None:
        if self.learning_rates and set(self.learning_rates) != set(NAMES):
            raise ValueError(f"there are learning rates of {', '.join(self.learning_rates)}")


class GaussianSplats(Representation):
    """A set of 3D Gaussians."""

    graph_pixels = SPLATS_GRAPH_PIXELS

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        learning_rates: Mapping[str, float] | None = None,
        sh_bands_at: tuple[float, ...] = (),
        antialiased: bool = False,
        extent: float = 1.0,
        max_num_gaussians: int = 2**31 - 1,
    ) -> None:
        """``tensors`` as named in the module's docstring; without ``learning_rates`` the splats
        are for rendering only. ``extent``: scene units that position rates are multiples of."""
        super().__init__()
        self.gaussians = nn.ParameterDict({name: nn.Parameter(tensors[name]) for name in NAMES})
        self.learning_rates = dict(learning_rates or {})
        self.sh_bands_at = tuple(sh_bands_at)
        self.antialiased = antialiased
        self.extent = extent
        self.max_num_gaussians = max_num_gaussians
        self.active_sh_degree = self.sh_degree

    @property
    def num_gaussians(self) -> int:
        """How many Gaussians there are."""
        return self.gaussians["means"].shape[0]

    @property
    def sh_degree(self) -> int:
        """The highest band that is stored."""
        return sh_degree_of(1 + self.gaussians["shN"].shape[1])

    @property
    def means(self) -> Float[Tensor, "n 3"]:
        """Centres in the world."""
        return self.gaussians["means"]

    @property
    def quats(self) -> Float[Tensor, "n 4"]:
        """Rotations, wxyz, of any length."""
        return self.gaussians["quats"]

    @property
    def stds(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the principal axes, scene units."""
        return self.gaussians["scales"].exp()

    @property
    def alphas(self) -> Float[Tensor, " n"]:
        """Opacities, 0..1."""
        return self.gaussians["opacities"].sigmoid()

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        method: SplatMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> GaussianSplats:
        """One isotropic Gaussian per point, as large as its distance to its neighbours; or the
        Gaussians of ``teacher``."""
        taught = None if teacher is None else teacher.splats()
        if taught is not None:
            given = cls.of(taught, sh_degree=method.sh_degree)
        else:
            given = cls.at_points(
                scene,
                init=method.init,
                num_random_points=method.num_random_points,
                max_num_gaussians=method.most_gaussians,
                sh_degree=method.sh_degree,
                generator=generator,
            )
        return cls(
            {name: given.gaussians[name].detach() for name in NAMES},
            learning_rates={name: getattr(method, f"{name}_lr") for name in NAMES},
            sh_bands_at=method.sh_bands_at,
            antialiased=method.antialiased,
            extent=scene.extent,
            max_num_gaussians=method.most_gaussians,
        )

    @classmethod
    def at_points(
        cls,
        scene: Scene,
        *,
        init: str,
        num_random_points: int,
        max_num_gaussians: int,
        sh_degree: int,
        generator: torch.Generator,
    ) -> GaussianSplats:
        """Isotropic Gaussians at the capture's points, or at random ones (``init``: auto, points
        or random). Raises :class:`DataError` where points are asked for and there are none."""
        points = scene.points
        if init == "points" and points is None:
            raise DataError(
                "the capture has no 3D points to start from",
                where=scene.root,
                fix="use --init random, or add ply_file_path to transforms.json",
            )
        if points is None or init == "random":
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
            points = random_points(scene, num_random_points, seed=seed)
        points = _at_most(points, max_num_gaussians, generator)
        return cls(gaussians_from_points(points.xyz, points.rgb, sh_degree=sh_degree))

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> GaussianSplats:
        """Built again from a checkpoint."""
        settings = dict(vars(from_table(_Saved, plain, where="settings")))
        active = settings.pop("active_sh_degree")
        splats = cls({name: tensors[f"gaussians.{name}"] for name in NAMES}, **settings)
        splats.active_sh_degree = min(active, splats.sh_degree)
        return splats

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """One row for each Gaussian."""
        shapes = {
            "means": "n 3", "quats": "n 4", "scales": "n 3", "opacities": "n",
            "sh0": "n 1 3", "shN": "n rest 3",
        }  # fmt: skip
        return {f"gaussians.{name}": form(shapes[name]) for name in NAMES}

    def plain_data(self) -> Mapping[str, Any]:
        """What the tensors do not say."""
        return {
            "learning_rates": self.learning_rates,
            "sh_bands_at": list(self.sh_bands_at),
            "antialiased": self.antialiased,
            "extent": self.extent,
            "max_num_gaussians": self.max_num_gaussians,
            "active_sh_degree": self.active_sh_degree,
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group per attribute; position rates are multiples of the scene's extent."""
        return [
            ParameterGroup(
                name=name,
                parameters=[self.gaussians[name]],
                learning_rate=rate * (self.extent if name == "means" else 1.0),
            )
            for name, rate in self.learning_rates.items()
        ]

    def on_progress(self, progress: float) -> None:
        """Adds one band of spherical harmonics after each of ``sh_bands_at``."""
        due = sum(progress >= at for at in self.sh_bands_at)
        self.active_sh_degree = min(self.sh_degree, due)

    @classmethod
    def of(
        cls, cloud: SplatCloud, *, sh_degree: int | None = None, extent: float | None = None
    ) -> GaussianSplats:
        """Splats that render, from plain arrays; the inverse of :meth:`splats`.

        In float32: ``cloud`` is to lie near the origin. ``sh_degree``: the highest band, by default
        the cloud's. ``extent``: scene units; by default by the content, for the near plane.
        """
        sh = torch.from_numpy(cloud.sh.astype(np.float32))
        if sh_degree is not None:
            more = max(0, (sh_degree + 1) ** 2 - sh.shape[1])
            sh = torch.cat([sh, torch.zeros(len(sh), more, 3)], dim=1)[:, : (sh_degree + 1) ** 2]
        return cls(
            {
                "means": torch.from_numpy(cloud.means.astype(np.float32)),
                "quats": torch.from_numpy(cloud.quats.copy()),
                "scales": torch.from_numpy(cloud.log_scales.copy()),
                "opacities": torch.from_numpy(cloud.logit_opacities.copy()),
                "sh0": sh[:, :1].contiguous(),
                "shN": sh[:, 1:].contiguous(),
            },
            antialiased=cloud.antialiased,
            extent=_EXTENTS * float(local_frame(cloud)[0, 0]) if extent is None else extent,
        )

    def splats(self, time: float | None = None) -> SplatCloud:
        """The Gaussians in scene coordinates, with the bands of colour that are in use."""
        used = (self.active_sh_degree + 1) ** 2 - 1
        tensors = self.gaussians
        sh = torch.cat([tensors["sh0"], tensors["shN"][:, :used]], dim=1)

        def array(tensor: Tensor) -> np.ndarray:
            return tensor.detach().cpu().numpy().astype(np.float32)

        return SplatCloud(
            means=array(tensors["means"]),
            quats=array(tensors["quats"]),
            log_scales=array(tensors["scales"]),
            logit_opacities=array(tensors["opacities"]),
            sh=array(sh),
            antialiased=self.antialiased,
        )

    def moved(self, similarity: np.ndarray) -> GaussianSplats:
        """In other coordinates; for rendering only."""
        return GaussianSplats.of(self.splats().transformed(similarity))

    def describe(self) -> dict[str, float]:
        """The number of Gaussians."""
        return {"num_gaussians": self.num_gaussians}

    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """Rasterises the Gaussians; ``extras`` holds the rasteriser's screen-space data."""
        tensors = {name: self.gaussians[name] for name in NAMES}
        return render_gaussians(
            {**tensors, "alphas": self.alphas},
            camera,
            background=background,
            depth=want.depth,
            sh_degree=self.active_sh_degree,
            antialiased=self.antialiased,
            near=NEAR_SHARE * self.extent,
        )


def render_gaussians(
    tensors: Mapping[str, Tensor],
    camera: Camera,
    *,
    background: Float[Tensor, " 3"] | None,
    depth: bool,
    sh_degree: int,
    antialiased: bool,
    near: float,
    blur: float = PIXEL_BLUR,
    features: Float[Tensor, "n channels"] | None = None,
) -> Render:
    """The picture of Gaussians given as plain tensors: as named in the module's docstring, with
    ``alphas`` (0..1) in place of logits. Nothing nearer than ``near`` is drawn; ``blur`` is
    added to their variances, px^2. ``features``: of each Gaussian, for ``Render.features``, where
    they are expected values like depth."""
    batched = camera.c2w.ndim == 3
    viewmats = camera.viewmat if batched else camera.viewmat[None]
    count = viewmats.shape[0]
    backgrounds = None if background is None else background.expand(count, 3)
    coeffs = (tensors["sh0"], tensors["shN"])
    colors: Any = coeffs
    if features is not None:
        shaded = view_colors(coeffs, tensors["means"], viewmats, sh_degree)
        colors = torch.cat([shaded, features.expand(count, *features.shape)], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.nn.functional.pad(backgrounds, (0, features.shape[-1]))
    drawn, alphas, meta = rasterization(
        tensors["means"],
        tensors["quats"],
        tensors["scales"].exp(),
        tensors["alphas"],
        colors,
        viewmats,
        camera.K if batched else camera.K[None],
        camera.width,
        camera.height,
        sh_degree=sh_degree if features is None else None,
        render_mode="RGB+ED" if depth else "RGB",
        backgrounds=backgrounds,
        rasterize_mode="antialiased" if antialiased else "classic",
        packed=False,
        near_plane=near,
        eps2d=blur,
    )
    expected = None if features is None else drawn[..., 3 : 3 + features.shape[-1]]
    if expected is not None:
        expected = expected / alphas.clamp_min(1e-10)
    if not batched:
        drawn, alphas = drawn[0], alphas[0]
        expected = None if expected is None else expected[0]
    return Render(
        rgb=drawn[..., :3],
        alpha=alphas[..., 0],
        depth=drawn[..., -1] if depth else None,
        features=expected,
        extras=meta,
    )


def gaussians_from_points(
    xyz: Float[Tensor, "n 3"], rgb: UInt8[Tensor, "n 3"], *, sh_degree: int, opacity: float = 0.1
) -> dict[str, Tensor]:
    """Isotropic Gaussians at points: the standard deviation is the root mean square distance to
    the three nearest neighbours (3DGS, section 5.1)."""
    num_points = xyz.shape[0]
    spacing = neighbour_spacing(xyz).clamp_min(1e-7)
    logit = torch.logit(torch.tensor(opacity))
    return {
        "means": xyz.clone(),
        "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(num_points, 1),
        "scales": spacing.log()[:, None].repeat(1, 3),
        "opacities": logit.repeat(num_points),
        "sh0": ((rgb.float() / 255.0 - 0.5) / SH_C0)[:, None, :],
        "shN": torch.zeros(num_points, (sh_degree + 1) ** 2 - 1, 3),
    }


def neighbour_spacing(xyz: Float[Tensor, "n 3"], num_neighbours: int = 3) -> Float[Tensor, " n"]:
    """Root mean square distance of each point to its nearest neighbours, scene units."""
    from scipy.spatial import cKDTree

    if xyz.shape[0] <= 1:
        return torch.full((xyz.shape[0],), 0.01)
    k = min(num_neighbours + 1, xyz.shape[0])
    distances, _ = cKDTree(xyz.numpy()).query(xyz.numpy(), k=k, workers=-1)
    return torch.from_numpy(distances[:, 1:]).float().pow(2).mean(dim=1).sqrt()


def _at_most(points: Points, limit: int, generator: torch.Generator) -> Points:
    """A random subset where there are more points than Gaussians may be."""
    if points.xyz.shape[0] <= limit:
        return points
    keep = torch.randperm(points.xyz.shape[0], generator=generator)[:limit]
    return type(points)(xyz=points.xyz[keep], rgb=points.rgb[keep])
