"""What became of a capture: which pictures were placed, which not and why, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from scene4d.data.process.depth_facts import EstimatedDepthFacts
from scene4d.data.process.matches import MIN_INLIERS, PairFacts, hardly_moves, only_turns, stayed
from scene4d.data.process.moving_facts import TRACE, MovingFacts
from scene4d.data.process.pictures import Picture
from scene4d.data.process.relief_facts import STAYED, ReliefFacts
from scene4d.data.process.sfm import SfmCamera, SfmImage, SfmModel, SfmResult

Motion = Literal["around", "sideways", "forward", "turning only", "none"]
Source = Literal["photos", "video", "moving video"]
"""The last: a video that shows something that moves, and is said to (``--moving``)."""
Verdict = Literal["good", "usable", "poor", "failed"]
Reason = Literal[
    "unreadable",
    "not a picture",
    "duplicate",
    "too blurry",
    "too few features",
    "too dark or too bright",
    "no overlap",
    "separate group",
    "different resolution",
    "inconsistent matches",
]

_SHOWN = 8
"""Pictures that are listed for each reason."""
_FEW_FEATURES = 200
"""Fewer cannot be relied on for a pose with 30 inliers (COLMAP's limit) among wrong matches."""
_BLURRED = 0.35
"""Share of the capture's median sharpness; half of it is common for a change of subject."""
_NO_PARALLAX = 0.04
"""Camera travel over scene depth; below it half a pixel changes the depth by several per cent."""
_MAX_STRETCH = 0.05
"""Pixels are square to a fraction of a per cent; some of it is the noise of short captures."""
_MOVING = 0.25
"""Share of followed features that no still point explains; still captures had up to 0.19."""
_MAX_TANGENTIAL = 0.02
"""Of p1 and p2; lenses have some thousandths."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A picture without a pose."""

    name: str
    reason: Reason
    detail: str


@dataclass(frozen=True, kw_only=True)
class CameraSpread:
    """How the camera moved, which decides how well depth is known."""

    motion: Motion
    travel_over_depth: float
    """Largest distance between two cameras over the median depth of the points."""
    triangulation_angle_deg: float
    """Median over points of the widest angle between two rays to the point."""
    view_angle_deg: float
    """Largest angle between two viewing directions."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The end of process-data, for people (:meth:`text`) and programs (:meth:`as_json`)."""

    verdict: Verdict
    reason: str
    """Why the verdict is not good, in a line; empty when it is."""
    num_images: int
    num_registered: int
    left_out: tuple[LeftOut, ...]
    mean_reprojection_error_px: float | None
    num_points: int
    mean_track_length: float | None
    spread: CameraSpread | None
    unexplained_share: float | None
    """Of the features followed through four and more pictures: what no fixed point explains."""
    num_models: int
    attempts: tuple[str, ...]
    findings: tuple[str, ...]
    advice: tuple[str, ...]
    moving: MovingFacts | None = None
    """Of a video of something that moves (``--moving``)."""
    relief: ReliefFacts | None = None
    """Where the camera did not travel (``--relief``)."""
    depth: EstimatedDepthFacts | None = None
    """Where a network estimated depth (``--depth-model``)."""

    def as_json(self) -> dict[str, Any]:
        """Plain data for diagnosis.json."""
        return {"schema_version": 1, **asdict(self)}

    def text(self) -> str:
        """The diagnosis as a person reads it."""
        lines = [
            f"{self.num_registered} of {self.num_images} pictures have a camera pose"
            f"  (verdict: {self.verdict})"
        ]
        if self.mean_reprojection_error_px is not None:
            lines.append(
                f"  {self.num_points:,} points; those used for the poses are seen in"
                f" {self.mean_track_length:.1f} pictures, with a mean reprojection error of"
                f" {self.mean_reprojection_error_px:.2f} px"
            )
        if self.spread is not None:
            lines.append(
                f"  camera motion: {self.spread.motion}; it travelled"
                f" {self.spread.travel_over_depth:.2f} times the scene's depth; points are seen"
                f" under {self.spread.triangulation_angle_deg:.1f} deg (median)"
            )
        lines += self.relief.lines() if self.relief else []
        lines += self.moving.lines() if self.moving else []
        lines += self.depth.lines() if self.depth else []
        lines += [f"  attempt {i}: {a}" for i, a in enumerate(self.attempts, 1)]
        lines += [f"  {finding}" for finding in self.findings]
        lines += self._text_left_out()
        if self.advice:
            lines.append("What to do next:")
            lines += [f"  - {advice}" for advice in self.advice]
        return "\n".join(lines)

    def _text_left_out(self) -> list[str]:
        """Some of each reason; all are in diagnosis.json."""
        groups: dict[str, list[LeftOut]] = {}
        for left in self.left_out:
            groups.setdefault(left.reason, []).append(left)
        others = groups.pop("not a picture", [])
        lines = ["Pictures left out:"] if groups else []
        for reason, group in groups.items():
            lines += [f"  {o.name}: {reason} ({o.detail})" for o in group[:_SHOWN]]
            if len(group) > _SHOWN:
                more = len(group) - _SHOWN
                lines.append(f"  ... and {more} more: {reason} (all are in diagnosis.json)")
        if others:
            kinds = Counter(PurePosixPath(o.name).suffix or "without ending" for o in others)
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
            lines.append(f"Other files left alone: {len(others)} ({listed}), no pictures")
        return lines


def diagnose(
    pictures: Sequence[Picture],
    result: SfmResult | None,
    *,
    excluded: Sequence[LeftOut] = (),
    source: Source = "photos",
    moving: MovingFacts | None = None,
) -> Diagnosis:
    """The diagnosis of one run; ``excluded`` pictures never reached structure from motion, and
    ``moving`` is known of a moving video whose poses were found."""
    model = result.model if result else None
    registered = {image.name for image in model.images} if model else set()
    left_out = [*excluded]
    if result is not None:
        left_out += [_why(p, pictures, result, registered) for p in pictures
                     if p.name not in registered]  # fmt: skip
    total = len(pictures) + sum(left.reason != "not a picture" for left in excluded)
    spread = camera_spread(model) if model else None
    error = float(model.errors_px.mean()) if model else None
    verdict = _verdict(model, spread, error, len(registered), total, _moves(result))
    verdict = moving.limited(verdict) if moving else verdict
    advice = _advice(pictures, left_out, model, spread, result, verdict, source)
    findings = _findings(model, spread, result)
    if moving:
        findings += moving.findings()
        advice = [*moving.advice(), *advice]
    if verdict in ("good", "usable"):
        advice.append(train_advice(moving))
    return Diagnosis(
        verdict=verdict,
        reason=_reason(verdict, findings, advice, len(registered), total),
        num_images=total,
        num_registered=len(registered),
        left_out=tuple(sorted(left_out, key=lambda o: o.name)),
        mean_reprojection_error_px=error,
        num_points=len(result.xyz) if result else 0,
        mean_track_length=float(model.track_lengths.mean()) if model else None,
        spread=spread,
        unexplained_share=result.unexplained if result else None,
        num_models=(1 if model else 0) + (len(result.other_models) if result else 0),
        attempts=tuple(result.attempts) if result else (),
        findings=tuple(findings),
        advice=tuple(dict.fromkeys(advice)),
        moving=moving,
    )


def _reason(
    verdict: Verdict, findings: Sequence[str], advice: Sequence[str], registered: int, total: int
) -> str:
    """The first thing to know when the verdict is not good."""
    if verdict == "good":
        return ""
    if findings:
        return findings[0]
    if verdict == "usable" and registered < 0.9 * total:
        return f"{registered} of {total} pictures have a pose"
    return advice[0] if advice else "the pictures do not fit together"


def _verdict(
    model: SfmModel | None,
    spread: CameraSpread | None,
    error: float | None,
    registered: int,
    total: int,
    moves: bool,
) -> Verdict:
    """failed: nothing to train on; poor: expect bad results; usable: parts will be missing."""
    if model is None or spread is None or error is None or registered < 2:
        return "failed"
    angle = spread.triangulation_angle_deg
    per_picture = float(np.median([len(image.point_indices) for image in model.images]))
    still = spread.motion in ("none", "turning only")
    if moves or any(_implausible_lens(camera) for camera in model.cameras.values()):
        return "poor"
    if still or registered < 0.5 * total or error > 2 or angle < 1.5 or per_picture < 30:
        return "poor"
    if registered < 0.9 * total or error > 1.2 or angle < 3 or registered < 8:
        return "usable"
    return "good"


def _why(
    picture: Picture, pictures: Sequence[Picture], result: SfmResult, registered: set[str]
) -> LeftOut:
    """The likely reason why ``picture`` has no pose."""
    features = result.num_features.get(picture.name, 0)
    typical = float(np.median(list(result.num_features.values()) or [0]))
    sharp = picture.sharpness / max(float(np.median([p.sharpness for p in pictures])), 1e-12)
    partner, inliers = _best_partner(picture.name, result.pairs, registered)
    size, common = (picture.width, picture.height), _common_size(pictures)

    def left(reason: Reason, detail: str) -> LeftOut:
        return LeftOut(name=picture.source or picture.name, reason=reason, detail=detail)

    if result.num_features and picture.name not in result.num_features:
        return left("unreadable", "COLMAP could not read it: convert it to plain JPEG or PNG")
    if not 0.04 < picture.brightness < 0.96:
        return left("too dark or too bright", f"mean brightness {picture.brightness:.0%}")
    if sharp < _BLURRED and features < 0.75 * typical:
        return left("too blurry", f"{sharp:.0%} of the usual sharpness, {features} features")
    if features < max(_FEW_FEATURES, 0.1 * typical):
        return left("too few features", f"{features}, others have {typical:.0f}")
    for other in result.other_models:
        if picture.name in other:
            return left(
                "separate group",
                f"connected with {len(other) - 1} others that do not connect with the rest",
            )
    if inliers < MIN_INLIERS:
        near = f"at most {inliers} matches, with {partner}" if partner else "no matches"
        if size != common:
            return left("different resolution", f"{_by(size)}, others {_by(common)}; {near}")
        return left("no overlap", f"{near}; {MIN_INLIERS} are needed")
    return left(
        "inconsistent matches",
        f"{inliers} matches with {partner}, but no pose explains them together: moving objects,"
        " reflections, repeated structure, or too little parallax",
    )


def _best_partner(
    name: str, pairs: Mapping[tuple[str, str], PairFacts], registered: set[str]
) -> tuple[str | None, int]:
    """The registered picture (any, when none is registered) with most verified matches."""
    best: tuple[str | None, int] = (None, 0)
    for (first, second), facts in pairs.items():
        if name not in (first, second):
            continue
        other = second if name == first else first
        if (not registered or other in registered) and facts.inliers > best[1]:
            best = (other, facts.inliers)
    return best


def _common_size(pictures: Sequence[Picture]) -> tuple[int, int]:
    return Counter((p.width, p.height) for p in pictures).most_common(1)[0][0]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def camera_spread(model: SfmModel) -> CameraSpread:
    """How the registered cameras are spread around the points."""
    rotations = np.stack([image.viewmat[:3, :3] for image in model.images])
    translations = np.stack([image.viewmat[:3, 3] for image in model.images])
    centres = -np.einsum("nji,nj->ni", rotations, translations)
    forward = rotations[:, 2]
    depth = _median_depth(model)
    travel = _diameter(centres) / max(depth, 1e-12)
    view_angle = float(np.degrees(np.arccos(np.clip((forward @ forward.T).min(), -1, 1))))
    return CameraSpread(
        motion=_motion(centres, forward, travel, view_angle),
        travel_over_depth=travel,
        triangulation_angle_deg=_triangulation_angle(model.images, centres, model.xyz),
        view_angle_deg=view_angle,
    )


def _motion(centres: np.ndarray, forward: np.ndarray, travel: float, view_angle: float) -> Motion:
    if travel < _NO_PARALLAX:
        return "none" if view_angle < 5 else "turning only"
    offsets = centres - centres.mean(axis=0)
    _, lengths, axes = np.linalg.svd(offsets, full_matrices=False)
    along = float(np.abs(forward @ axes[0]).mean())
    if lengths[0] ** 2 > 0.9 * float((lengths**2).sum()) and along > 0.9:
        return "forward"
    return "around" if view_angle > 45 else "sideways"


def _median_depth(model: SfmModel) -> float:
    depths = [
        model.xyz[image.point_indices] @ image.viewmat[2, :3] + image.viewmat[2, 3]
        for image in model.images
    ]
    return float(np.median(np.concatenate(depths)))


def _diameter(positions: np.ndarray) -> float:
    return float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())


def _triangulation_angle(
    images: Sequence[SfmImage], centres: np.ndarray, xyz: np.ndarray, sample: int = 2000
) -> float:
    """Median over (at most ``sample``) points of the widest angle between two rays, in degrees."""
    chosen = np.unique(np.linspace(0, len(xyz) - 1, min(sample, len(xyz))).astype(int))
    slot = np.full(len(xyz), -1)
    slot[chosen] = np.arange(len(chosen))
    seen_from: list[list[int]] = [[] for _ in chosen]
    for index, image in enumerate(images):
        for k in slot[image.point_indices]:
            if k >= 0:
                seen_from[k].append(index)
    angles = []
    for point, cameras in zip(xyz[chosen], seen_from, strict=True):
        rays = point - centres[cameras]
        rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
        angles.append(np.arccos(np.clip((rays @ rays.T).min(initial=1.0), -1, 1)))
    return float(np.degrees(np.median(angles)))


def _moves(result: SfmResult | None) -> bool:
    """Whatever the lens model: a lens that gives way hides motion from the other signs."""
    return result is not None and result.unexplained is not None and result.unexplained > _MOVING


def _findings(
    model: SfmModel | None, spread: CameraSpread | None, result: SfmResult | None
) -> list[str]:
    found = []
    if model is not None and result is not None and result.other_models:
        sizes = ", ".join(str(len(other)) for other in result.other_models)
        found.append(
            f"the pictures fall into {1 + len(result.other_models)} groups that do not connect; the"
            f" largest, of {len(model.images)}, was taken (the others: {sizes})"
        )
    if result is not None and _moves(result):
        found.append(
            f"{result.unexplained:.0%} of what was followed from picture to picture is in no fixed"
            " place: something large moves or bends in the scene"
        )
    if model is not None:
        for camera in model.cameras.values():
            view = np.degrees(2 * np.arctan(camera.width / (2 * camera.params["fl_x"])))
            if not 15 < view < 130:
                found.append(
                    f"the estimated field of view is {view:.0f} deg, which is implausible: the"
                    " focal length could not be determined from these pictures"
                )
            if lens := _implausible_lens(camera):
                found.append(f"the estimated lens is implausible: {lens}")
    return found


def _implausible_lens(camera: SfmCamera) -> str | None:
    """What no real lens has: then the lens took up errors of the poses, or motion in the scene."""
    x, y = camera.params["fl_x"], camera.params["fl_y"]
    stretch = max(x, y) / min(x, y) - 1
    tangential = max(abs(camera.params.get(name, 0.0)) for name in ("p1", "p2"))
    wrong = []
    if stretch > _MAX_STRETCH:
        wrong.append(f"its focal lengths differ by {100 * stretch:.0f} %")
    if tangential > _MAX_TANGENTIAL:
        wrong.append(f"its tangential distortion is {tangential:.2g}")
    return " and ".join(wrong) or None


_ADVICE_FOR_REASON = {
    "unreadable": "replace or remove the files that could not be read",
    "too blurry": "leave out blurred pictures; take new ones with a shorter exposure (more light),"
    " standing still",
    "too few features": "bare walls, sky and glossy surfaces carry no features: keep textured"
    " surroundings in the picture, or put a newspaper under the object",
    "too dark or too bright": "fix the exposure of the camera and take these pictures again",
    "no overlap": "take more pictures between those that are left out and the others: each should"
    " share at least 60 % of its content with the next, with less than 15 deg between them",
    "separate group": "the groups need pictures in between that connect them, or process them as"
    " separate captures",
    "different resolution": "use one camera at one resolution and zoom; do not crop or resize",
    "inconsistent matches": "keep moving people and objects, mirrors and screens out of the"
    " pictures",
}


def _advice(
    pictures: Sequence[Picture],
    left_out: Sequence[LeftOut],
    model: SfmModel | None,
    spread: CameraSpread | None,
    result: SfmResult | None,
    verdict: Verdict,
    source: Source,
) -> list[str]:
    """Concrete next steps, the most useful first."""
    advice = []
    if verdict == "failed":
        advice += _advice_on_failure(pictures, result)
        if result is not None and stayed(result.pairs):
            advice.append(STAYED)
    if spread is not None and spread.motion in ("none", "turning only"):
        advice.append(
            "the camera stayed in one place, so depth cannot be seen: walk around the scene"
            " (step sideways, do not only turn)"
        )
    elif spread is not None and spread.motion == "forward":
        advice.append(
            "the camera only moved forward, which leaves depth in the middle of the picture"
            " uncertain: add a pass with sideways movement"
        )
    elif spread is not None and spread.triangulation_angle_deg < 3:
        advice.append("the viewpoints are close together: move farther between pictures")
    advice += _advice_on_contradictions(model, result, source)
    reasons = Counter(o.reason for o in left_out)
    if source == "moving video":  # what moves may stay in the pictures
        del reasons["inconsistent matches"]
    enough = len(left_out) < 0.1 * (len(pictures) + 1) and verdict == "good"
    if not enough:
        advice += [
            _ADVICE_FOR_REASON[r] for r, _ in reasons.most_common() if r in _ADVICE_FOR_REASON
        ]
    if source != "photos" and reasons.get("no overlap", 0) + reasons.get("separate group", 0) > 0:
        advice.append("take more frames from the video: --num-frames-target with twice the number")
    return advice


def _advice_on_contradictions(
    model: SfmModel | None, result: SfmResult | None, source: Source
) -> list[str]:
    """Where no still scene and no usual lens explain the pictures."""
    strange = model is not None and any(map(_implausible_lens, model.cameras.values()))
    if not strange and not _moves(result):
        return []
    simple = "" if _moves(result) else "; else try --camera-model simple_radial"
    if source == "moving video":
        return [
            "the pictures contradict each other: a still background with texture should fill most"
            f" of them, around what moves{simple}"
        ]
    if strange:
        advice = (
            "the pictures contradict each other: keep moving things out of them, or cover a"
            f" background that does not turn with the object{simple}"
        )
    else:
        advice = (
            "keep the scene still: take moving people, animals and toys out of the pictures, and"
            " cover a background that does not turn with the object"
        )
    if source == "video" and _moves(result):
        return [advice, "if what moves is what you want: --moving"]
    return [advice]


def train_advice(moving: MovingFacts | None) -> str:
    """How to go on with what was found."""
    if moving and moving.share >= TRACE:
        return "train: scene4d train deformable --data OUTPUT_DIR"
    return "train: scene4d train splat --data OUTPUT_DIR"


def _advice_on_failure(pictures: Sequence[Picture], result: SfmResult | None) -> list[str]:
    if len(pictures) < 3 or result is None:
        return ["give at least three, better twenty or more pictures of one still scene"]
    if not result.pairs:
        return ["no two pictures show the same thing: they must overlap by 60 % or more"]
    if hardly_moves(result.pairs):
        return [
            "the camera hardly moves (the background shifts by less than 3 % of the picture):"
            " structure from motion needs the camera to travel around the scene"
        ]
    if only_turns(result.pairs):
        return [
            "the camera only turns, or looks at a flat wall: walk around the scene, and show"
            " things at different distances"
        ]
    return []
