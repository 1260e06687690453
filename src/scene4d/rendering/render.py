"""What every renderer returns, whatever it renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Render:
    """The picture a representation gives for one camera or a batch of cameras."""

    rgb: Float[Tensor, "*batch height width 3"]
    """Composited on the background; linear in the representation's colours, not clamped."""
    alpha: Float[Tensor, "*batch height width"]
    depth: Float[Tensor, "*batch height width"] | None = None
    """Expected distance along the viewing axis in scene units; 0 where alpha is 0."""
    features: Float[Tensor, "*batch height width channels"] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What this representation alone knows (screen-space statistics, ...)."""
