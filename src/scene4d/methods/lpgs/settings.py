"""What a parent/child scene is, besides its structure and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from scene4d.ranges import Count, NotNegative, Positive, Within


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Chosen when a scene is built, and the same from then on."""

    learning_rates: Mapping[str, NotNegative] = field(default_factory=dict)
    """By the names of its parameter groups; none: it is not trained."""
    extent: Positive = 1.0
    """Of the cameras, scene units."""
    antialiased: bool = False
    warm_up: NotNegative = 0.0
    """Share of training after which there are children."""
    quantise_at: NotNegative = 0.0
    """Share of training after which values are rounded."""
    max_num_gaussians: Count = 2**31 - 1
    num_at_start: Annotated[int, Within(0)] = 0
    """Parents that the training began with; 0: those that there are."""
    target_mb: Positive | None = None
    """Size that its bundle shall have, in MB."""
    container_bytes: NotNegative = 25_000.0
    """About what its bundle's manifest, cameras and poster take."""

    def payload_bytes(self, target_mb: float) -> float:
        """What is left for the scene itself in a bundle of that size."""
        return max(1000.0, target_mb * 1e6 - self.container_bytes)
