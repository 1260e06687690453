"""Methods by name, found through the entry-point group ``scene4d.methods``."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, entry_points

from scene4d.errors import UsageError
from scene4d.representations.method import Method

GROUP = "scene4d.methods"
PRIORS = "scene4d.prior_methods"
"""Methods that ``scene4d prior train`` trains: what comes of them is no scene."""
_log = logging.getLogger("scene4d")


def method_names() -> list[str]:
    """Names of every registered method, without importing any."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_method(name: str) -> type[Method]:
    """The method class registered under ``name``, of a scene or of a prior.

    A plugin that fails to import is reported by name and the error it gave.
    """
    scenes = {entry.name: entry for entry in entry_points(group=GROUP)}
    found = {entry.name: entry for entry in entry_points(group=PRIORS)} | scenes
    if name not in found:
        raise UsageError(
            f"there is no method {name!r}", fix=f"choose one of: {', '.join(sorted(scenes))}"
        )
    return _load(found[name])


def prior_method_names() -> list[str]:
    """Names of the methods that train priors, without importing any."""
    return sorted({entry.name for entry in entry_points(group=PRIORS)})


def load_all_methods() -> dict[str, type[Method]]:
    """Every method that can be imported; the others are named in a warning and left out."""
    methods = {}
    for entry in entry_points(group=GROUP):
        try:
            methods[entry.name] = _load(entry)
        except UsageError as error:
            _log.warning("%s", error)
    return methods


def compressing_method() -> type[Method]:
    """The method that ``scene4d compress`` trains."""
    for method in load_all_methods().values():
        if method.compressor is not None:
            return method
    raise UsageError("no method that compresses is installed", fix="install scene4d again")


def _load(entry: EntryPoint) -> type[Method]:
    try:
        method = entry.load()
    except Exception as error:  # a plugin may fail in any way; it must not take the CLI down
        raise UsageError(
            f"the method {entry.name!r} ({entry.value}) cannot be imported: {error!r}",
            fix="update or uninstall the package that provides it",
        ) from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UsageError(f"{entry.value} is not a Method class", where=entry.name)
    return method
