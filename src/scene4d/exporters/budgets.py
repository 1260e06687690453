"""A scene made to fit a kind of device: how many splats, which harmonics, how many bytes."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scene4d.bundle.container import Bundle, BundleWriter, open_bundle
from scene4d.bundle.kinds import bundle_kinds
from scene4d.exporters import bundle as bundles
from scene4d.exporters.edit import with_sh_degree
from scene4d.exporters.options import TARGETS, BundleOptions, TargetBudget
from scene4d.exporters.shown import Shown, shown_shares
from scene4d.files import atomic_path
from scene4d.formats.packing import taken
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.open_scene import is_bundle
from scene4d.training.opened import OpenedScene

COARSEST = 1.5
"""A bundle up to so many times too large gets coarser steps; beyond that it loses splats first,
because steps much coarser than the default ones show everywhere."""
_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A bundle that was written for a target, and what it took."""

    splats: int
    sh_degree: int
    size_mb: float
    splats_before: int
    sh_degree_before: int
    coarser: bool
    """Whether values were stored with coarser steps to reach the size."""
    what: str | None = None
    """For people, where it is not made of splats."""
    motion: str | None = None
    """For people, where something moves."""

    def summary(self, target: str | None) -> str:
        """A line for people: what is in it, whether it fits the target, and what was cut."""
        now = self.what or f"{self.splats:,} splats, harmonics of degree {self.sh_degree}"
        now += f", {self.size_mb:.2f} MB"
        now += f", {self.motion}" if self.motion else ""
        if target is None:
            return now
        budget = TARGETS[target]
        cut = []
        if self.splats < self.splats_before:
            cut.append(f"{self.splats_before - self.splats:,} of {self.splats_before:,} splats")
        if self.sh_degree < self.sh_degree_before:
            cut.append(f"harmonics above degree {self.sh_degree} of {self.sh_degree_before}")
        if self.coarser:
            cut.append("finer steps of all values")
        fits = "fits as it is, nothing cut" if not cut else f"fits; cut: {', '.join(cut)}"
        most = f"{budget.splats:,} splats, degree {budget.sh_degree}, {budget.size_mb:g} MB"
        if self.what is not None:
            most = f"{budget.size_mb:g} MB"
        return f"{now}\ntarget {target} (at most {most}): {fits}"


def write_within(
    source: OpenedScene, path: Path, *, target: str | None, target_mb: float | None = None
) -> Fitted:
    """Writes ``source`` as a bundle that keeps within ``target``; a bundle that fits is copied.

    Splats that show least go first: by their share of pictures at the capture's cameras, or at
    cameras around the content where it has none. What is not made of splats costs the same a
    picture whatever its size, so that only bytes are counted. ``target_mb``: a size of the user's
    own. Raises :class:`UsageError` where coarser steps do not reach the size.
    """
    budget = TARGETS[target] if target else TargetBudget()
    cloud = source.representation.splats()
    if cloud is None:
        what = bundles.kind_for(source).stored_line(source.representation) or "a scene"
        before = (0, 0)
    else:
        what, before = None, (len(cloud), cloud.sh_degree)
    kept = open_bundle(source.path) if source.path.exists() and is_bundle(source.path) else None
    few = before[0] <= budget.splats and before[1] <= budget.sh_degree
    if few and kept is not None and target_mb is None and kept.size <= budget.size_mb * 1e6:
        with atomic_path(path) as temporary:
            temporary.write_bytes(_file_of(kept))
        return _fitted(path, before, before, coarser=False, what=what)
    wanted = min(budget.size_mb, target_mb or float("inf"))
    whole, all_shown = source, functools.cache(lambda: shown_shares(source))
    source, shown = _cut(whole, budget.splats, budget.sh_degree, all_shown)
    size = _written(source, path, shown)
    for _ in range(_ROUNDS if cloud is not None and target_mb is None else 0):
        if size <= wanted * COARSEST:
            break
        splats = int(_counted(source)[0] * 0.9 * COARSEST * wanted / size)
        source, shown = _cut(whole, splats, budget.sh_degree, all_shown)
        size = _written(source, path, shown)
    coarser = target_mb is not None or size > wanted
    if coarser:
        # a size is met within LANDING; a budget is not to be passed at all
        aimed = target_mb if target_mb == wanted else wanted * (1 - bundles.LANDING)
        _written(source, path, shown, target_mb=aimed)
    coarser = coarser and target_mb is None
    return _fitted(path, before, _counted(source), coarser=coarser, what=what)


def _written(
    source: OpenedScene, path: Path, shown: Shown, *, target_mb: float | None = None
) -> float:
    """MB of the bundle that was written."""
    bundles.export(source, path, BundleOptions(target_mb=target_mb), shown=shown)
    return path.stat().st_size / 1e6


def _fitted(
    path: Path,
    before: tuple[int, int],
    after: tuple[int, int],
    *,
    coarser: bool,
    what: str | None = None,
) -> Fitted:
    manifest = open_bundle(path).manifest
    return Fitted(
        motion=bundle_kinds()[manifest["kind"]].motion_line(manifest),
        splats=after[0],
        sh_degree=after[1],
        size_mb=path.stat().st_size / 1e6,
        splats_before=before[0],
        sh_degree_before=before[1],
        coarser=coarser,
        what=what,
    )


def _counted(source: OpenedScene) -> tuple[int, int]:
    """Splats and their harmonics; 0 where it is not made of such."""
    cloud = source.representation.splats()
    return (0, 0) if cloud is None else (len(cloud), cloud.sh_degree)


def _cut(
    source: OpenedScene, splats: int, sh_degree: int, shown: Shown
) -> tuple[OpenedScene, Shown]:
    """``source`` without the splats that show least, as plain ones where its kind knows no other
    way; itself where nothing is cut. And how much those that are left show."""
    cloud = source.representation.splats()
    if cloud is None or (len(cloud) <= splats and cloud.sh_degree <= sh_degree):
        return source, shown
    bands = min(sh_degree, cloud.sh_degree)
    kind = bundles.kind_for(source).in_order(shown)
    reduced = kind.reduced(source.representation, max(1, splats), bands)
    if reduced is not None:
        less = replace(source, representation=reduced)
        return less, functools.cache(lambda: shown_shares(less))
    left = shown
    if len(cloud) > splats:
        most = np.sort(np.argsort(-shown(), kind="stable")[: max(1, splats)])
        cloud = taken(cloud, most)
        left = functools.cache(lambda: shown()[most])
    cloud = with_sh_degree(cloud, bands)
    return replace(source, representation=GaussianSplats.of(cloud)), left


def _file_of(bundle: Bundle) -> bytes:
    """The bundle as one file; the members of a folder become what they were made from."""
    if bundle.path.is_file():
        return bundle.path.read_bytes()
    writer = BundleWriter({k: v for k, v in bundle.manifest.items() if k != "members"})
    for name in bundle.names():
        writer.add(name, bundle.read(name))
    return writer.to_bytes()
