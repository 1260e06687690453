"""What every renderer returns, whatever it renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera


@dataclass(frozen=True, kw_only=True)
class Want:
    """What is asked of a render beside colour and alpha; what a scene does not have stays None."""

    depth: bool = False
    positions_at: tuple[float, ...] = ()
    """Times in seconds: where what is seen now is then. Two projections make optical flow, three
    or more a track."""
    parts: tuple[str, ...] = ()
    """Parts of the scene that are rendered alone, too: "static", "dynamic"."""
    shares: bool = False
    """How much of each pixel is of which part."""

    def __or__(self, other: Want) -> Want:
        """Both of them."""
        more = tuple(t for t in other.positions_at if t not in self.positions_at)
        return Want(
            depth=self.depth or other.depth,
            positions_at=self.positions_at + more,
            parts=self.parts + tuple(p for p in other.parts if p not in self.parts),
            shares=self.shares or other.shares,
        )


RGB = Want()
DEPTH = Want(depth=True)


@dataclass(frozen=True, kw_only=True)
class Render:
    """The picture a representation gives for one camera or a batch of cameras."""

    rgb: Float[Tensor, "*batch height width 3"]
    """Composited on the background; linear in the representation's colours, not clamped."""
    alpha: Float[Tensor, "*batch height width"]
    depth: Float[Tensor, "*batch height width"] | None = None
    """Expected distance along the viewing axis in scene units; 0 where alpha is 0."""
    positions: Float[Tensor, "*batch times height width 3"] | None = None
    """World coordinates, at each time of ``Want.positions_at``, of what is seen: expected like
    ``depth``; 0 where alpha is 0."""
    parts: Mapping[str, Render] = field(default_factory=dict)
    """By name, each on black."""
    shares: Mapping[str, Float[Tensor, "*batch height width"]] = field(default_factory=dict)
    """By part, the weight that it has in a pixel as it is blended; all parts' sum is alpha."""
    features: Float[Tensor, "*batch height width channels"] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What this representation alone knows (screen-space statistics, ...)."""

    def picture(self, at: int) -> Render:
        """That of one camera of a batch, without ``extras``."""
        return merged([self], lambda maps: maps[0][at])


def merged(
    renders: Sequence[Render],
    merge: Callable[[list[Tensor]], Tensor],
    *,
    extras: Mapping[str, Any] | None = None,
) -> Render:
    """A render each of whose maps ``merge`` makes of the same map of all ``renders``, which have
    the same ones."""

    def of(name: str) -> Tensor | None:
        maps = [getattr(render, name) for render in renders]
        return None if maps[0] is None else merge(maps)

    first = renders[0]
    return Render(
        rgb=merge([render.rgb for render in renders]),
        alpha=merge([render.alpha for render in renders]),
        depth=of("depth"),
        positions=of("positions"),
        features=of("features"),
        parts={name: merged([r.parts[name] for r in renders], merge) for name in first.parts},
        shares={name: merge([r.shares[name] for r in renders]) for name in first.shares},
        extras=extras or {},
    )


@runtime_checkable
class Renders(Protocol):
    """What gives pictures: a representation, or one that a fixer repairs."""

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``."""
