"""Which tensors a saved representation must have: names, shapes and types, told by its plain data.

A checkpoint may come from a stranger, and compiled kernels read as many numbers as they are told
there are. So every tensor of a file passes :func:`check_tensors` before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scene4d.errors import DataError

_SHOWN = 3
"""Names of tensors in a message, at most."""


@dataclass(frozen=True)
class Form:
    """Shape and type of one tensor. A name in place of a number is any number, the same in all
    tensors of the same file."""

    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32
    optional: bool = False
    finite: bool = True
    """Whether NaN and infinity are refused."""


def form(shape: str, dtype: torch.dtype = torch.float32, *, optional: bool = False) -> Form:
    """A :class:`Form` whose shape is written as jaxtyping has it: ``"n 3"``; "" is a number."""
    sizes = tuple(int(s) if s.isdigit() else s for s in shape.split())
    return Form(sizes, dtype, optional)


def like(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """The forms of tensors that there are."""
    return {name: Form(tuple(t.shape), t.dtype) for name, t in tensors.items()}


def module_forms(make: Callable[[], nn.Module], *, within: str = "") -> dict[str, Form]:
    """The forms of the tensors of the module that ``make`` gives, each with ``within.``, if given,
    before its name. It is made on the meta device, without memory, however large it is said to
    be."""
    before = f"{within}." if within else ""
    with torch.device("meta"):
        return {f"{before}{k}": form for k, form in like(make().state_dict()).items()}


def check_tensors(
    tensors: Mapping[str, Tensor], forms: Mapping[str, Form], *, where: object
) -> None:
    """Raises :class:`DataError` unless ``tensors`` are those of ``forms``, no more and no fewer,
    and finite."""
    required = {name for name, form in forms.items() if not form.optional}
    lacking, unknown = sorted(required - set(tensors)), sorted(set(tensors) - set(forms))
    if lacking or unknown:
        told = [f"lacks {_few(lacking)}"] * bool(lacking)
        told += [f"has {_few(unknown)}, which do not belong to it"] * bool(unknown)
        raise DataError(" and ".join(told), where=where)
    sizes: dict[str, tuple[int, str]] = {}
    for name, tensor in tensors.items():
        _check_form(name, tensor, forms[name], sizes, where)
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad and forms[name].finite:
            raise DataError(
                f"has {bad:,} values that are not finite, of {tensor.numel():,}",
                where=f"{where}: {name}",
            )


def _check_form(
    name: str, tensor: Tensor, form: Form, sizes: dict[str, tuple[int, str]], where: object
) -> None:
    if tensor.dtype != form.dtype:
        raise DataError(f"is {tensor.dtype}, expected {form.dtype}", where=f"{where}: {name}")
    fits = len(form.shape) == tensor.ndim
    wanted: list[str] = []
    for size, expected in zip(tensor.shape, form.shape, strict=False):
        if isinstance(expected, str):
            first, of = sizes.setdefault(expected, (size, name))
            wanted.append(f"{first} (as {of})" if of != name else f"{first}")
            fits &= size == first
        else:
            wanted.append(str(expected))
            fits &= size == expected
    if not fits:
        if len(form.shape) != tensor.ndim:
            wanted = [str(size) for size in form.shape]
        raise DataError(
            f"has shape {list(tensor.shape)}, expected [{', '.join(wanted)}]",
            where=f"{where}: {name}",
        )


def _few(names: list[str]) -> str:
    shown = [name[:80] for name in names[:_SHOWN]]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*shown, *more])
