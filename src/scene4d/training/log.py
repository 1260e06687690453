"""What a training says while it runs: a live table, or plain lines; and ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from scene4d.files import read_bytes, write_text
from scene4d.training.display import in_terminal, shown

PLAIN_EVERY_S = 10.0
"""Seconds between lines where stderr is no terminal."""


class TrainingLog:
    """Shows progress on stderr and appends every metric to ``metrics.jsonl``.

    A line that a kill left half-written, and lines after ``first_step``, are cut off when an
    existing file is opened, so a resumed run's file reads as if it had never stopped.
    """

    def __init__(
        self,
        run: Path,
        *,
        total_steps: int | None,
        max_minutes: float | None,
        first_step: int = 0,
        tensorboard: bool = False,
        plain: bool | None = None,
    ) -> None:
        """``plain``: lines instead of a table; None asks whether stderr is a terminal."""
        self.path = run / "metrics.jsonl"
        self.total_steps, self.max_minutes = total_steps, max_minutes
        self.first_step = self.step = first_step
        self.plain = not in_terminal() if plain is None else plain
        cut_after(self.path, first_step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, close() ends it
        self._board = _summary_writer(run) if tensorboard else None
        self._start = time.monotonic()
        self._last_line = -PLAIN_EVERY_S
        self._latest: Mapping[str, float] = {}
        self._shown = ExitStack()

    def __enter__(self) -> TrainingLog:
        if not self.plain:
            self._shown.enter_context(shown(self._table))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line of numbers and shows them; what is not finite is written as null."""
        self.step, self._latest = step, metrics
        numbers = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        now = time.monotonic()
        if self.plain and now - self._last_line >= PLAIN_EVERY_S:
            self._last_line = now
            print(self.line(), file=sys.stderr, flush=True)

    def event(self, text: str) -> None:
        """Says something that happened once."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the display and closes the files."""
        self._shown.close()
        if self.plain and self._latest:
            print(self.line(), file=sys.stderr, flush=True)
        self._latest = {}
        with suppress(OSError):  # a full disk was told when the line was written
            self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    @property
    def done(self) -> float:
        """Share of training done, 0..1."""
        shares = []
        if self.total_steps:
            shares.append(self.step / self.total_steps)
        if self.max_minutes:
            shares.append(self._latest.get("seconds", 0.0) / (60.0 * self.max_minutes))
        return min(1.0, max(shares, default=0.0))

    @property
    def steps_per_second(self) -> float:
        """Since this process began."""
        return (self.step - self.first_step) / max(1e-9, time.monotonic() - self._start)

    def cells(self) -> dict[str, str]:
        """What is shown, by name."""
        seconds = self._latest.get("seconds", 0.0)
        eta = seconds * (1.0 - self.done) / self.done if self.done > 0 else None
        cells = {
            "step": str(self.step),
            "done": f"{self.done:.0%}",
            "it/s": f"{self.steps_per_second:.1f}",
            "ETA": "-" if eta is None else duration(eta),
        }
        if "loss" in self._latest:
            cells["loss"] = f"{self._latest['loss']:.4f}"
        if "psnr" in self._latest:
            cells["PSNR"] = f"{self._latest['psnr']:.2f} dB"
        if "mb" in self._latest:
            cells["MB"] = f"{self._latest['mb']:.3f}"
        if "image_height" in self._latest:
            width, height = (int(self._latest[f"image_{side}"]) for side in ("width", "height"))
            cells["pictures"] = f"{width}x{height}"
        for name, value in self._latest.items():
            if name.startswith("num_") and math.isfinite(value):
                cells[name.removeprefix("num_").replace("_", " ")] = f"{value:,.0f}"
        memory = peak_memory_gb()
        if memory is not None:
            cells["peak memory"] = f"{memory:.2f} GB"
        return cells

    def line(self) -> str:
        """The cells as one plain line."""
        return "  ".join(f"{name} {value}" for name, value in self.cells().items())

    def _table(self, width: int) -> Any:
        """The cells in as many tables below each other as a terminal of ``width`` columns takes."""
        from rich import box
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        parts: list[Any] = [ProgressBar(total=1.0, completed=self.done, width=min(60, width))]
        for row in _rows(self.cells(), width):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for name in row:
                table.add_column(name, justify="right", no_wrap=True)
            table.add_row(*row.values())
            parts.append(table)
        return Group(*parts)


class NoLog:
    """That of a process beside the one that writes: says nothing."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def event(self, text: str) -> None:
        """Nothing."""


_BETWEEN_COLUMNS = 3
_EDGES = 2


def _rows(cells: Mapping[str, str], width: int) -> list[dict[str, str]]:
    """The cells in order, each row as long as fits into ``width`` columns; never fewer than one."""
    rows: list[dict[str, str]] = [{}]
    used = _EDGES
    for name, value in cells.items():
        needed = max(len(name), len(value)) + _BETWEEN_COLUMNS
        if rows[-1] and used + needed > width:
            rows.append({})
            used = _EDGES
        rows[-1][name] = value
        used += needed
    return rows


def cut_after(path: Path, step: int) -> None:
    """Keeps the whole lines of a metrics.jsonl up to ``step``; rewritten atomically."""
    if not path.exists():
        return
    text = read_bytes(path).decode("utf-8", errors="replace")
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
    if kept != lines:
        write_text(path, "".join(kept))


def _step_of(line: str) -> int | None:
    if not line.endswith("\n"):
        return None
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def duration(seconds: float) -> str:
    """1h02m, 3m05s or 12s."""
    total = round(seconds)
    if total >= 3600:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 60}m{total % 60:02d}s" if total >= 60 else f"{total}s"


def peak_memory_gb() -> float | None:
    """Largest resident memory of this process so far, in GB; None where it cannot be known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _summary_writer(run: Path) -> Any:
    import warnings

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn("--tensorboard is ignored: pip install tensorboard", stacklevel=2)
        return None
    return SummaryWriter(str(run / "tensorboard"))
