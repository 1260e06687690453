"""The controls beside the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

OUTPUTS = ("rgb", "depth", "alpha")
_FIRST = ("psnr", "loss")
"""Shown before other numbers."""
_AT_MOST = 8


class Panel:
    """Status, pause, output, resolution, cameras and, in scenes with time, the moment shown."""

    def __init__(
        self,
        server: Any,
        *,
        longest_side: int,
        times: tuple[float, float] | None,
        on_change: Callable[[], None],
        on_pause: Callable[[bool], None],
        on_show_cameras: Callable[[bool], None],
    ) -> None:
        """``on_change`` is called when the picture must be made anew."""
        gui = server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self.status = gui.add_markdown("waiting for the first step")
        self.pause = gui.add_button("Pause training")
        self.output = gui.add_dropdown("Output", OUTPUTS, initial_value="rgb")
        self.longest_side = gui.add_slider(
            "Max resolution", min=128, max=2048, step=64, initial_value=longest_side,
            hint="Pixels along the longer side when the camera is at rest",
        )  # fmt: skip
        self.cameras = gui.add_checkbox("Training cameras", initial_value=True)
        self.time = None
        if times is not None:
            low, high = times
            step = (high - low) / 100
            self.time = gui.add_slider("Time (s)", min=low, max=high, step=step, initial_value=low)
            self.time.on_update(lambda _: on_change())
        self.output.on_update(lambda _: on_change())
        self.longest_side.on_update(lambda _: on_change())
        self.cameras.on_update(lambda _: on_show_cameras(self.cameras.value))
        self.paused = False

        @self.pause.on_click
        def _(_: Any) -> None:
            on_pause(not self.paused)

    def show_paused(self, paused: bool) -> None:
        """Makes the button say what it will do next."""
        self.paused = paused
        self.pause.label = "Resume training" if paused else "Pause training"

    def show_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the numbers of a step."""
        self.status.content = metrics_table(step, metrics)

    def show_problem(self, text: str) -> None:
        """Shows why there is no picture."""
        self.status.content = f"**The picture could not be rendered:** {text}"


def metrics_table(step: int, metrics: Mapping[str, float]) -> str:
    """Markdown for the step's most telling numbers."""
    names = [name for name in _FIRST if name in metrics]
    names += [name for name in metrics if name not in _FIRST]
    rows = [f"| {name} | {_number(metrics[name])} |" for name in names[:_AT_MOST]]
    return "\n".join([f"| step | {step:,} |", "| :-- | --: |", *rows])


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"
