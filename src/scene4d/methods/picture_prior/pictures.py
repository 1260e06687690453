"""Pictures that a prior is trained on: of captures, or prepared ones from a folder.

A file of prepared pictures, ``.safetensors`` or ``.npz``, holds arrays by kind: ``rgb``, ``depth``,
``normals``, ``xyz``, each [n, channels, height, width], bytes (0..255 means -1..1) or real numbers
of -1..1. Captions are the array of texts ``captions`` of an .npz, or JSON under ``captions`` of a
.safetensors file's metadata: one for each picture.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.scene import Scene
from scene4d.errors import DataError, UsageError
from scene4d.files import checked_file, printable
from scene4d.methods.picture_prior.method import DenoisingOptions
from scene4d.priors.prior import CHANNELS, Kind
from scene4d.priors.tensor_files import read_tensors
from scene4d.priors.words import LearnedWords
from scene4d.training.prior_check import halves_of
from scene4d.training.priors import picture_of

SUFFIXES = (".npz", ".safetensors")
_CAPTIONS = "captions"
_MOST_BYTES = 4 << 30
_TYPES = (torch.uint8, torch.float16, torch.float32)
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Pictures of one size."""

    pictures: Mapping[Kind, Tensor]
    """[n, channels, height, width] by kind, bytes or real numbers, see the module."""
    captions: Sequence[str]
    known: Mapping[Kind, Bool[Tensor, "n 1 height width"]] | None = None
    """What says something; None: all."""
    of_capture: bool = False

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height."""
        height, width = next(iter(self.pictures.values())).shape[-2:]
        return width, height


@dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """A batch."""

    pictures: Float[Tensor, "batch channels height width"]
    """-1..1, all kinds in order."""
    known: Float[Tensor, "batch channels height width"]
    """1 where a value says something, else 0."""
    captions: Sequence[str]


class Pictures:
    """All that is learned from."""

    def __init__(
        self, channels: tuple[Kind, ...], groups: Sequence[Group], longest_side: int
    ) -> None:
        self.channels, self.groups, self.longest_side = channels, groups, longest_side
        self._ends = torch.tensor([len(group) for group in groups]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def vocabulary(self) -> tuple[str, ...]:
        """All words of the captions."""
        captions = {c for group in self.groups for c in group.captions if c}
        return tuple(LearnedWords.of(sorted(captions), 1).vocabulary) if captions else ()

    def whole(self, crop_size: int) -> tuple[int, int] | None:
        """Width and height where all are prepared, of one size, and never cropped."""
        sides = {group.sides for group in self.groups}
        if len(sides) > 1 or any(group.of_capture for group in self.groups):
            return None
        (found,) = sides
        return found if max(found) <= crop_size else None

    def crops(
        self, count: int, size: int, generator: torch.Generator, *, mirrored: float = 0.0
    ) -> Crops:
        """``count`` crops of pictures drawn evenly, of ``size`` pixels or as many as the smallest
        picture has; takes the same random numbers for each."""
        width, height = (min(size, *(g.sides[axis] for g in self.groups)) for axis in (0, 1))
        u = torch.rand(count, 4, generator=generator, dtype=torch.float64)
        rows = [self._crop(row, width, height, mirrored) for row in u.tolist()]
        pictures, known, captions = zip(*rows, strict=True)
        return Crops(pictures=torch.stack(pictures), known=torch.stack(known), captions=captions)

    def _crop(
        self, u: Sequence[float], width: int, height: int, mirrored: float
    ) -> tuple[Tensor, Tensor, str]:
        number = min(int(u[0] * len(self)), len(self) - 1)
        place = int((self._ends <= number).sum())
        group = self.groups[place]
        row = number - int(self._ends[place]) + len(group)
        x, y = (int(v * (full - own + 1)) for v, full, own in
                zip(u[1:3], group.sides, (width, height), strict=True))  # fmt: skip
        parts, known = [], []
        for kind in self.channels:
            part = group.pictures[kind][row, :, y : y + height, x : x + width]
            part = part.float() / 127.5 - 1 if part.dtype == torch.uint8 else part.float()
            parts.append(part)
            if group.known is None:
                known.append(torch.ones_like(part))
            else:
                there = group.known[kind][row, :, y : y + height, x : x + width]
                known.append(there.to(part).expand_as(part))
        both = torch.cat(parts), torch.cat(known)
        if group.of_capture and u[3] < mirrored:
            both = both[0].flip(2), both[1].flip(2)
        return *both, group.captions[row]


def read_pictures(options: DenoisingOptions) -> Pictures:
    """The pictures that the options name. Raises :class:`UsageError` where they name none, and
    :class:`DataError` for what cannot be read."""
    groups = [] if options.pictures is None else _prepared(options.pictures)
    groups += _of_captures(options)
    if not groups:
        raise UsageError("there is nothing to learn from", fix="name captures with "
                         "--denoising.captures, or a folder with --denoising.pictures")  # fmt: skip
    kinds = {tuple(group.pictures) for group in groups}
    if len(kinds) > 1:
        told = " and ".join("+".join(k) for k in sorted(kinds))
        raise DataError(f"pictures of {told} do not go together",
                        where=options.pictures or options.captures[0],
                        fix="train on one kind at a time")  # fmt: skip
    longest = max(max(group.sides) for group in groups)
    return Pictures(kinds.pop(), groups, longest)


def _of_captures(options: DenoisingOptions) -> list[Group]:
    scenes, kinds = scenes_of(options.captures)
    return [group for scene in scenes for group in _of_capture(scene, kinds, options)]


def scenes_of(captures: Sequence[Path]) -> tuple[list[Scene], tuple[Kind, ...]]:
    """Captures in their working frames, and what is learned of them: colours, and depth where every
    training picture has it. Raises :class:`DataError`."""
    scenes = [in_working_frame(read_scene(path)) for path in captures]
    lacking = [
        s for s in scenes if not all(s.frames[i].has_measured_depth for i in s.train_indices)
    ]
    if lacking and len(lacking) < len(scenes):
        _log.warning("note: %s has pictures without depth: depth is learned of none",
                     lacking[0].root)  # fmt: skip
    return scenes, ("rgb",) if lacking else ("rgb", "depth")


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduced:
    """Training pictures of a capture, divided by whole numbers to about one length."""

    scene: Scene
    kinds: tuple[Kind, ...]
    images: ImageCache
    longest_side: int

    @classmethod
    def of(
        cls, scene: Scene, kinds: tuple[Kind, ...], chosen: Sequence[int], longest_side: int
    ) -> Reduced:
        """Of the frames ``chosen``."""
        images = ImageCache(scene, indices=list(chosen))
        return cls(scene=scene, kinds=kinds, images=images, longest_side=longest_side)

    def maps(self, index: int) -> tuple[dict[Kind, Tensor], dict[Kind, Tensor]]:
        """A frame, [channels, height, width] by kind, and [1, height, width] where it says
        something."""
        camera, kinds = self.images.camera(index), self.kinds
        factor = max(1, round(max(camera.width, camera.height) / self.longest_side))
        view = self.images.view(index, factor)
        maps = dict(zip(kinds, picture_of(view, self.scene, kinds).split(
            [CHANNELS[kind] for kind in kinds]), strict=True))  # fmt: skip
        seen = torch.ones(view.rgb.shape[:2], dtype=torch.bool) if view.mask is None else view.mask
        known = {kind: seen[None] for kind in kinds}
        if view.depth is not None and "depth" in kinds:
            known["depth"] = (seen & (view.depth > 0))[None]
        return maps, known


def _of_capture(scene: Scene, kinds: tuple[Kind, ...], options: DenoisingOptions) -> list[Group]:
    """The training pictures, reduced; a group for each size."""
    chosen = list(scene.train_indices)
    if options.near_half:
        near = set(halves_of(scene).memory)
        chosen = [i for i in chosen if i in near]
    reduced = Reduced.of(scene, kinds, chosen, options.longest_side)
    found: dict[tuple[int, int], list[tuple[dict[Kind, Tensor], dict[Kind, Tensor]]]] = {}
    for index in chosen:
        maps, known = reduced.maps(index)
        height, width = known["rgb"].shape[-2:]
        found.setdefault((height, width), []).append((maps, known))
    return [
        Group(
            pictures={k: torch.stack([maps[k] for maps, _ in rows]) for k in kinds},
            known={k: torch.stack([known[k] for _, known in rows]) for k in kinds},
            captions=[""] * len(rows), of_capture=True,
        )
        for rows in found.values()
    ]  # fmt: skip


def _prepared(folder: Path) -> list[Group]:
    """A group for each file, in the order of their names."""
    if not folder.is_dir():
        raise DataError("no folder of pictures is here", where=printable(folder))
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if not files:
        raise DataError(f"holds no file that ends in {' or '.join(SUFFIXES)}", where=folder)
    return [_read_group(file) for file in files]


def _read_group(file: Path) -> Group:
    read = _read_npz if file.suffix == ".npz" else _read_safetensors
    tensors, captions = read(file)
    pictures: dict[Kind, Tensor] = {kind: tensors[kind] for kind in CHANNELS if kind in tensors}
    told = {name: f"{t.dtype} {list(t.shape)}".removeprefix("torch.")
            for name, t in tensors.items()}  # fmt: skip
    strange = sorted(set(tensors) - set(CHANNELS))
    if not pictures or strange:
        raise DataError(f"holds {told}, expected arrays named {', '.join(CHANNELS)}", where=file)
    places = {(len(t), *t.shape[2:]) for t in pictures.values() if t.ndim == 4 and t.numel()}
    wrong = [k for k, t in pictures.items() if t.ndim != 4 or t.shape[1] != CHANNELS[k]
             or t.dtype not in _TYPES or not t.numel()]  # fmt: skip
    if wrong or len(places) != 1:
        raise DataError(f"holds {told}, expected n x channels x height x width of one size, bytes "
                        "or real numbers", where=file)  # fmt: skip
    for kind, t in pictures.items():
        if t.is_floating_point() and not bool(t.abs().amax() <= 1 + 1e-3):  # NaN is not
            raise DataError(f"has values of {kind} outside of -1..1", where=file)
    count = len(next(iter(pictures.values())))
    if captions is None:
        captions = [""] * count
    if len(captions) != count:
        raise DataError(f"has {count} pictures and {len(captions)} captions", where=file)
    return Group(pictures=pictures, captions=captions)


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    tensors, captions = read_tensors(
        file, _CAPTIONS, what="file of pictures", most_bytes=_MOST_BYTES
    )
    good = captions is None or isinstance(captions, list)
    if not good or not all(isinstance(c, str) for c in captions or []):
        raise DataError("has captions that are no list of texts", where=file)
    return tensors, captions


def _read_npz(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    checked_file(file, most_bytes=_MOST_BYTES)
    try:
        with zipfile.ZipFile(file) as archive:
            declared = sum(member.file_size for member in archive.infolist())
        if declared > _MOST_BYTES:
            raise DataError(f"declares {declared / 1e9:,.0f} GB of pictures", where=file)
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
        texts = held.pop(_CAPTIONS, None)
        tensors = {name: torch.from_numpy(value) for name, value in held.items()}
    except DataError:
        raise
    except Exception as error:  # the parsers raise what they like for damaged files
        raise DataError(f"is damaged ({printable(error)})", where=file,
                        fix="write it again, without pickled objects") from error  # fmt: skip
    if texts is not None and (texts.ndim != 1 or texts.dtype.kind != "U"):
        raise DataError("has captions that are no list of texts", where=file)
    return tensors, None if texts is None else texts.tolist()


def write_pictures(
    pictures: Mapping[Kind, Tensor], file: Path, captions: Sequence[str] | None = None
) -> None:
    """Prepared pictures as a .safetensors file."""
    from safetensors.torch import save_file

    told = None if captions is None else {_CAPTIONS: json.dumps(list(captions))}
    save_file({k: v.contiguous() for k, v in pictures.items()}, file, metadata=told)
