"""Pseudo-views: a teacher's pictures, rendered when they are needed and kept within a budget.

The teacher may also be a scene as a fixer or a prior shows it, with confidence in place of alpha.

Pictures lie in a ring of slots: a new one replaces the oldest. Each is kept as bytes (colour
premultiplied by alpha, alpha) and, when asked for, depth in half precision. Nothing is written to
disk: a checkpoint holds the cameras and the errors, and pictures are rendered again on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.rendering.render import Renders, Want
from scene4d.representations.saved import Form, form
from scene4d.training.parallel import ALONE, Processes

_LARGEST_HALF = 65504.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where crops lie: slots, and columns and rows of their top-left pixels."""

    slots: Int[Tensor, " n"]
    x: Int[Tensor, " n"]
    y: Int[Tensor, " n"]
    size: tuple[int, int]
    """Width and height of every crop."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """Crops of pseudo-views, on the teacher's device."""

    camera: Camera
    """A batch."""
    rgba: Float[Tensor, "n height width 4"]
    """0..1; colours premultiplied."""
    depth: Float[Tensor, "n height width"] | None

    @property
    def rgb(self) -> Float[Tensor, "n height width 3"]:
        """On black."""
        return self.rgba[..., :3]

    @property
    def alpha(self) -> Float[Tensor, "n height width"]:
        """0..1."""
        return self.rgba[..., 3]

    def on(self, background: Float[Tensor, " 3"]) -> Float[Tensor, "n height width 3"]:
        """Colours on a background: rgb + (1 - alpha) background, in one product of matrices."""
        matrix = torch.cat([torch.eye(3, device=background.device), -background[None]])
        return torch.addmm(background, self.rgba.flatten(0, 2), matrix).view(self.rgb.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    rgba: UInt8[Tensor, "height width 4"]
    depth: Float[Tensor, "height width"] | None

    @property
    def nbytes(self) -> int:
        return self.rgba.nbytes + (0 if self.depth is None else self.depth.nbytes)


class PseudoViews:
    """A ring of a teacher's pictures, with the student's error in each cell of them."""

    def __init__(
        self,
        teacher: Renders,
        cameras: Sequence[Camera],
        *,
        budget_bytes: float,
        cell: int,
        depth: bool = False,
        unit: float = 1.0,
        device: torch.device | str = "cpu",
        kept: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        """Pictures will have the sizes of ``cameras``. ``cell``: pixels along a cell's side.

        ``kept``: colours and alpha are part of the state, for a teacher that changes. ``unit``:
        scene units that depth is kept in. ``processes``: all render the same pictures, and have
        them as the first one does. Raises :class:`UsageError` where the budget does not hold one
        picture.
        """
        self.teacher, self.cell, self.depth, self.unit = teacher, cell, depth, unit
        self.device, self.kept, self.processes = device, kept, processes
        largest = max(c.width * c.height for c in cameras) * (6 if depth else 4)
        self.capacity = int(budget_bytes // largest)
        if self.capacity < 1:
            raise UsageError(
                f"one picture takes {largest / 1e6:.2f} MB; {budget_bytes / 1e6:g} MB are allowed",
                fix="raise the teacher's cache_mb, or lower the resolution (--downscale-factor)",
            )
        self._cells = (
            -(-max(c.height for c in cameras) // cell),
            -(-max(c.width for c in cameras) // cell),
        )
        self._sizes = {(c.width, c.height) for c in cameras}
        self.cameras: list[Camera] = []
        self._pictures: list[_Picture | None] = []
        self._next = 0
        self.errors = torch.zeros(0, *self._cells)
        """Of each slot's cells: the mean squared error when it was last looked at; 0 outside."""
        self.rendered = 0
        """Pictures rendered so far in this process."""

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures that are held now."""
        return sum(p.nbytes for p in self._pictures if p is not None)

    def add(self, camera: Camera) -> None:
        """Takes a picture from ``camera``, instead of the oldest where the ring is full.

        It is rendered when a crop of it is first drawn. Until then its error counts as the mean of
        the others.
        """
        start = float(self.errors.sum()) / max(float((self.errors > 0).sum()), 1.0) or 1.0
        fresh = torch.zeros(1, *self._cells)
        rows, columns = -(-camera.height // self.cell), -(-camera.width // self.cell)
        fresh[:, :rows, :columns] = start
        if len(self) < self.capacity:
            self.cameras.append(camera)
            self._pictures.append(None)
            self.errors = torch.cat([self.errors, fresh])
        else:
            self.cameras[self._next] = camera
            self._pictures[self._next] = None
            self.errors[self._next] = fresh[0]
        self._next = (self._next + 1) % self.capacity

    def draw(
        self, count: int, *, hard: float, size: tuple[int, int], generator: torch.Generator
    ) -> Places:
        """Places of ``count`` crops, ``size`` (width, height) pixels each.

        The share ``hard`` of them (rounded) is centred in cells drawn in proportion to their
        error, the others anywhere in pictures drawn evenly; then a crop is moved into its picture.
        """
        num_hard = round(hard * count) if float(self.errors.sum()) > 0 else 0
        uv = torch.rand(count, 2, generator=generator)
        slots = torch.randint(len(self), (count,), generator=generator)
        sizes = torch.tensor([(c.width, c.height) for c in self.cameras])
        if num_hard:
            hard_slots, cells = draw_cells(self.errors, num_hard, generator)
            slots = torch.cat([hard_slots, slots[num_hard:]])
            inside = (cells + uv[:num_hard]) * self.cell
            centres = torch.cat([inside, (uv * sizes[slots])[num_hard:]])
        else:
            centres = uv * sizes[slots]
        corner = (centres - torch.tensor(size) / 2).round().long()
        corner = corner.clamp(min=0).minimum(sizes[slots] - torch.tensor(size))
        return Places(slots=slots, x=corner[:, 0], y=corner[:, 1], size=size)

    def crops(self, places: Places) -> Crops:
        """The pixels and the camera of each crop."""
        width, height = places.size
        rows = list(zip(places.slots.tolist(), places.x.tolist(), places.y.tolist(), strict=True))
        pictures = [self._picture(slot) for slot, _, _ in rows]
        cameras = [self.cameras[s].cropped(x, y, width, height) for s, x, y in rows]
        # A pixel's four bytes as one number: a quarter of the elements to gather.
        pixels = torch.empty(len(rows), height, width, dtype=torch.int32, device=self.device)
        for out, picture, (_, x, y) in zip(pixels, pictures, rows, strict=True):
            out.copy_(picture.rgba.view(torch.int32)[y : y + height, x : x + width, 0])
        rgba = pixels.view(torch.uint8).unflatten(2, (width, 4)).float().div_(255.0)
        depths = [
            p.depth[y : y + height, x : x + width]
            for p, (_, x, y) in zip(pictures, rows, strict=True)
            if p.depth is not None
        ]
        return Crops(
            camera=Camera.stack(cameras).to(rgba.device),
            rgba=rgba,
            depth=torch.stack(depths).float() * self.unit if depths else None,
        )

    def report(self, places: Places, errors: Float[Tensor, "n height width channels"]) -> None:
        """Updates the cells under the crops with the pixels' errors, averaged over channels.

        A cell that a crop covers takes the mean error there; one that it covers in part, as much
        of it as is covered.
        """
        errors = errors.detach().float().cpu()
        _, height, width, channels = errors.shape
        row_of, rows = self._membership(places.y, height)
        column_of, columns = self._membership(places.x, width)
        by_row = (row_of @ errors.flatten(2)).unflatten(2, (width, channels)).mean(dim=-1)
        sums = (by_row @ column_of.mT).nan_to_num(0.0, posinf=0.0, neginf=0.0)
        counts = row_of.sum(-1)[:, :, None] * column_of.sum(-1)[:, None, :]
        means = sums / counts.clamp_min(1.0)
        for i, slot in enumerate(places.slots.tolist()):
            camera = self.cameras[slot]
            top, left = int(rows[i]), int(columns[i])
            area = (
                _sides(camera.height, self.cell)[top:, None]
                * _sides(camera.width, self.cell)[left:]
            )
            part = self.errors[slot, top : top + row_of.shape[1], left : left + column_of.shape[1]]
            part = part[: area.shape[0], : area.shape[1]]
            high, wide = part.shape
            covered = counts[i, :high, :wide] / area[:high, :wide]
            part.lerp_(means[i, :high, :wide], covered)

    def state_tensors(self) -> dict[str, Tensor]:
        """Cameras, errors and the next slot; not the pictures."""
        if not self.cameras:
            return {}
        nan = torch.tensor(torch.nan)
        return {
            "c2w": torch.stack([c.c2w for c in self.cameras]),
            "K": torch.stack([c.K for c in self.cameras]),
            "sizes": torch.tensor([(c.width, c.height) for c in self.cameras]),
            "times": torch.stack([nan if c.time is None else c.time for c in self.cameras]),
            "errors": self.errors,
            "next": torch.tensor(self._next),
            **self._pixels(),
        }

    def _pixels(self) -> dict[str, Tensor]:
        """The pictures that are there, one after the other, and which of all they are."""
        if not self.kept:
            return {}
        there = [p.rgba.cpu().flatten() for p in self._pictures if p is not None]
        made = torch.tensor([int(p is not None) for p in self._pictures])
        return {"pixels": torch.cat([torch.empty(0, dtype=torch.uint8), *there]), "made": made}

    def state_forms(self) -> Mapping[str, Form]:
        """Of :meth:`state_tensors`: nothing, or one row for each view."""
        rows, columns = self._cells
        shapes = {
            "c2w": "views 4 4", "K": "views 3 3", "times": "views",
            "errors": f"views {rows} {columns}",
        }  # fmt: skip
        forms = {name: form(shape, optional=True) for name, shape in shapes.items()}
        forms["times"] = replace(forms["times"], finite=False)  # NaN: a view without a time
        forms["sizes"] = form("views 2", torch.int64, optional=True)
        if self.kept:
            forms["pixels"] = form("bytes", torch.uint8, optional=True)
            forms["made"] = form("views", torch.int64, optional=True)
        return forms | {"next": form("", torch.int64, optional=True)}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`: the same slots hold the same views. Where the budget has
        changed since, the newest that it holds, oldest first."""
        if not tensors:
            return
        self._check(tensors)
        cameras = [
            Camera(c2w=c2w, K=K, width=w, height=h, time=None if bool(time.isnan()) else time)
            for c2w, K, (w, h), time in zip(
                tensors["c2w"], tensors["K"], tensors["sizes"].tolist(), tensors["times"],
                strict=True,
            )
        ]  # fmt: skip
        count, following = len(cameras), int(tensors["next"])
        kept = list(range(count))
        if count > self.capacity or (count < self.capacity and following != count):
            kept = [*range(following, count), *range(following)][-self.capacity :]
            following = len(kept) % self.capacity
        self.cameras = [cameras[i] for i in kept]
        self.errors = tensors["errors"][kept]
        pictures = self._pictures_in(tensors, cameras)
        self._pictures, self._next = [pictures[i] for i in kept], following

    def _pictures_in(
        self, tensors: Mapping[str, Tensor], cameras: Sequence[Camera]
    ) -> list[_Picture | None]:
        """Of each camera, where it was kept. Raises ValueError for too few or too many pixels."""
        if not self.kept:
            return [None] * len(cameras)
        made = tensors["made"].tolist()
        areas = [4 * c.width * c.height * m for c, m in zip(cameras, made, strict=True)]
        if set(made) - {0, 1} or sum(areas) != len(tensors["pixels"]):
            raise ValueError(f"{len(tensors['pixels'])} bytes of pseudo-views, {sum(areas)} wanted")
        parts = tensors["pixels"].to(self.device).split(areas)
        return [
            _Picture(rgba=part.view(c.height, c.width, 4), depth=None) if m else None
            for part, c, m in zip(parts, cameras, made, strict=True)
        ]

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises ValueError for numbers that :meth:`state_tensors` cannot have given."""
        lacking = sorted(set(self.state_forms()) - set(tensors))
        if lacking:
            raise ValueError(f"pseudo-views lack {', '.join(lacking)}")
        strange = set(map(tuple, tensors["sizes"].tolist())) - self._sizes
        if strange:
            raise ValueError(f"pseudo-views of {strange} pixels: no training picture has that size")
        if not 0 <= int(tensors["next"]) <= len(tensors["sizes"]):
            raise ValueError(f"there is no pseudo-view {int(tensors['next'])} to come next")
        if bool((tensors["errors"] < 0).any()):
            raise ValueError("errors of pseudo-views are below 0")

    @torch.no_grad()
    def _picture(self, slot: int) -> _Picture:
        found = self._pictures[slot]
        if found is not None:
            return found
        render = self.teacher.render(
            self.cameras[slot].to(self.device), want=Want(depth=self.depth)
        )
        rgba = torch.cat([render.rgb, render.alpha[..., None]], dim=-1)
        depth = None
        if render.depth is not None:
            depth = (render.depth / self.unit).clamp(0.0, _LARGEST_HALF).half()
        found = _Picture(
            rgba=rgba.clamp(0, 1).mul(255.0).round().to(torch.uint8),
            depth=depth if self.depth else None,
        )
        self.processes.alike([m for m in (found.rgba, found.depth) if m is not None])
        self._pictures[slot] = found
        self.rendered += 1
        return found

    def _membership(
        self, first: Int[Tensor, " n"], length: int
    ) -> tuple[Float[Tensor, "n cells length"], Int[Tensor, " n"]]:
        """Which cell, counted from the first one under a crop, holds each of its rows (or
        columns); and which is that first one."""
        cells = (first[:, None] + torch.arange(length)) // self.cell
        local = cells - cells[:, :1]
        count = (length - 1) // self.cell + 2
        return (local[:, None, :] == torch.arange(count)[:, None]).float(), cells[:, 0]


def draw_cells(
    errors: Float[Tensor, "slots rows columns"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, " count"], Int[Tensor, "count 2"]]:
    """``count`` cells, each drawn in proportion to its error: slots, and (column, row) in them.

    At least one error is above 0. In two stages, so that a draw costs little among many cells.
    """
    slots = torch.multinomial(errors.sum(dim=(1, 2)), count, replacement=True, generator=generator)
    cells = torch.multinomial(errors[slots].flatten(1), 1, generator=generator)[:, 0]
    columns = errors.shape[2]
    return slots, torch.stack([cells % columns, cells // columns], dim=-1)


def _sides(length: int, cell: int) -> Float[Tensor, " cells"]:
    """Pixels along each cell of a picture; the last one may be cut off."""
    count = -(-length // cell)
    sides = torch.full((count,), float(cell))
    sides[-1] = length - (count - 1) * cell
    return sides
