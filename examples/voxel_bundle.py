"""A kind of bundle from outside the package: the fog of voxel_grid.py, with codes of one byte each.

An entry point brings it in, and `scene4d export RUN bundle`, `validate`, `info` and `open_scene`
know it; the player does not, which draws the kinds that come with it.
docs/add-a-representation.md.

    [project.entry-points."scene4d.bundle_kinds"]
    voxels = "voxel_bundle:VoxelKind"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, dequantise, uniform
from scene4d.bundle.coding import Coded, decode_scene, encode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind
from scene4d.bundle.quantise import rounded
from scene4d.errors import DataError

LEVELS = 255


class VoxelKind(BundleKind):
    """Density and colours of a regular grid; the manifest's entry has its sides and its box."""

    name = "voxels"

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> np.ndarray:
        """[4, X, Y, Z] float32."""
        decoded = decode_scene(bundle, stages=stages)
        values = dequantise("voxels", decoded.arrays)
        return np.ascontiguousarray(values.T).reshape(4, *bundle.manifest[self.name]["sides"])

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """The grid's sides."""
        return "fog on a grid of {} x {} x {}".format(*manifest[self.name]["sides"])

    def faults(self, manifest: Mapping[str, Any]) -> list[str]:
        """A grid whose sides are not those of its array."""
        entry = manifest.get(self.name)
        arrays = {array["name"]: array for array in manifest["arrays"]}
        if not isinstance(entry, dict) or set(arrays) != {"voxels"}:
            return ["the manifest has no entry 'voxels', or other arrays than that"]
        sides = entry.get("sides")
        if not isinstance(sides, list) or len(sides) != 3 or not all(type(n) is int for n in sides):
            return ["voxels.sides is not a list of three whole numbers"]
        items = arrays["voxels"].get("items"), arrays["voxels"]["components"]
        if min(sides) < 2 or items != (sides[0] * sides[1] * sides[2], 4):
            return [f"voxels.sides is {sides}, and the array has {items[0]} x {items[1]} codes"]
        return []

    def takes(self, representation: Any) -> bool:
        """Whether it is such a grid."""
        from voxel_grid import VoxelGrid

        return isinstance(representation, VoxelGrid)

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """Each channel in LEVELS steps of its own range, ``factor`` times coarser."""
        values = representation.values.detach().cpu().numpy().astype(np.float64)
        columns = values.reshape(4, -1).T
        steps = [rounded(float(2 * np.abs(c).max() / LEVELS * factor) or 1.0) for c in columns.T]
        codes = np.rint(columns / np.array(steps)).astype(np.int32)
        coded = encode_scene(
            None,
            [CodedArray(name="voxels", codes=codes, quantiser=uniform(steps, 4), stage=0)],
        )
        box = [side.tolist() for side in (representation.low, representation.high)]
        entry = {"sides": list(values.shape[1:]), "box": box}
        return replace(
            coded, manifest={"count": 0, "sh_degree": 0, self.name: entry, **coded.manifest}
        )

    def open(self, bundle: Bundle) -> Any:
        """A grid that renders."""
        import torch
        from voxel_grid import VoxelGrid

        try:
            low, high = torch.tensor(bundle.manifest[self.name]["box"], dtype=torch.float32)
        except (TypeError, ValueError, KeyError) as error:
            raise DataError("voxels.box is not two corners", where=bundle.path) from error
        return VoxelGrid(torch.from_numpy(self.decode(bundle)), low, high)

    def content_box(self, representation: Any) -> tuple[np.ndarray, np.ndarray]:
        """The grid's."""
        return representation.low.cpu().numpy(), representation.high.cpu().numpy()

    def stored_line(self, representation: Any) -> str:
        """The grid's sides."""
        return "fog on a grid of {} x {} x {}".format(*representation.values.shape[1:])
