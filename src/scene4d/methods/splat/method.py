"""The method ``splat``: 3D Gaussian splats fitted to photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.ranges import Count, NotNegative, Rate, Share, Weight, Within
from scene4d.representations.method import (
    DepthOptions,
    Method,
    ObjectiveOptions,
    OutlinesOptions,
    PhotometricOptions,
    StrategyOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


DEFAULT_MAX_GAUSSIANS = 100_000
"""The limit where training does not choose one."""


@dataclass(frozen=True, kw_only=True)
class SparsityOptions(ObjectiveOptions):
    """Draws opacities and scales to zero, so that useless Gaussians free themselves (MCMC)."""

    implementation: ClassVar[str] = "scene4d.methods.splat.sparsity:Sparsity"
    opacity: Weight = 0.01
    """Weight of the mean opacity."""
    scale: Weight = 0.01
    """Weight of the mean standard deviation, in scene extents."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptions(StrategyOptions):
    """Adaptive density control (Kerbl et al. 2023, section 5): clone, split, prune, reset."""

    implementation: ClassVar[str] = "scene4d.methods.splat.adaptive:Adaptive"
    gradient_threshold: NotNegative = 2e-4
    """Mean screen-space gradient (in units of half the image) above which a Gaussian divides."""
    split_scale: NotNegative = 0.01
    """Gaussians larger than this many scene extents are split, smaller ones cloned."""
    prune_opacity: Share = 0.005
    """Opacity, 0 to 1, below which a Gaussian is removed."""
    prune_scale: NotNegative = 0.1
    """Gaussians larger than this many scene extents go, once opacities were reset."""
    refine_every: Count = 100
    """Steps between refinements."""
    refine_from: Share = 0.02
    """Share of training from which Gaussians are added and removed."""
    refine_until: Share = 0.5
    """Shares of training between which the number of Gaussians changes."""
    num_opacity_resets: Annotated[int, Within(0, 10_000)] = 2
    """Times that all opacities are brought down to twice the opacity of pruning."""


@dataclass(frozen=True, kw_only=True)
class McmcOptions(StrategyOptions):
    """Splatting as Markov chain Monte Carlo (Kheradmand et al. 2024): relocate, add, perturb."""

    implementation: ClassVar[str] = "scene4d.methods.splat.mcmc:Mcmc"
    min_opacity: Annotated[float, Within(0.0, 0.5, above=True)] = 0.005
    """Opacity, 0 to 1, below which a Gaussian is dead and is moved onto a live one."""
    refine_every: Count = 100
    """Steps between relocations."""
    refine_from: Share = 0.02
    """Share of training from which Gaussians are relocated."""
    refine_until: Share = 0.85
    """Shares of training between which Gaussians are relocated."""
    grow_until: Annotated[float, Within(0.0, 1.0, above=True)] = 0.5
    """Share of training at which the largest number of Gaussians is reached."""
    noise: NotNegative = 5e5
    """Strength of the noise on positions, times their learning rate."""


@dataclass(frozen=True, kw_only=True)
class SplatMethod(Method):
    """3D Gaussian splats: a first picture in seconds, files that every splat viewer opens."""

    name: ClassVar[str] = "splat"
    description: ClassVar[str] = "3D Gaussian splats (Kerbl et al. 2023)"
    representation: ClassVar[str] = "scene4d.representations.gaussians:GaussianSplats"
    made_of_splats: ClassVar[bool] = True

    sh_degree: Literal[0, 1, 2, 3] = 3
    """Highest band of the view-dependent colour."""
    sh_bands_at: tuple[Share, Share, Share] = (0.25, 0.45, 0.6)
    """Shares of training after which bands 1, 2 and 3 are trained."""
    max_num_gaussians: Annotated[int, Within(1, 1 << 30)] | None = None
    """Upper limit of Gaussians; by default train chooses by the pictures, the time and the memory
    there are, 100,000 or more."""
    num_random_points: Annotated[int, Within(1, 1 << 30)] = 20_000
    """Gaussians to start from where the capture has no points."""
    init: Literal["auto", "points", "random"] = "auto"
    """Start from the teacher's Gaussians or else the capture's points (or its fused depth), from
    the points, or at random."""
    antialiased: bool = False
    """Scale opacities so that tiny Gaussians keep their energy (Mip-Splatting's 2D filter)."""
    strategy: Literal["mcmc", "adaptive", "none"] = "mcmc"
    """Densification strategy: MCMC relocation, adaptive density control, or none."""
    means_lr: Annotated[float, Within(0.0, 10.0, above=True)] = 1.6e-4
    """Learning rate of the positions, scene extents a step."""
    means_lr_final: Annotated[float, Within(0.0, 10.0, above=True)] = 1.6e-6
    """Learning rate of the positions at the end, scene extents a step."""
    scales_lr: Rate = 1e-2
    """Learning rate of the logarithms of the scales."""
    quats_lr: Rate = 2e-3
    """Learning rate of the rotations (quaternions)."""
    opacities_lr: Rate = 5e-2
    """Learning rate of the opacities (logits)."""
    sh0_lr: Rate = 2.5e-3
    """Learning rate of band 0 of the colour."""
    shN_lr: Rate = 1.25e-4
    """Learning rate of bands 1 to 3 of the colour."""
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)
    depth: DepthOptions = field(default_factory=DepthOptions)
    outlines: OutlinesOptions = field(default_factory=lambda: OutlinesOptions(weight=0.1))
    sparsity: SparsityOptions = field(default_factory=SparsityOptions)
    teaching: TeacherOptions = field(default_factory=lambda: TeacherOptions(weight=0.0))
    mcmc: McmcOptions = field(default_factory=McmcOptions)
    adaptive: AdaptiveOptions = field(default_factory=AdaptiveOptions)

    @property
    def most_gaussians(self) -> int:
        """The limit, also where nobody chose one."""
        return self.max_num_gaussians or DEFAULT_MAX_GAUSSIANS

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Gaussians at the teacher's, at the capture's points, or at random ones: see ``init``."""
        splats: Any = self.representation_class()
        teacher = task.teacher if self.init == "auto" else None
        return splats.from_scene(task.scene, self, generator=generator, teacher=teacher)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """Photometric and, where there are depth and outlines, these; a teacher's where it has a
        weight; MCMC needs its sparsity terms."""
        terms: list[ObjectiveOptions] = [
            self.photometric, self.depth, self.outlines, self.teaching
        ]  # fmt: skip
        if self.strategy == "mcmc":
            terms.append(self.sparsity)
        return terms

    def strategy_options(self) -> StrategyOptions:
        """The options of the chosen strategy."""
        return {"mcmc": self.mcmc, "adaptive": self.adaptive}.get(self.strategy, StrategyOptions())

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Positions settle exponentially; the rest is constant."""
        if group != "means":
            return 1.0
        return (self.means_lr_final / self.means_lr) ** progress


SPLAT = SplatMethod
