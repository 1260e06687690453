"""Optional packages in tests: a test that needs one skips where it is absent or does not load.

``SCENE4D_TEST_OPTIONAL=broken`` makes every optional package raise ``ImportError`` as it does where
a shared library is missing, ``absent`` takes all of them away: `make test` passes under both.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "SCENE4D_TEST_OPTIONAL"
MESSAGE = "libusb-1.0.so.0: cannot open shared object file: No such file or directory"
_NEEDED_BY_TESTS = {"pytest", "hypothesis", "beartype", "ruff", "mypy", "pre-commit"}
"""Of the extra ``dev``: without these there are no tests."""
_MODULES = {"opencv-python-headless": "cv2"}
"""Of packages whose module has another name."""


def optional_modules() -> dict[str, str]:
    """Module and extra of every optional package that pyproject.toml names."""
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    extras = tomllib.loads(path.read_text())["project"]["optional-dependencies"]
    found = {}
    for extra, requirements in extras.items():
        for requirement in requirements:
            match = re.match(r"[\w.-]+", requirement)
            assert match is not None, requirement
            name = match.group().lower()
            if name not in _NEEDED_BY_TESTS:
                found.setdefault(_MODULES.get(name, name.replace("-", "_")), extra)
    return found


def import_or_skip(module: str, *, reason: str | None = None) -> Any:
    """The module; where it is absent or does not load, the test (or file) is skipped."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        pytest.skip(f"{reason or module} ({error})", allow_module_level=True)


def hide_if_asked() -> None:
    """Hides the optional packages from this process where the environment says so."""
    how = os.environ.get(VARIABLE)
    if not how:
        return
    assert how in ("broken", "absent"), f"{VARIABLE} is {how!r}"
    hidden, find = tuple(optional_modules()), PathFinder.find_spec

    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not any(f"{name}.".startswith(f"{module}.") for module in hidden):
            return find(name, path, target)
        return None if how == "absent" else ModuleSpec(name, _Broken())

    PathFinder.find_spec = find_spec  # type: ignore[method-assign]


class _Broken(Loader):
    def exec_module(self, module: Any) -> None:
        raise ImportError(MESSAGE, name=module.__name__)
