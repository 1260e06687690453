"""scene4d: neural 3D and 4D scene representations, trained anywhere, small enough for a phone.

The flow through the package: capture -> ``data`` -> Scene -> ``training`` (a representation,
objectives, schedules) -> run folder -> ``exporters`` and ``bundle``. Importing ``scene4d`` itself
imports neither torch nor numba; each room imports what it needs, and the names that most people
need are found here when they are first asked for: ``scene4d.load_run``, see docs/python-api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scene4d.cameras.camera import Camera as Camera
    from scene4d.data.load import load_scene as load_scene
    from scene4d.formats.registry import read_splats as read_splats
    from scene4d.formats.registry import write_splats as write_splats
    from scene4d.methods.splat.method import SplatMethod as SplatMethod
    from scene4d.priors.prior import Prior as Prior
    from scene4d.rendering.render import Want as Want
    from scene4d.rendering.splats.rasterization import rasterization as rasterization
    from scene4d.representations.method import GuidanceOptions as GuidanceOptions
    from scene4d.training.evaluate import evaluate_run as evaluate_run
    from scene4d.training.methods import load_method as load_method
    from scene4d.training.options import TrainOptions as TrainOptions
    from scene4d.training.run import load_run as load_run
    from scene4d.training.train import resume as resume
    from scene4d.training.train import start as train  # noqa: F401

_PLACES = {
    "Camera": "cameras.camera:Camera",
    "GuidanceOptions": "representations.method:GuidanceOptions",
    "Prior": "priors.prior:Prior",
    "SplatMethod": "methods.splat.method:SplatMethod",
    "TrainOptions": "training.options:TrainOptions",
    "Want": "rendering.render:Want",
    "evaluate_run": "training.evaluate:evaluate_run",
    "load_method": "training.methods:load_method",
    "load_run": "training.run:load_run",
    "load_scene": "data.load:load_scene",
    "rasterization": "rendering.splats.rasterization:rasterization",
    "read_splats": "formats.registry:read_splats",
    "resume": "training.train:resume",
    "train": "training.train:start",
    "write_splats": "formats.registry:write_splats",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    """Imports what ``name`` stands for when it is first asked for (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module 'scene4d' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = getattr(import_module(f"scene4d.{module}"), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """With the names that are imported late."""
    return sorted({*globals(), *_PLACES})
