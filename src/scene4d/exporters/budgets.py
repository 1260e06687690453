"""A scene made to fit a kind of device: how many splats, which harmonics, how many bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scene4d.bundle.container import MANIFEST, Bundle, BundleWriter, open_bundle
from scene4d.bundle.light_slab import KIND as LIGHT_SLAB
from scene4d.bundle.splats import default_importance
from scene4d.cameras.camera import Camera
from scene4d.exporters import bundle as bundles
from scene4d.exporters.edit import with_sh_degree
from scene4d.exporters.formats import format_by_content
from scene4d.exporters.light_slab import read_light_slabs
from scene4d.exporters.options import TARGETS, BundleOptions, TargetBudget
from scene4d.exporters.packing import taken
from scene4d.exporters.source import ExportSource, splats_of
from scene4d.files import atomic_path
from scene4d.representations.light_slabs.light_slabs import LightSlabs
from scene4d.splat_cloud import inverse_similarity

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

    def told(self, target: str | None) -> str:
        """A line for people: what is in it, whether it fits the target, and what was cut."""
        now = self.what or f"{self.splats:,} splats, harmonics of degree {self.sh_degree}"
        now += f", {self.size_mb:.2f} MB"
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
    source: ExportSource, path: Path, *, target: str | None, target_mb: float | None = None
) -> Fitted:
    """Writes ``source`` as a bundle that keeps within ``target``; a bundle that fits is copied.

    Splats of the least opacity times area go first. ``target_mb``: a size of the user's own.
    Raises :class:`UsageError` where coarser steps do not reach the size.
    """
    budget = TARGETS[target] if target else TargetBudget()
    if isinstance(source.representation, LightSlabs):
        return _write_field(source, path, budget, target_mb)
    before = _counted(source)
    opened = open_bundle(source.path) if _is_bundle(source) else None
    if opened is not None:
        if target_mb is None and opened.size <= budget.size_mb * 1e6 and _fits(before, budget):
            with atomic_path(path) as temporary:
                temporary.write_bytes(_file_of(opened))
            return _fitted(path, before, before, coarser=False)
        source = _from_bundle(source, opened)
    source = _cut(source, budget.splats, budget.sh_degree)
    wanted = min(budget.size_mb, target_mb or float("inf"))
    for _ in range(_ROUNDS):
        bundles.export(source, path, BundleOptions())
        size = path.stat().st_size / 1e6
        if size <= wanted * COARSEST or target_mb is not None:
            break
        splats = _counted(source)[0]
        source = _cut(source, int(splats * 0.9 * COARSEST * wanted / size), budget.sh_degree)
    coarser = target_mb is not None or size > wanted
    if coarser:
        # a size is met within LANDING; a budget is not to be passed at all
        aimed = target_mb if target_mb == wanted else wanted * (1 - bundles.LANDING)
        bundles.export(source, path, BundleOptions(target_mb=aimed))
    return _fitted(path, before, _counted(source), coarser=coarser and target_mb is None)


def field_of(path: Path) -> ExportSource | None:
    """The light field of a bundle, with its cameras; None for files of splats."""
    form = format_by_content(path)
    if form is None or form.name != "s4d":
        return None
    bundle = open_bundle(path)
    if bundle.manifest["kind"] != LIGHT_SLAB:
        return None
    return ExportSource(
        path=path,
        representation=read_light_slabs(path),
        cameras=_cameras(bundle),
        source_from_scene=torch.tensor(bundle.manifest["transform"], dtype=torch.float64),
    )


def _write_field(
    source: ExportSource, path: Path, budget: TargetBudget, target_mb: float | None
) -> Fitted:
    """A light field costs the same per picture whatever its size, so that only bytes are counted;
    a bundle that fits is copied."""
    form = format_by_content(source.path) if source.path.exists() else None
    opened = open_bundle(source.path) if form is not None and form.name == "s4d" else None
    if opened is not None and target_mb is None and opened.size <= budget.size_mb * 1e6:
        with atomic_path(path) as temporary:
            temporary.write_bytes(_file_of(opened))
        return _fitted(path, (0, 0), (0, 0), coarser=False, what="a light field")
    bundles.export(source, path, BundleOptions(target_mb=target_mb))
    coarser = path.stat().st_size > budget.size_mb * 1e6
    if coarser:
        aimed = budget.size_mb * (1 - bundles.LANDING)
        bundles.export(source, path, BundleOptions(target_mb=aimed))
    return _fitted(path, (0, 0), (0, 0), coarser=coarser, what="a light field")


def _fitted(
    path: Path,
    before: tuple[int, int],
    after: tuple[int, int],
    *,
    coarser: bool,
    what: str | None = None,
) -> Fitted:
    return Fitted(
        splats=after[0],
        sh_degree=after[1],
        size_mb=path.stat().st_size / 1e6,
        splats_before=before[0],
        sh_degree_before=before[1],
        coarser=coarser,
        what=what,
    )


def _fits(counted: tuple[int, int], budget: TargetBudget) -> bool:
    return counted[0] <= budget.splats and counted[1] <= budget.sh_degree


def _counted(source: ExportSource) -> tuple[int, int]:
    cloud = source.scene_cloud()
    return len(cloud), cloud.sh_degree


def _cut(source: ExportSource, splats: int, sh_degree: int) -> ExportSource:
    """``source`` as plain splats without the least important ones; itself where nothing is cut."""
    cloud = source.scene_cloud()
    if len(cloud) <= splats and cloud.sh_degree <= sh_degree:
        return source
    if len(cloud) > splats:
        most = np.argsort(-default_importance(cloud), kind="stable")[: max(1, splats)]
        cloud = taken(cloud, np.sort(most))
    cloud = with_sh_degree(cloud, min(sh_degree, cloud.sh_degree))
    if source.splats is not None:
        return replace(source, splats=cloud)
    return replace(source, representation=splats_of(cloud))


def _is_bundle(source: ExportSource) -> bool:
    if source.splats is None or not source.path.exists():
        return False
    form = format_by_content(source.path)
    return form is not None and form.name == "s4d"


def _file_of(bundle: Bundle) -> bytes:
    """The bundle as one file; the members of a folder become what they were made from."""
    if bundle.path.is_file():
        return bundle.path.read_bytes()
    writer = BundleWriter({k: v for k, v in bundle.manifest.items() if k != "members"})
    for name in bundle.names():
        writer.add(name, bundle.read(name))
    return writer.to_bytes()


def _from_bundle(source: ExportSource, bundle: Bundle) -> ExportSource:
    """A bundle that cannot stay as it is: its splats, cameras and way home."""
    manifest = bundle.manifest
    home = np.array(manifest["transform"], dtype=np.float64)
    assert source.splats is not None, f"{MANIFEST} was read as splats"
    cloud = source.cloud().transformed(inverse_similarity(home))
    return replace(
        source,
        splats=None,
        representation=splats_of(cloud),
        cameras=_cameras(bundle),
        source_from_scene=torch.from_numpy(home),
    )


def _cameras(bundle: Bundle) -> list[Camera]:
    return [
        Camera(
            c2w=torch.tensor(view["c2w"], dtype=torch.float32),
            K=torch.tensor(
                [[view["fx"], 0, view["cx"]], [0, view["fy"], view["cy"]], [0, 0, 1]],
                dtype=torch.float32,
            ),
            width=view["width"],
            height=view["height"],
        )
        for view in bundle.manifest["cameras"]
    ]
