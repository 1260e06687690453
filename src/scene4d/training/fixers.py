"""The fixer of a training: named on the command line."""

from __future__ import annotations

import logging
from dataclasses import replace

from scene4d.errors import UsageError
from scene4d.priors.fixer import load_fixer
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
    return replace(task, fixer=load_fixer(options.fixer))
