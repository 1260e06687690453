"""Ranges of numbers: declared where a number is, refused and told in ``--help`` everywhere.

``steps: Annotated[int, Within(1, 10**7)]`` declares one. The command line refuses what lies outside
(exit status 2) and names the range beside the option; :func:`range_faults` finds what lies outside
in an object that was made in another way. NaN lies outside of every range.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

MOST = 1e30
"""Bound of real numbers that have no other: float32 still holds products with them."""
MOST_WHOLE = 2**31 - 1
MOST_PIXELS = 1 << 28
"""Of a picture: 268 million. A 200-megapixel phone passes, and no file of a few kB gets more than
3 GB."""


class Within(PrimitiveConstructorSpec[Any]):
    """Numbers from ``low`` to ``high``, whole ones where ``low`` is an int."""

    low: float
    high: float
    above: bool

    def __init__(self, low: float, high: float | None = None, *, above: bool = False) -> None:
        """``above``: ``low`` itself is outside. Without ``high``, as large as a number may be."""
        kind = type(low)
        most = MOST_WHOLE if kind is int else MOST
        for name, value in {
            "low": low, "high": most if high is None else kind(high), "above": above,
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)
        super().__init__(
            nargs=1,
            metavar=f"{kind.__name__.upper()} {self.words}",
            instance_from_str=lambda texts: kind(texts[0]),
            is_instance=lambda x: type(x) is kind or (kind is float and type(x) is int),
            str_from_instance=lambda value: [str(value)],
        )

    @property
    def words(self) -> str:
        """The range as ``--help`` tells it."""
        if self.high in (MOST, MOST_WHOLE):
            if self.low == -self.high:
                return "finite"
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"{'above ' if self.above else ''}{_shown(self.low)} to {_shown(self.high)}"

    def __repr__(self) -> str:
        """Short: tyro shows it in messages."""
        return self.words

    def __contains__(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (value > self.low if self.above else value >= self.low) and value <= self.high


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


Share = Annotated[float, Within(0.0, 1.0)]
Weight = Annotated[float, Within(0.0, 1e6)]
"""Of a term of the loss, or of something in it."""
Rate = Annotated[float, Within(0.0, 10.0)]
"""A learning rate."""
Positive = Annotated[float, Within(0.0, above=True)]
NotNegative = Annotated[float, Within(0.0)]
Finite = Annotated[float, Within(-MOST, MOST)]
Count = Annotated[int, Within(1)]
"""At least 1."""


def range_faults(config: Any, *, within: str = "") -> list[str]:
    """What lies outside its range in a dataclass and those in it: ``name is 3, expected 4 to 5``.

    Names are as in TOML, with the names of the dataclasses that they are ``within``, unless the
    command line leaves those out.
    """
    faults = []
    hints = _hints(config.__class__)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints.get(field.name)
        if dataclasses.is_dataclass(value):
            unnamed = any(getattr(m, "name", None) == "" for m in getattr(hint, "__metadata__", ()))
            faults += range_faults(value, within=within if unnamed else f"{within}{field.name}.")
            continue
        for allowed, number in ranged(hint, value):
            if number not in allowed:
                faults.append(f"{within}{field.name} is {number}, expected {allowed.words}")
    return faults


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def ranged(hint: Any, value: Any) -> Iterator[tuple[Within, float]]:
    """Each number in ``value`` with the range that ``hint`` has for it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [m for m in hint.__metadata__ if isinstance(m, Within)]
        if ranges and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield ranges[0], value
        elif not ranges:
            yield from ranged(arguments[0], value)
    elif origin in (typing.Union, types.UnionType):
        for option in arguments:
            yield from ranged(option, value)
    elif origin is tuple and isinstance(value, (tuple, list)):
        each = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        for part, number in zip(each, value, strict=False):
            yield from ranged(part, number)
