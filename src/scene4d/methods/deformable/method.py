"""The method ``deformable``: splats of which some move, from one moving camera or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.methods.splat.method import McmcOptions, SparsityOptions
from scene4d.ranges import Count, Positive, Rate, Share, Weight, Within
from scene4d.representations.method import (
    DepthOptions,
    Method,
    ObjectiveOptions,
    PhotometricOptions,
    StrategyOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.data.scene import Scene
    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


MaskSource = Literal["flow", "capture", "both"]
"""Where masks of what moves come from."""
DEFAULT_MAX_GAUSSIANS = 100_000
"""The limit where training does not choose one."""


@dataclass(frozen=True, kw_only=True)
class NodeOptions(ObjectiveOptions):
    """Keeps the nodes where tracks saw them, as rigid as possible, and smooth."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.node_terms:NodeTerms"
    tracks: Weight = 1.0
    """Distance from where tracks, lifted by depth, saw a node, in node spacings."""
    rigidity: Weight = 3.0
    """As rigid as possible (MoSca): neighbours keep their places in a node's own frame."""
    lengths: Weight = 1.0
    """Weight of local rigidity (PointVid): neighbours keep their distances."""
    acceleration: Weight = 0.1
    """Weight of second differences of positions and rotations from frame to frame."""
    velocity: Weight = 0.01
    """Weight of first differences: what nothing is known of stands still."""
    times: Count = 4
    """Number of times that are looked at in a step."""


@dataclass(frozen=True, kw_only=True)
class AlongRayOptions(ObjectiveOptions):
    """Draws velocities along the viewing ray to zero: one camera does not see them (Shape of
    Motion)."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.along_ray:AlongRay"
    weight: Weight = 0.1


@dataclass(frozen=True, kw_only=True)
class ByMasksOptions(ObjectiveOptions):
    """Terms that look at what moves in the pictures."""

    moving_masks: MaskSource = "flow"
    """What says which pixels show what moves; the method's own ``moving_masks``."""
    by_network: bool = False
    """Whether estimated depth places what moves; the method's own ``by_network``."""


@dataclass(frozen=True, kw_only=True)
class TrackOptions(ByMasksOptions):
    """Compares where surfaces are at other times with the tracks of 2D points."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.tracks:TrackTerm"
    weight: Weight = 0.5
    every: Count = 4
    """Steps from one that looks at the tracks to the next: more channels take longer."""


@dataclass(frozen=True, kw_only=True)
class FlowOptions(ByMasksOptions):
    """Compares where surfaces are in the next picture with dense optical flow, where that holds
    both ways."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.flow:FlowTerm"
    weight: Weight = 0.0
    every: Count = 4
    """Steps from one that looks at flow to the next: more channels take longer."""


@dataclass(frozen=True, kw_only=True)
class ApartOptions(ByMasksOptions):
    """Keeps what moves out of the pixels of what stands still, which explains them alone."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.apart:Apart"
    static: Weight = 0.5
    """Weight of the L1 error of static Gaussians alone, where nothing moves."""
    spill: Weight = 0.2
    """Weight of how much moving Gaussians are seen where nothing moves."""
    ghost: Weight = 0.05
    """Weight of how much static Gaussians are seen where depth tells that something moves."""
    border: Share = 0.01
    """Width of the border on both sides of a mask's edge that is of neither, as a share of the
    picture's diagonal."""
    every: Count = 2
    """Steps from one that looks at it to the next."""


@dataclass(frozen=True, kw_only=True)
class DeformableStrategyOptions(StrategyOptions):
    """MCMC for what stands still; moving Gaussians come and go once the nodes have settled."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.strategy:Growth"
    settle_at: Share = 0.1
    """Share of training in which the nodes are fitted to tracks, before pictures count."""
    moving_from: Share = 0.3
    """Share of training from which moving Gaussians are relocated and added."""
    static: McmcOptions = field(default_factory=McmcOptions)
    moving: McmcOptions = field(default_factory=lambda: McmcOptions(noise=0.0))


@dataclass(frozen=True, kw_only=True)
class DeformableMethod(Method):
    """Splats that move: a scene that changes, seen from other places and at any time."""

    name: ClassVar[str] = "deformable"
    description: ClassVar[str] = "Gaussian splats that follow moving nodes (after SC-GS and MoSca)"
    representation: ClassVar[str] = "scene4d.methods.deformable.deformable:DeformableSplats"
    made_of_splats: ClassVar[bool] = True
    uses_time: ClassVar[bool] = True
    sample_scene: ClassVar[str] = "dance_room"

    sh_degree: Literal[0, 1, 2, 3] = 1
    """Highest band of the view-dependent colour; one moving camera shows little of it."""
    sh_bands_at: tuple[Share, Share, Share] = (0.5, 0.7, 0.8)
    """Shares of training after which bands 1, 2 and 3 are trained."""
    max_num_gaussians: Annotated[int, Within(1, 1 << 30)] | None = None
    """Upper limit of all Gaussians; by default train chooses, 100,000 or more."""
    moving_masks: MaskSource = "flow"
    """What says which pixels show what moves: flow, optical flow; capture, the capture's own masks
    (dynamic_mask_path), and flow where a frame has none; both, what either says."""
    by_network: bool = False
    """Place what moves by the depth that a network estimated (depth_kind in transforms.json), where
    none is measured, and not as far as what is beside it. For networks that are good at it."""
    max_num_moving: Annotated[int, Within(0, 1 << 30)] = 50_000
    """Upper limit of the Gaussians that move."""
    num_nodes: Annotated[int, Within(1, 4096)] = 256
    """Upper limit of the nodes that carry the motion."""
    motion: Literal["splines", "network"] = "splines"
    """What says how nodes move: a spline each, or one network of 8 layers of 256 for all (4Real),
    which takes longer; exports hold splines that are fitted to it."""
    frames_per_knot: Positive = 2.0
    """Frames between the knots of a node's spline."""
    neighbours: Annotated[int, Within(1, 64)] = 8
    """Number of nodes that a moving Gaussian follows, weighted."""
    num_random_points: Annotated[int, Within(1, 1 << 30)] = 20_000
    """Static Gaussians to start from where the capture has no points; those of tracks count."""
    init: Literal["auto", "points", "random"] = "auto"
    """Start what stands still from the capture's points (or its fused depth), else from points of
    tracks, else at random; points: of the capture alone."""
    antialiased: bool = False
    """Scale opacities so that tiny Gaussians keep their energy (Mip-Splatting's 2D filter)."""
    temporal_opacity: bool = True
    """Moving Gaussians come and go: a plateau of opacity with two soft edges."""
    window_frames: Positive = 6.0
    """Frames before and after the one that showed it for which a moving Gaussian is there at first,
    with temporal opacity."""
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
    turns_lr: Rate = 1e-3
    """Learning rate of the nodes' rotations (quaternions)."""
    places_lr: Rate = 1.6e-4
    """Learning rate of the nodes' positions, scene extents a step."""
    network_lr: Rate = 1e-4
    """Learning rate of the network of --motion network."""
    node_logits_lr: Rate = 1e-2
    """Learning rate of the logarithms of the nodes' weights."""
    windows_lr: Rate = 0.02
    """Learning rate of temporal opacity: its edges in frames, their widths in logarithms."""
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)
    depth: DepthOptions = field(default_factory=lambda: DepthOptions(weight=0.3))
    nodes: NodeOptions = field(default_factory=NodeOptions)
    along_ray: AlongRayOptions = field(default_factory=lambda: AlongRayOptions(start=0.1))
    tracks: TrackOptions = field(default_factory=lambda: TrackOptions(start=0.1))
    flow: FlowOptions = field(default_factory=lambda: FlowOptions(start=0.1))
    apart: ApartOptions = field(default_factory=ApartOptions)
    sparsity: SparsityOptions = field(default_factory=SparsityOptions)
    teaching: TeacherOptions = field(default_factory=lambda: TeacherOptions(weight=0.0))
    growth: DeformableStrategyOptions = field(default_factory=DeformableStrategyOptions)

    @property
    def most_gaussians(self) -> int:
        """The limit, also where nobody chose one."""
        return self.max_num_gaussians or DEFAULT_MAX_GAUSSIANS

    @property
    def most_moving(self) -> int:
        """Of these, at most so many move; what stands still has at least half of the room."""
        return min(self.max_num_moving, self.most_gaussians // 2)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Static Gaussians at the scene's points (or the teacher's), moving ones where pictures
        show motion."""
        splats: Any = self.representation_class()
        return splats.from_scene(task.scene, self, generator=generator, teacher=task.teacher)

    def seeding(self, scene: Scene) -> Sequence[int]:
        """The training frames whose moving pixels become the first moving Gaussians."""
        return scene.train_indices

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """Pictures, depth where there is some, and the nodes' terms; a teacher's if it counts."""
        terms = (self.tracks, self.flow, self.apart)
        by_masks = [
            replace(term, moving_masks=self.moving_masks, by_network=self.by_network)
            for term in terms
        ]
        return [
            self.photometric, self.depth, self.nodes, self.along_ray, *by_masks, self.sparsity,
            self.teaching,
        ]  # fmt: skip

    def strategy_options(self) -> StrategyOptions:
        """MCMC in both sets."""
        return self.growth

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Places settle exponentially, once there are pictures; the rest is constant."""
        if group.endswith(".means"):
            return (self.means_lr_final / self.means_lr) ** progress
        if group.startswith("nodes."):
            return 10.0 if progress < self.growth.settle_at else 0.03**progress
        return 1.0


DEFORMABLE = DeformableMethod
