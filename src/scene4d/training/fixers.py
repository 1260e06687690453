"""The fixer of a training: named on the command line."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

from scene4d.data.scene import Scene
from scene4d.errors import UsageError
from scene4d.files import printable
from scene4d.priors.fixer import Fixer, load_fixer
from scene4d.priors.prior import CaptureMark, Prior
from scene4d.representations.method import Method
from scene4d.representations.task import Task
from scene4d.training.options import TrainOptions

_log = logging.getLogger("scene4d")


def check_fixing(method: Method, options: TrainOptions) -> None:
    """Raises :class:`UsageError` for a fixer that nothing asks, or of a method without a capture;
    warns where its options are given and there is none."""
    asking = [o for o in method.terms() if o.needs_fixer and o.weight != 0]
    if options.fixer is not None and not method.needs_capture:
        raise UsageError(f"the method {method.name!r} has no photographs for a fixer to look at",
                         fix="leave --fixer out")  # fmt: skip
    if options.fixer is not None and not asking:
        raise UsageError(f"a fixer is given, and no term of the method {method.name!r} asks it",
                         fix="leave --fixer out, or give fixing.weight a value")  # fmt: skip
    usual = [o for o in type(method)().terms() if o.needs_fixer and o.weight != 0]
    if asking != usual and options.fixer is None:
        _log.warning("note: options of fixing are given and no fixer is: they are ignored; "
                     "name one with --fixer")  # fmt: skip


def with_fixer(task: Task, options: TrainOptions) -> Task:
    """The task with the fixer that the options name. Raises :class:`DataError` for none."""
    if options.fixer is None:
        return task
    fixer = load_fixer(options.fixer)
    if task.capture is not None:
        warn_of_other_capture(fixer, task.capture)
    return replace(task, fixer=fixer)


def warn_of_other_capture(customised: Fixer | Prior, scene: Scene) -> None:
    """Says so where a network was customised for another capture than ``scene``."""
    mark = customised.capture
    if mark is not None and mark.digest != mark_of(scene).digest:
        what = "fixer" if isinstance(customised, Fixer) else "prior"
        _log.warning(
            "note: the %s was customised for the capture %s, and this is another: it may paint "
            "what is there; the %s that it was made of is the safer one",
            what, printable(mark.name), what,
        )  # fmt: skip


def mark_of(scene: Scene) -> CaptureMark:
    """The mark of a capture, the same wherever it lies."""
    digest = hashlib.sha256()
    for frame in sorted(scene.frames, key=lambda frame: frame.name):
        size = frame.image_path.stat().st_size if frame.image_path.is_file() else 0
        digest.update(f"{frame.name}\0{size}\0".encode())
    return CaptureMark(name=scene.root.resolve().name, digest=digest.hexdigest())
