"""The method ``lpgs``: parent/child splats, small on disk, that unpack into plain splats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.errors import UsageError
from scene4d.methods.splat.method import (
    DEFAULT_MAX_GAUSSIANS,
    McmcOptions,
    SparsityOptions,
    SplatMethod,
)
from scene4d.ranges import Count, NotNegative, Rate, Share, Weight, Within
from scene4d.representations.method import (
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


@dataclass(frozen=True, kw_only=True)
class RateOptions(ObjectiveOptions):
    """Weighs the scene's size against its looks, once its values are rounded."""

    implementation: ClassVar[str] = "scene4d.methods.lpgs.rate:Rate"
    weight: Weight = 1e-3
    """Loss for one byte per Gaussian that training started with."""
    target_mb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Below this size, in MB, nothing more is saved; the method's own ``target_mb``."""


@dataclass(frozen=True, kw_only=True)
class TreeOptions(McmcOptions):
    """Adaptive tree manipulation (LPGS): children become parents, dead families go."""

    implementation: ClassVar[str] = "scene4d.methods.lpgs.tree:Tree"
    promote_gradient: NotNegative = 4e-4
    """Mean screen-space gradient (in units of half the image) above which a child is promoted."""
    promote_share: Share = 0.05
    """Share of the parents that is added at once, at most."""
    tree_every: Count = 25
    """Steps between manipulations."""
    target_mb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Size, MB (10^6 bytes), until which the parents that matter least go; by default the
    method's own ``target_mb``."""
    target_at: Share = 0.2
    """Share of training at which that size is reached."""
    hold_from: Share = 0.4
    """Share of training from which no more parents go for that size: rounding alone holds it."""
    hold_bytes: NotNegative = 13.0
    """Bytes of a parent on average from which, at that size, none goes for it even before."""
    tree_until: Share = 0.7
    """Share of training after which no child is promoted."""


@dataclass(frozen=True, kw_only=True)
class LpgsMethod(Method):
    """Parent/child splats: a tenth of the size and less, decoded once into plain splats."""

    name: ClassVar[str] = "lpgs"
    description: ClassVar[str] = "Parent/child compact splats (LPGS, arXiv 2406.19434)"
    representation: ClassVar[str] = "scene4d.methods.lpgs.parent_child:ParentChildSplats"
    made_of_splats: ClassVar[bool] = True
    compressor: ClassVar[str | None] = "scene4d.methods.lpgs.compress:compress"
    default_teacher: ClassVar[str | None] = SplatMethod.name
    default_teacher_share: ClassVar[float] = 0.5

    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    sh_degree: Literal[0, 1, 2, 3] = 3
    """Highest band of the view-dependent colour."""
    max_num_gaussians: Annotated[int, Within(1, 1 << 30)] | None = None
    """Upper limit of parents; by default as for splats: 100,000 or more."""
    num_random_points: Annotated[int, Within(1, 1 << 30)] = 20_000
    """Parents to start from where the capture has no points."""
    init: Literal["auto", "teacher", "points", "random"] = "teacher"
    """Start from the teacher's Gaussians, training splats first where none is given; or without
    one from the capture's points, or at random (auto: from the points if there are any)."""
    target_mb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Size of the bundle in MB (10^6 bytes), met within 2%; by default chosen by looks."""
    num_children: Annotated[int, Within(0, 4)] = 0
    """Most children of a parent, 0 to 4. Children pay off in long trainings: methods/lpgs."""
    grid: bool = False
    """Predict attributes from a hash grid."""
    grid_levels: Annotated[int, Within(1, 32)] = 6
    """Number of levels of the hash grid."""
    grid_features: Annotated[int, Within(1, 16)] = 4
    """Number of features of each level."""
    grid_coarsest: Annotated[int, Within(1, 65536)] = 8
    """Cells along an axis of the coarsest level."""
    grid_finest: Annotated[int, Within(1, 65536)] = 128
    """Cells along an axis of the finest level."""
    grid_share: Annotated[float, Within(0.0, 64.0, above=True)] = 0.25
    """Rows of the largest level's table, as a share of the parents to start from."""
    hidden: Annotated[int, Within(1, 256)] = 32
    """Width of the network."""
    attention: bool = True
    """Members of a family attend to each other."""
    contraction: bool = True
    """The grid covers all space, contracted; otherwise a box twice as wide as the cameras'."""
    position_bits: Annotated[int, Within(4, 20)] | None = None
    """Bits along each axis of the contracted space; by default from the images' resolution."""
    warm_up: Share | None = None
    """Share of training with parents alone; by default 0.4, or 0 with a teacher."""
    quantise_at: Annotated[float, Within(0.0, 2.0)] | None = None
    """Share of training at which rounding starts; by default 0.6, or 0 with a teacher."""
    means_lr: Annotated[float, Within(0.0, 10.0, above=True)] = 3.2e-4
    """Learning rate of the positions, scene extents a step."""
    means_lr_final: Annotated[float, Within(0.0, 10.0, above=True)] = 3.2e-6
    """Learning rate of the positions at the end, scene extents a step."""
    scales_lr: Rate = 1e-2
    """Learning rate of the logarithms of the scales."""
    rotations_lr: Rate = 4e-3
    """Learning rate of the rotations."""
    opacities_lr: Rate = 2.5e-2
    """Learning rate of the opacities (logits)."""
    sh0_lr: Rate = 5e-3
    """Learning rate of band 0 of the colour."""
    shN_lr: Rate = 5e-4
    """Learning rate of bands 1 to 3 of the colour."""
    masks_lr: Rate = 5e-2
    """Learning rate of the children's masks."""
    grid_lr: Rate = 2e-3
    """Learning rate of the hash grid's features."""
    network_lr: Rate = 1e-3
    """Learning rate of the network."""
    quantisers_lr: Rate = 5e-3
    """Learning rate of the quantisers' steps."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.1
    """Learning rates other than the positions' end at this share of their start."""
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)
    outlines: OutlinesOptions = field(default_factory=lambda: OutlinesOptions(weight=0.1))
    rate: RateOptions = field(default_factory=RateOptions)
    sparsity: SparsityOptions = field(default_factory=lambda: SparsityOptions(weight=0.0))
    teaching: TeacherOptions = field(default_factory=lambda: TeacherOptions(weight=0.0))
    tree: TreeOptions = field(default_factory=TreeOptions)

    def __post_init__(self) -> None:
        if self.target_mb is not None and not 0 < self.target_mb < float("inf"):
            raise UsageError(f"--target-mb must be positive, got {self.target_mb}")
        if not 0 <= self.num_children <= 4:
            raise UsageError(f"--num-children must be 0 to 4, got {self.num_children}")
        if not 1 <= self.hidden <= 256:  # decoders take no more
            raise UsageError(f"--hidden must be 1 to 256, got {self.hidden}")

    @property
    def most_gaussians(self) -> int:
        """The limit, also where nobody chose one."""
        return self.max_num_gaussians or DEFAULT_MAX_GAUSSIANS

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Parents at the teacher's Gaussians, at the capture's points, or at random ones."""
        scenes: Any = self.representation_class()
        return scenes.from_scene(task.scene, self, generator=generator, teacher=task.teacher)

    @property
    def starts_from_teacher(self) -> bool:
        """Unless ``init`` names something else to start from."""
        return self.init == "teacher"

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """Looks, outlines where there are some, and size; a teacher's pictures where they have a
        weight."""
        rate = replace(self.rate, target_mb=self.target_mb)
        return [self.photometric, self.outlines, rate, self.sparsity, self.teaching]

    def strategy_options(self) -> StrategyOptions:
        """Growth during warm-up, then adaptive tree manipulation."""
        return replace(self.tree, target_mb=self.target_mb)

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Every rate decays exponentially, positions' by far the most."""
        if group == "quantisers":
            return 1.0
        last = self.means_lr_final / self.means_lr if group == "means" else self.settle
        return last**progress


LPGS = LpgsMethod
