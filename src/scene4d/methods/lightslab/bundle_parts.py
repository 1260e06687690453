"""Light slabs as the integers of a bundle, and a bundle as light slabs that render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.bundle.container import open_bundle
from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.errors import DataError, UsageError
from scene4d.methods.lightslab.block_transform import MOST_STEP, frequency_codes
from scene4d.methods.lightslab.bundle_content import (
    WEIGHT_LEVELS,
    LightSlabArrays,
    LightSlabParts,
    decode_light_slab,
    layer_shapes,
)
from scene4d.methods.lightslab.bundle_mpi import MpiArrays, MpiParts
from scene4d.methods.lightslab.decoder import DecoderShape
from scene4d.methods.lightslab.light_slabs import (
    OPAQUE,
    LightSlabs,
    LightSlabsSettings,
)
from scene4d.methods.lightslab.mpi import MultiplaneImages
from scene4d.methods.lightslab.planes import FeaturePlanesShape, plane_codes
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.rendering.fields.plane_lookup import FeaturePlanes, Plane

_ALPHA = slice(12, 16)
"""Outputs of the last layer that become alpha: channel 3 of 2 x 2 pixels."""


@dataclass(frozen=True, kw_only=True)
class StoredPlanes(FeaturePlanesShape):
    """Planes as a bundle lists them, which need not be levels of pairs."""

    stored: tuple[Plane, ...] = ()

    def feature_planes(self) -> FeaturePlanes:
        """In the order of the bundle."""
        return FeaturePlanes(planes=self.stored, features=self.features, slabs=self.slabs)

    def plain(self) -> dict[str, Any]:
        """Not for checkpoints: planes of a bundle are kept in the bundle."""
        raise UsageError("planes that were read from a bundle cannot be saved as a checkpoint")


@torch.no_grad()
def light_slab_parts(
    scene: LightSlabs, *, weight_levels: int = WEIGHT_LEVELS, factor: float = 1.0
) -> LightSlabParts:
    """The scene's integers: planes at the bits they were trained for, one stage for each level.

    ``factor`` coarsens all steps. Raises :class:`UsageError` for a scene that was never trained.
    """
    if float(scene.focal) <= 0:
        raise UsageError("these light slabs were not trained, so that no scale is known")
    codes, steps = [], []
    for index in range(len(scene.feature_planes.planes)):
        grid = scene.feature_planes.grid(scene.table, index)
        step = plane_codes(grid, scene.settings.bits)[1] * factor
        codes.append((grid / step).round().int().cpu().numpy())
        steps.append(step[:, 0, 0].cpu().numpy())
    structure, mpi = structure_of(scene), mpi_parts(scene, factor=factor)
    if mpi is not None:
        structure["mpi"]["steps"] = mpi.steps.tolist()
    return LightSlabParts(
        structure=structure,
        codes=codes,
        steps=steps,
        weights=weights_of(scene),
        weight_levels=max(3, round((weight_levels - 1) / factor) + 1),
        mpi=mpi,
    )


@torch.no_grad()
def mpi_parts(scene: LightSlabs, *, factor: float = 1.0) -> MpiParts | None:
    """The MPIs' integers at the steps they were trained for, ``factor`` times coarser."""
    mpi = scene.mpi
    if mpi is None:
        return None
    steps = _mpi_steps(scene, factor)
    texels, levels = mpi.texels.cpu().numpy(), mpi.levels.cpu().numpy()
    return MpiParts(
        stored=mpi.stored.cpu().numpy(),
        levels=levels,
        codes=frequency_codes(texels, levels, steps),
        steps=steps,
    )


def _mpi_steps(scene: LightSlabs, factor: float = 1.0) -> np.ndarray:
    """[4, frequencies] integers."""
    steps = np.array(scene.settings.mpi_steps, dtype=np.float64)
    return np.clip(np.rint(steps * factor), 1, MOST_STEP).astype(np.int64)


def structure_of(scene: LightSlabs) -> dict[str, Any]:
    """The manifest's entry ``lightslab``."""
    slabs, shape = scene.slabs, scene.decoder.shape
    frames = [
        {
            "rotation": _numbers(slabs.rotations[i]),
            "viewpoint": _numbers(slabs.viewpoints[i]),
            "disparities": _numbers(slabs.disparities[i]),
            "low": _numbers(slabs.low[i]),
            "high": _numbers(slabs.high[i]),
        }
        for i in range(slabs.num_slabs)
    ]
    planes, mpi = scene.feature_planes.planes, {}
    if scene.mpi is not None:
        mpi["mpi"] = {
            "columns": scene.mpi.columns,
            "rows": scene.mpi.rows,
            "blocks": scene.mpi.num_blocks,
            "steps": _mpi_steps(scene).tolist(),
        }
    return {
        "slabs": frames,
        "overlap": _number(slabs.overlap),
        "features": scene.feature_planes.features,
        "feature_planes": [
            {"axes": list(p.axes), "columns": p.columns, "rows": p.rows, "stage": stage}
            for p, stage in zip(planes, _stages(planes), strict=True)
        ],
        "decoder": {
            "samples": shape.samples,
            "encoded": shape.encoded,
            "width": shape.width,
            "blocks": shape.blocks,
            "channels": list(shape.channels),
        },
        "content": {
            "centre": _numbers(scene.content_centre),
            "radius": _number(scene.settings.content_radius),
        },
        "focal": _number(float(scene.focal)),
        **mpi,
    }


def _stages(planes: tuple[Plane, ...]) -> list[int]:
    """A stage for each level: a pair of axes that comes again begins the next."""
    stages, level = [], 0
    seen: set[tuple[int, int]] = set()
    for plane in planes:
        if plane.axes in seen:
            level, seen = level + 1, set()
        seen.add(plane.axes)
        stages.append(level)
    return stages


def weights_of(scene: LightSlabs) -> dict[str, np.ndarray]:
    """Layers by their names in a bundle; where training starts opaque, that is in the bias."""
    found = {}
    for name, layer in _layers(scene):
        for part in ("weight", "bias"):
            found[f"{name}.{part}"] = getattr(layer, part).detach().cpu().numpy()
    if scene.settings.opaque:
        last = f"sharpen_{len(scene.decoder.sharpen) - 1}.bias"
        found[last] = found[last].copy()
        found[last][_ALPHA] += np.float32(OPAQUE)
    return found


def read_light_slabs(path: Path, *, stages: int | None = None) -> LightSlabs:
    """The light field of a bundle (file or folder), in bundle coordinates; of its first
    ``stages``. Raises :class:`DataError`."""
    return light_slabs_of(decode_light_slab(open_bundle(path), stages=stages))


@torch.no_grad()
def light_slabs_of(arrays: LightSlabArrays) -> LightSlabs:
    """A representation that renders what a bundle holds."""
    structure = arrays.structure
    stored = tuple(
        Plane(axes=tuple(p["axes"]), columns=p["columns"], rows=p["rows"])
        for p in structure["feature_planes"]
    )
    planes = StoredPlanes(
        slabs=len(structure["slabs"]), features=structure["features"], stored=stored
    )
    decoder = DecoderShape.from_plain(
        {"inputs": planes.feature_planes().width, **structure["decoder"]}
    )
    settings = LightSlabsSettings(
        content_radius=structure["content"]["radius"], opaque=False, bits=arrays.bits
    )
    if "mpi" in structure:
        settings = replace(settings, mpi_steps=structure["mpi"]["steps"])
    scene = LightSlabs(
        slabs=_slabs(structure),
        planes=planes,
        decoder=decoder,
        settings=settings,
        mpi=_mpi(arrays.mpi),
        content_centre=torch.tensor(structure["content"]["centre"], dtype=torch.float32),
    )
    scene.focal.fill_(structure["focal"])
    width = structure["features"]
    texels = [torch.from_numpy(p.copy()).reshape(-1, width) for p in arrays.planes]
    scene.table.copy_(torch.cat(texels))
    for name, layer in _layers(scene):
        weight, bias = arrays.layers[name]
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    if not all(bool(torch.isfinite(p).all()) for p in scene.parameters()):
        raise DataError("a value of the light field is not a finite number")
    return scene.eval()


def _mpi(mpi: MpiArrays | None) -> MultiplaneImages | None:
    if mpi is None:
        return None
    return MultiplaneImages(
        stored=torch.from_numpy(mpi.stored.copy()),
        levels=torch.from_numpy(mpi.levels),
        texels=torch.from_numpy(mpi.texels),
    )


def _layers(scene: LightSlabs) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    """The decoder's layers, by their names in a bundle."""
    found = [m for m in scene.decoder.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return list(zip(layer_shapes(structure_of(scene)), found, strict=True))


def _slabs(structure: Mapping[str, Any]) -> Slabs:
    def column(name: str) -> Tensor:
        return torch.tensor([slab[name] for slab in structure["slabs"]], dtype=torch.float32)

    return Slabs(
        rotations=column("rotation"),
        viewpoints=column("viewpoint"),
        disparities=column("disparities"),
        low=column("low"),
        high=column("high"),
        overlap=structure["overlap"],
    )


def _number(value: float) -> float:
    """The shortest decimal of the value as float32."""
    return float(np.format_float_positional(np.float32(value), unique=True))


def _numbers(tensor: Tensor) -> Any:
    """Nested lists of the shortest decimals."""
    array = tensor.detach().cpu().numpy().astype(np.float32)
    return [_number(float(v)) if np.ndim(v) == 0 else _numbers(torch.from_numpy(v)) for v in array]


@torch.no_grad()
def decoded_maps(scene: LightSlabs, camera: Camera) -> dict[str, Float[Tensor, "height width"]]:
    """SPEC.md's maps at one camera of the trained scale: ``r g b a`` after their sigmoids, ``z``
    as it is, and ``coverage``, which is in none of them.

    With MPIs: ``r g b a`` as they are shown on black, ``coverage``, and of the MPIs alone
    their alpha ``seen`` and the ``distance`` along the ray, 0 where nothing is seen.
    """
    batch = replace(camera, c2w=camera.c2w[None], K=camera.K[None])
    raw, coverage = scene._decoded(batch)  # what render() makes its picture of
    if scene.mpi is None:
        maps = dict(zip("rgba", torch.sigmoid(raw[0, :4]), strict=True))
        return {**maps, "z": raw[0, 4], "coverage": coverage[0]}
    shown, alpha, coverage = (m[0] for m in scene._shown(batch, depth=False))
    seen, _, depth = scene._on_mpi(batch)
    rays = camera_rays(camera)
    distance = depth[0] / (rays.directions @ -camera.c2w[:3, 2])
    maps = dict(zip("rgba", (*shown, alpha[0]), strict=True))
    return {**maps, "coverage": coverage[0], "seen": seen[0, 3], "distance": distance}
