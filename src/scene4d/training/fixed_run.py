"""A finished run as a fixer shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scene4d.data.scene import at_size_of
from scene4d.errors import UsageError
from scene4d.priors.fixer import load_fixer
from scene4d.representations.task import Task, World
from scene4d.training.fixers import warn_of_other_capture
from scene4d.training.references import FixedScene, References
from scene4d.training.run import LoadedRun
from scene4d.training.train import load_capture


def fixed_run(run: LoadedRun, fixer: Path, *, data: Path | None = None) -> FixedScene:
    """The run's scene, repaired by its training pictures; ``data``: where these lie now.

    Raises :class:`UsageError` for a run without photographs, :class:`DataError` where they or the
    fixer are not found.
    """
    loaded = load_fixer(fixer)
    if not run.method.needs_capture:
        raise UsageError("has no photographs for a fixer to look at", where=run.path,
                         fix="leave --fixer out")  # fmt: skip
    options = run.options if data is None else replace(run.options, data=data)
    scene, images = load_capture(options, source_from_scene=run.source_from_scene)
    task = Task(world=World.of(scene), capture=at_size_of(scene, images))
    warn_of_other_capture(loaded, scene)
    device = next(run.representation.parameters()).device
    return FixedScene(
        fixer=loaded.to(device), references=References(task), scene=run.representation
    )
