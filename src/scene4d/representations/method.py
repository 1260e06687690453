"""What a method declares: its representation, objectives, strategy and schedules, as plain data.

Everything here is torch-free, so that ``scene4d train METHOD --help`` answers at once. Options
*declare*; the room ``training`` *executes* them: ``implementation`` names, as an entry point does
("module:Class"), what carries an option out. It is a constant of the class, never read from a file.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.errors import UsageError
from scene4d.ranges import Count, Finite, Positive, Rate, Share, Weight, Within

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Poses, Task, World


def resolve(implementation: str) -> Any:
    """The object that ``"module:attribute"`` names."""
    module, _, attribute = implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """Declares one term of the loss, and when it counts."""

    implementation: ClassVar[str]
    needs_teacher: ClassVar[bool] = False
    """Whether it cannot do without a teacher."""
    needs_prior: ClassVar[bool] = False
    """Whether it cannot do without a prior."""
    needs_fixer: ClassVar[bool] = False
    """Whether it cannot do without a fixer."""
    weight: Weight = 1.0
    """Factor of the term in the loss; 0 leaves it out."""
    start: Share = 0.0
    """Share of training from which the term counts."""
    end: Share = 1.0
    """Share of training up to which the term counts."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < self.end <= 1.0:
            raise UsageError(
                f"a term of the loss counts from {self.start} to {self.end} of training",
                fix="give shares of training, 0 <= start < end <= 1",
            )

    def weight_at(self, progress: float) -> float:
        """The factor of the term at ``progress`` (0..1) of training; by default always
        ``weight``."""
        return self.weight

    def counts_at(self, progress: float) -> bool:
        """Whether the term is part of the loss at ``progress`` (0..1)."""
        return self.start <= progress and (progress < self.end or self.end == 1.0)


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """Declares how the number of primitives changes during training."""

    implementation: ClassVar[str] = "scene4d.training.strategy:KeepAll"


@dataclass(frozen=True, kw_only=True)
class EarlyStopOptions(StrategyOptions):
    """Ends training when pictures that nothing is learned from gain no more, and keeps the best
    network."""

    far: Path = Path("far")
    """Folder of these pictures."""
    every: Count = 25
    """Steps from one look at them to the next."""
    patience: Count = 4
    """Looks without a gain after which training ends."""


@dataclass(frozen=True, kw_only=True)
class PhotometricOptions(ObjectiveOptions):
    """Compares renders with the photographs: (1 - ssim_weight) L1 + ssim_weight D-SSIM."""

    implementation: ClassVar[str] = "scene4d.training.objectives.photometric:Photometric"
    ssim_weight: Share = 0.2
    """Share of D-SSIM, from 0 (L1 alone) to 1 (3D Gaussian Splatting, eq. 7)."""


@dataclass(frozen=True, kw_only=True)
class SilhouetteOptions(ObjectiveOptions):
    """Masks are the object's outline. Weight 0: they are only holes in the photographs."""

    implementation: ClassVar[str] = "scene4d.training.objectives.silhouette:Silhouette"
    weight: Weight = 0.5


@dataclass(frozen=True, kw_only=True)
class OutlinesOptions(SilhouetteOptions):
    """Masks that leave out most of the pictures' borders are the object's outline. Weight 0: all
    masks are only holes in the photographs."""

    implementation: ClassVar[str] = "scene4d.training.objectives.silhouette:Outlines"


@dataclass(frozen=True, kw_only=True)
class DepthOptions(ObjectiveOptions):
    """Compares rendered with the capture's depth, where it has any."""

    implementation: ClassVar[str] = "scene4d.training.objectives.depth:Depth"
    weight: Weight = 0.1
    estimated: Weight = 0.0
    """How much depth that a network estimated counts beside measured depth; of it only the shape
    counts, not scale and shift."""


@dataclass(frozen=True, kw_only=True)
class DepthSmoothnessOptions(ObjectiveOptions):
    """Keeps depth smooth where the photographs are: for captures of few photographs."""

    implementation: ClassVar[str] = "scene4d.training.objectives.depth_smoothness:DepthSmoothness"
    weight: Weight = 0.0
    edges: Weight = 10.0
    """How much edges of the photographs let depth change, per full change of grey."""


@dataclass(frozen=True, kw_only=True)
class AwayOptions(ObjectiveOptions):
    """Terms that look from cameras which nobody stood at, but near those of training."""

    between: Share = 0.7
    """Share of pictures from between two neighbouring training cameras; the others are from
    around one."""
    jitter: Share = 0.25
    """How far cameras stray, as a share of the distance between the neighbours."""


@dataclass(frozen=True, kw_only=True)
class BeyondOptions(AwayOptions):
    """Such terms whose cameras also leave the ranks of the training cameras."""

    beyond: Annotated[float, Within(0.0, 180.0)] = 20.0
    """How far cameras turn around what is looked at, away from the others, in degrees."""


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(AwayOptions):
    """Compares renders with a teacher's, in crops of pictures that nobody took."""

    implementation: ClassVar[str] = "scene4d.training.objectives.teacher:Teaching"
    needs_teacher: ClassVar[bool] = True
    crops: Annotated[int, Within(1, 65536)] = 8
    """Crops a step."""
    crop_size: Annotated[int, Within(1, 65536)] = 96
    """Width and height of a crop in pixels; less where the pictures are smaller."""
    loss: Literal["mse", "l1"] = "mse"
    """Error of colours and alpha: mean square (mse) or absolute (l1)."""
    alpha_weight: Weight = 0.1
    """Weight of alpha beside colour."""
    depth_weight: Weight = 0.0
    """Weight of depth beside colour: L1 of inverse depth relative to its mean."""
    turn: Annotated[float, Within(0.0, 180.0)] = 3.0
    """How far cameras turn away, in degrees."""
    hard: Share = 0.3
    """Share of crops drawn where the error was large; the others are drawn evenly."""
    first_views: Annotated[int, Within(1, 1_000_000)] = 8
    """Pictures rendered at the first step."""
    refresh_every: Count = 4
    """Steps between new pictures."""
    cache_mb: Annotated[float, Within(0.0, 1e9, above=True)] = 256.0
    """Pictures kept, in MB (10^6 bytes); new ones replace the oldest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {
            n: getattr(self, n) for n in ("crops", "crop_size", "first_views", "refresh_every")
        }
        wrong = [f"{n} is {v}, at least 1 is needed" for n, v in counts.items() if v < 1]
        shares = {n: getattr(self, n) for n in ("between", "hard", "jitter")}
        wrong += [f"{n} is {v}, not a share from 0 to 1" for n, v in shares.items()
                  if not 0 <= v <= 1]  # fmt: skip
        least = {n: getattr(self, n) for n in ("alpha_weight", "depth_weight", "turn", "cache_mb")}
        wrong += [f"{n} is {v}, at least 0 is needed" for n, v in least.items() if not v >= 0]
        if wrong:
            raise UsageError(f"options of the teacher's term: {'; '.join(wrong)}")


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions(BeyondOptions):
    """Asks a prior (--prior) what pictures that nobody took should look like."""

    implementation: ClassVar[str] = "scene4d.training.objectives.guidance:Guidance"
    needs_prior: ClassVar[bool] = True
    weight: Weight = 0.05
    start: Share = 0.3
    """Share of training from which the term counts: a scene is there by then."""
    target: Literal["score", "regenerate"] = "score"
    """What renders are pulled to: by the gradient of a score loss; or to pictures that the prior
    makes of renders in several steps (SDEdit; samples, at the most noise), which are kept, and
    replaced by newer ones."""
    loss: Literal["hifa", "sds", "sdi", "ism", "csd", "nfsd", "bridge", "asd", "prd", "fixer"] = (
        "hifa"
    )
    """What the prior's answer is compared with; docs/guidance.md."""
    scale: Annotated[float, Within(-1000.0, 1000.0)] = 1.0
    """k of e_0 + k (e_y - e_0), for priors that read texts; 1: no guidance beyond the text."""
    guider: Literal["cfg", "apg", "perp-neg"] = "cfg"
    """What the scale enlarges: the whole difference; that without its part along the picture, which
    saturates it (adaptive projected guidance); or that less what is not wanted, but for what the
    two have in common (Perp-Neg)."""
    apg_parallel: Annotated[float, Within(-10.0, 10.0)] = 0.0
    """Share of the part along the picture that apg keeps."""
    apg_most: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """The largest root mean square of a picture's difference, of apg; by default there is none."""
    apg_momentum: Annotated[float, Within(-0.99, 0.99)] = 0.0
    """Share of the differences before that apg keeps along the steps of a regenerated picture."""
    unwanted: Annotated[float, Within(0.0, 100.0)] = 1.0
    """Weight of the negative prompt, of perp-neg."""
    prompt: str = ""
    """What is wanted, for priors that read texts."""
    negative_prompt: str = ""
    """What is not wanted."""
    now: str = ""
    """What the scene looks like now, for the loss bridge."""
    noise_schedule: Literal["cosine", "flow", "ddpm", "sd"] = "cosine"
    """How much noise belongs to a time."""
    least_time: Share = 0.02
    """The least noise, as a time from 0 (none) to 1; also bounded by where the prior is valid."""
    most_time: Share = 0.98
    """The largest noise; also bounded by where the prior is valid."""
    annealed: bool = True
    """Let the time fall from the largest to the least during training; otherwise drawn evenly."""
    channels: Literal["all", "rgb", "depth", "normals", "xyz"] = "all"
    """Channels that are guided, among those that the prior knows."""
    every: Count = 1
    """Steps between guided ones."""
    pictures: Annotated[int, Within(1, 64)] = 1
    """Pictures a guided step; of a generator each of a text drawn at random."""
    size: Annotated[int, Within(8, 4096)] | None = None
    """Longer side in pixels of the pictures that the prior is shown; by default that of the
    pictures that it knows, or 64."""
    crop: Literal["shift", "half", "none"] = "shift"
    """Before down-sampling, move the picture at random by less than a pixel of the smaller one,
    show half of it (each side) at random, or neither."""
    any_time: Share = 0.5
    """Share of pictures whose time has nothing to do with the place, of scenes that move."""
    at_time: Finite | None = None
    """Second that is looked at, of scenes that move: time stands still."""
    frames: Annotated[int, Within(2, 1024)] | None = None
    """Pictures of a video, for priors of videos of any length; by default as many as the prior
    knows, or 17."""
    sweep: Annotated[float, Within(0.0, 180.0)] = 15.0
    """The largest turn of a video's camera about what is looked at, degrees."""
    frozen: Share = 0.5
    """Share of videos in which time stands still, of scenes that move."""
    seconds: Positive | None = None
    """Length of the other videos, seconds; by default that of as many moments of the capture."""
    unseen_only: bool = False
    """Guide only what no training camera sees."""
    through_encoder: bool = False
    """Differentiate through the encoder of a prior of latents, in place of comparing with the
    decoded clean picture: any loss, more memory, and the encoder's own noise."""
    chunk_pixels: Annotated[int, Within(64)] | None = None
    """Pixels whose gradients are held at a time, for less memory: larger pictures are rendered
    twice. By default 65,536, and 16,777,216 of Gaussians, of which few numbers are kept."""
    sampling_steps: Annotated[int, Within(1, 1000)] = 8
    """Steps in which a picture is regenerated."""
    reuse: Share = 0.0
    """Largest share by which the first block of a transformer of diffusers may change from one of
    these steps to the next, and the others' last answer be used again; 0: never."""
    refresh_every: Count = 10
    """Guided steps from one regenerated picture to the next; of a generator of the texts that are
    looked at in that step."""
    kept: Annotated[int, Within(1, 1024)] = 24
    """Regenerated pictures that are kept (of each of a generator's texts), and are part of a
    checkpoint; new ones replace the oldest."""
    difference: Literal["absolute", "squared"] = "absolute"
    """What of the difference to regenerated pictures is small: the mean of its amount, which rests
    at medians, or of its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target == "regenerate" and self.loss != type(self)().loss:
            raise UsageError(f"guidance.loss {self.loss} means nothing where pictures are "
                             "regenerated", fix="leave it out")  # fmt: skip
        if self.reuse and self.target != "regenerate":
            raise UsageError("guidance.reuse is for steps of regenerated pictures: a score loss "
                             "draws its noise anew",
                             fix="leave it out, or give guidance.target regenerate")  # fmt: skip
        self._check_guider()
        if self.least_time > self.most_time:
            raise UsageError(
                f"guidance at times from {self.least_time} to {self.most_time}",
                fix="give 0 <= least_time <= most_time <= 1",
            )

    def _check_guider(self) -> None:
        usual = {f.name: f.default for f in fields(self)}
        told = [n for n in ("apg_parallel", "apg_most", "apg_momentum") if getattr(self, n) !=
                usual[n] and self.guider != "apg"]  # fmt: skip
        if self.unwanted != usual["unwanted"] and self.guider != "perp-neg":
            told.append("unwanted")
        if told:
            raise UsageError(f"guidance.{told[0]} means nothing to the guider {self.guider}",
                             fix="leave it out, or choose the guider that it is of")  # fmt: skip
        if self.apg_momentum and self.target != "regenerate":
            raise UsageError("guidance.apg_momentum goes along the steps of a regenerated picture; "
                             "noise of a score loss is drawn anew each time",
                             fix="leave it out")  # fmt: skip
        if self.guider != "cfg" and (self.scale == 1 or self.loss in ("csd", "bridge", "fixer")):
            raise UsageError(f"there is no difference that guidance.guider {self.guider} could "
                             f"turn: guidance.scale is {self.scale:g}, the loss {self.loss}",
                             fix="give a scale above 1, and a loss that has one")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FixingOptions(BeyondOptions):
    """Compares renders that nobody photographed with what a fixer (--fixer) makes of them."""

    implementation: ClassVar[str] = "scene4d.training.objectives.fixing:Fixing"
    needs_fixer: ClassVar[bool] = True
    weight: Weight = 0.3
    start: Share = 0.3
    """Share of training from which the term counts: a scene is there by then."""
    crops: Annotated[int, Within(1, 64)] = 2
    """Crops a step."""
    crop_size: Annotated[int, Within(8, 4096)] = 128
    """Width and height of a crop in pixels; less where the pictures are smaller."""
    pictures: Annotated[int, Within(1, 1024)] = 24
    """Repaired pictures that are kept, and are part of a checkpoint; new ones replace the
    oldest."""
    refresh_every: Count = 10
    """Steps between new pictures."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A trainable method; subclasses add the fields of their representation."""

    name: ClassVar[str]
    description: ClassVar[str]

    representation: ClassVar[str]
    """Where its representation (or its generator of such) lives, as ``"module:Class"``."""
    needs_capture: ClassVar[bool] = True
    """Whether it is trained on photographs or on renders of a teacher; False: on neither, and
    --data is refused."""
    made_of_splats: ClassVar[bool] = False
    """Whether what it trains is, or unpacks into, Gaussian splats."""
    uses_time: ClassVar[bool] = False
    """Whether it represents what changes between the times of a capture's pictures."""
    sample_scene: ClassVar[str] = "nerf_chair"
    """The built-in capture that it is trained on without --data: nerf_chair, or dance_room, which
    moves."""
    default_steps: ClassVar[int] = 7000
    default_teacher: ClassVar[str | None] = None
    """The method that is trained first, as the teacher, where none is given."""
    default_teacher_share: ClassVar[float] = 0.3
    """Share of --max-minutes (or of --steps, without a limit of time) that this teacher gets."""
    default_prior: ClassVar[str | None] = None
    """What guides it where no prior is given, as ``--prior`` names priors."""
    customiser: ClassVar[str | None] = None
    """Of methods that train priors: what fits a trained one to a capture, as ``"module:function"``
    of a place and :class:`scene4d.training.options.CustomiseOptions`; it gives the run."""
    customises: ClassVar[str | None] = None
    """The kind of prior that the customiser takes, as ``--prior`` names kinds; None: files of
    weights that are of no kind."""
    compressor: ClassVar[str | None] = None
    """What makes a small bundle of any scene by training this method on it, as
    ``"module:function"``: ``scene4d compress`` is that of the first method that has one."""
    steps: Annotated[int, Within(1, 100_000_000)] | None = None
    """Training steps; by default 7000, or as many as --max-minutes has time for."""
    batch_size: Annotated[int, Within(1, 4096)] = 1
    """Views per step."""
    coarsest_downscale: Annotated[int, Within(1, 8)] = 4
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    full_resolution_at: Share = 0.35
    """Share of training after which images have their full size."""
    refine_poses: bool = False
    """Also optimise the training cameras' poses."""
    refine_poses_lr: Rate = 1e-4
    """Learning rate of the poses, in radians and scene extents."""
    fit_exposure: bool = False
    """Also optimise an affine colour transform per training image."""
    fit_exposure_lr: Rate = 1e-3
    """Learning rate of the colour transforms."""
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    """Counts where there is a prior."""
    fixing: FixingOptions = field(default_factory=FixingOptions)
    """Counts where there is a fixer."""
    smooth_depth: DepthSmoothnessOptions = field(default_factory=DepthSmoothnessOptions)
    """Of methods whose scenes render depth."""

    @classmethod
    def representation_class(cls) -> type[Trainable]:
        """The class that :attr:`representation` names."""
        return resolve(cls.representation)

    @abstractmethod
    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """What is trained, as it is before: from the task's capture and, where there is one, its
        teacher."""

    def world(self) -> World:
        """The world of a training without a capture: see :attr:`needs_capture`."""
        from scene4d.representations.task import World

        return World()

    def conditions(self) -> Sequence[str]:
        """What a generator is trained for, such as texts."""
        return ()

    def poses(self) -> Poses | None:
        """Where a scene that nobody photographed is looked at from."""
        return None

    def own_prior(self) -> torch.nn.Module | None:
        """The :class:`~scene4d.priors.prior.Prior` that guides it where none is given."""
        return None

    @property
    def starts_from_teacher(self) -> bool:
        """Whether :meth:`build` wants one: without a teacher, the default one is trained first."""
        return False

    @abstractmethod
    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The terms of the loss, but for :attr:`guidance`, :attr:`fixing` and
        :attr:`smooth_depth`."""

    def terms(self) -> Sequence[ObjectiveOptions]:
        """All terms of the loss."""
        return [*self.objectives(), self.guidance, self.fixing, self.smooth_depth]

    def strategy_options(self) -> StrategyOptions:
        """How primitives come and go; by default they stay as built."""
        return StrategyOptions()

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """What multiplies a parameter group's learning rate at ``progress`` (0..1)."""
        return 1.0

    def downscale(self, progress: float) -> int:
        """How many times smaller the training images are at ``progress`` (0..1)."""
        return downscale_at(progress, self.coarsest_downscale, self.full_resolution_at)


def downscale_at(progress: float, coarsest: int, full_size_at: float) -> int:
    """How many times smaller the training images are at ``progress`` (0..1), from ``coarsest`` to
    1 at ``full_size_at``."""
    factor = coarsest
    while factor > 1 and progress >= full_size_at / factor * 2:
        factor //= 2
    return max(1, factor)
