"""The method ``dpdy``: a dynamic field guided by an RGB-D prior of the capture's own frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from scene4d.methods.dynamic_field.method import DynamicFieldMethod
from scene4d.representations.method import GuidanceOptions


@dataclass(frozen=True, kw_only=True)
class DpdyMethod(DynamicFieldMethod):
    """A dynamic field, guided by a prior of colour and depth of its own frames."""

    name: ClassVar[str] = "dpdy"
    description: ClassVar[str] = "Dynamic field + RGB-D prior of the frames (DpDy); slow on a CPU"
    default_prior: ClassVar[str | None] = "patches"

    guidance: GuidanceOptions = field(
        default_factory=lambda: GuidanceOptions(
            weight=0.02, start=0.5, every=4, most_time=0.5, between=0.9, beyond=10.0, any_time=0.3
        )
    )
    """Asks the prior, by default a memory of the frames' patches."""


DPDY = DpdyMethod
