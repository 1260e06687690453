"""Checkpoints: one safetensors file each, plain data in its header, written beside and renamed."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scene4d.errors import DataError
from scene4d.files import atomic_path, checked_file, printable, remove_leftovers
from scene4d.plain import from_table
from scene4d.ranges import NotNegative, Within

_NAME = re.compile(r"step-(\d{9})\.safetensors")
_UNFINISHED = re.compile(r"\.(step-\d{9})\.\w+\.tmp\.safetensors")
_OF_SAFETENSORS = re.compile(r"\.tmp\w{6}")
"""What the library itself writes beside the file that it is asked for."""
_HEADER_KEY = "scene4d"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that training needs to go on as if it had not stopped."""

    step: int
    plain: Mapping[str, Any]
    """Numbers, strings and lists."""
    tensors: Mapping[str, Tensor]
    """By name; parts are prefixed ``representation/``, ``optimiser/`` and so on."""

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        prefix = f"{name}/"
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes ``step-%09d.safetensors`` and removes all but the newest ``keep``.

    Raises :class:`Scene4dError` when the disk is full; earlier checkpoints stay.
    """
    path = directory / f"step-{checkpoint.step:09d}.safetensors"
    remove_unfinished(directory)
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    header = {"step": checkpoint.step, **checkpoint.plain}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_HEADER_KEY: json.dumps(header)})
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
    for old in list_checkpoints(directory)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def remove_unfinished(directory: Path) -> None:
    """Removes what a killed process had begun to write; the caller holds the run."""
    for path in directory.glob(".*"):
        match = _UNFINISHED.fullmatch(path.name)
        if match is not None:
            remove_leftovers(directory / f"{match[1]}.safetensors")
        elif _OF_SAFETENSORS.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoint files in a folder, oldest first."""
    return sorted(p for p in directory.glob("step-*.safetensors") if _NAME.fullmatch(p.name))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises :class:`DataError` when it is not one or is damaged.

    Whether its tensors fit together is for whoever uses them to check.
    """
    checked_file(path)
    fix = "delete it to continue from the one before"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = from_table(_Header, _json(metadata[_HEADER_KEY]), where="header")
    except DataError as error:
        raise DataError(f"is not a scene4d checkpoint ({error})", where=path, fix=fix) from error
    except Exception as error:  # damaged headers make safetensors and torch raise anything
        raise DataError(
            f"cannot be read as a scene4d checkpoint ({printable(error)})", where=path, fix=fix
        ) from error
    plain = dict(vars(header))
    return Checkpoint(step=plain.pop("step"), plain=plain, tensors=tensors)


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The plain data of a checkpoint, as it may be."""

    step: Annotated[int, Within(0, 999_999_999)]
    method: str
    elapsed_s: NotNegative
    representation: dict  # type: ignore[type-arg]


def _json(text: str) -> Any:
    def refused(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refused)
