"""Kinds of priors by name, found through the entry-point group ``scene4d.priors``.

``NAME:PLACE`` names a kind and what it is made from; a bare PLACE is shown to each kind.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from scene4d.errors import DataError, UsageError
from scene4d.files import printable

GROUP = "scene4d.priors"
_log = logging.getLogger("scene4d")


@runtime_checkable
class PriorKind(Protocol):
    """How priors of one kind come about."""

    description: str
    """What it is, and from what, in a line."""

    def takes(self, place: Path) -> bool:
        """Whether a file or folder is one of these priors; cheap."""

    def load(self, place: Path | None, task: Any) -> Any:
        """The prior (:class:`scene4d.priors.prior.Prior`) made from ``place``; None: from the
        training's own capture, or the one that comes with the package. ``task``: the training's
        :class:`Task`. Raises :class:`DataError` or :class:`UsageError`."""


@dataclass(frozen=True, kw_only=True)
class PriorName:
    """What ``--prior`` says."""

    kind: str | None
    """None: whichever takes the place."""
    place: Path | None

    def __str__(self) -> str:
        place = "" if self.place is None else str(self.place)
        if self.kind is None:
            return place
        return f"{self.kind}:{place}" if place else self.kind


def prior_name(text: str) -> PriorName:
    """``NAME``, ``NAME:PLACE`` or ``PLACE``, taken apart. Raises :class:`UsageError`."""
    if not text.strip():
        raise UsageError("--prior names nothing", fix=_choices())
    name, colon, rest = text.partition(":")
    if name in kind_names():
        return PriorName(kind=name, place=Path(rest) if rest else None)
    if colon and not os.path.exists(text) and name.isidentifier() and len(name) > 1:
        raise UsageError(f"there is no kind of prior {name!r}", where="--prior", fix=_choices())
    return PriorName(kind=None, place=Path(text))


def kind_names() -> list[str]:
    """Names of all kinds, without importing any."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def kinds_that_take(place: Path) -> list[str]:
    """Names of the kinds that a file or folder is a prior of."""
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            if _load(entry).takes(place):
                found.append(entry.name)
        except UsageError as error:
            _log.warning("%s", error)
    return found


def load_prior(name: PriorName, task: Any) -> Any:
    """The prior that ``name`` means. Raises :class:`DataError` where there is none, and
    :class:`UsageError` for a name of nothing."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name.kind is not None:
        if name.kind not in found:
            raise UsageError(f"there is no kind of prior {name.kind!r}", fix=_choices())
        return _load(found[name.kind]).load(name.place, task)
    assert name.place is not None
    if not os.path.exists(name.place):  # which never raises, whatever the name
        raise DataError("the prior was not found", where=printable(name.place), fix=_choices())
    for kind in kinds_that_take(name.place):
        return _load(found[kind]).load(name.place, task)
    raise DataError("is no prior of any kind that is known", where=name.place, fix=_choices())


def _choices() -> str:
    lines = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            lines.append(f"{entry.name} ({_load(entry).description})")
        except UsageError:
            continue
    return f"what there is: {'; '.join(lines)}"


def _load(entry: EntryPoint) -> PriorKind:
    try:
        made = entry.load()()
    except Exception as error:  # a plugin may fail in any way; it must not take the CLI down
        raise UsageError(
            f"the kind of prior {entry.name!r} ({entry.value}) cannot be imported: {error!r}",
            fix="update or uninstall the package that provides it",
        ) from error
    if not isinstance(made, PriorKind):
        raise UsageError(f"{entry.value} is not a PriorKind", where=entry.name)
    return made
