"""Optional packages: imported where they are used, with one clear error where they are not usable.

A package may be absent, or be there and fail to load because a library of the system (or another
package) is missing. The two want different remedies.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from scene4d.errors import BrokenExtraError, MissingExtraError

DEBIAN_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLU.so.1": "libglu1-mesa",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libSM.so.6": "libsm6",
    "libasound.so.2": "libasound2",
    "libc++.so.1": "libc++1",
    "libdrm.so.2": "libdrm2",
    "libgbm.so.1": "libgbm1",
    "libgcc_s.so.1": "libgcc-s1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libtbb.so.12": "libtbb12",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libxcb.so.1": "libxcb1",
    "libz.so.1": "zlib1g",
}
"""Debian's and Ubuntu's package of a shared library."""

_LIBRARY = re.compile(r"lib[\w.+-]*?\.(?:so(?:\.\d+)*|dylib)\b")


def import_optional(
    module: str, *, extra: str, needed_for: str, package: str | None = None
) -> ModuleType:
    """The module of an optional package, imported now.

    ``package`` is its name for pip where that differs. Raises :class:`MissingExtraError` where it
    is not installed, and :class:`BrokenExtraError`, which is one, where it cannot load.
    """
    package = package or module.split(".")[0]
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        if is_absent(module, error):
            raise MissingExtraError(package, extra=extra, needed_for=needed_for) from error
        raise BrokenExtraError(
            package, why=first_line(error), needed_for=needed_for, fix=remedy(package, error, extra)
        ) from error


def why_not(module: str, *, extra: str | None = None) -> str | None:
    """Why an optional module cannot be imported, and the way out, in one line; None when it can."""
    package = module.split(".")[0]
    try:
        importlib.import_module(module)
    except Exception as error:  # what a broken package raises when imported is up to it
        if is_absent(module, error):
            return "is not installed" + (f": pip install 'scene4d[{extra}]'" if extra else "")
        return f"does not load ({first_line(error)}): {remedy(package, error, extra)}"
    return None


def is_absent(module: str, error: BaseException) -> bool:
    """Whether importing ``module`` failed because its package is not there at all."""
    return isinstance(error, ModuleNotFoundError) and (
        error.name is not None and f"{module}.".startswith(f"{error.name}.")
    )


def remedy(package: str, error: BaseException, extra: str | None) -> str:
    """What to do about a package that is installed and does not load."""
    found = _LIBRARY.search(str(error))
    if found is None:
        what = f"scene4d[{extra}]" if extra else package
        return f"pip install --force-reinstall '{what}'"
    library = found.group()
    known = DEBIAN_PACKAGES.get(library)
    if known:
        how = f"on Debian: apt-get install {known}"
    else:
        how = f"'apt-file search {library}' names Debian's package of it"
    return f"install the system library {library}; {how}"


def first_line(error: BaseException) -> str:
    """The beginning of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
