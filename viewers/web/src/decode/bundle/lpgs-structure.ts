import { coefficients } from "../splats";
import { damaged } from "./bytes";
import type { Lpgs, Manifest } from "./manifest.gen";

const MAX_FEATURES = 256;
const MAX_POINTS_PER_BYTE = 4;
const FREE_POINTS = 65536;
/** Gaussians times weights that a byte may ask for, so that decoding ends soon. */
const MAX_WORK_PER_BYTE = 2 ** 18;
const FREE_WORK = 2 ** 34;
/** Numbers of a Gaussian before its harmonics: scales 3, rotation 3, opacity, dc 3. */
export const BASE = 10;

export type Structure = Lpgs;

/** The manifest's entry `lpgs` once it fits the rest, in a bundle of `size` bytes. */
export function checkedStructure(manifest: Manifest, size: number): Structure {
  const { lpgs, positions, count } = manifest;
  if (!lpgs) throw damaged("the manifest has no entry lpgs");
  if (lpgs.sh_degree !== manifest.sh_degree) {
    throw damaged("lpgs.sh_degree is not the manifest's sh_degree");
  }
  if (!positions) throw damaged("a bundle of parents has no positions");
  if (lpgs.position_bits !== positions.bits) {
    throw damaged("lpgs.position_bits are not the bits of the positions");
  }
  if (lpgs.grid && lpgs.grid.rows.length !== lpgs.grid.resolutions.length) {
    throw damaged("lpgs.grid needs as many rows as resolutions");
  }
  if (gridFeatures(lpgs) > MAX_FEATURES) {
    throw damaged(`lpgs.grid has more than ${MAX_FEATURES} features`);
  }
  const shapes = Object.values(layerShapes(lpgs));
  if (shapes.length > 0 && lpgs.hidden < 1) {
    throw damaged("lpgs.hidden is 0, but there is a network");
  }
  const work = count * shapes.reduce((sum, [outputs, inputs]) => sum + outputs * inputs, 0);
  if (
    count > MAX_POINTS_PER_BYTE * size + FREE_POINTS ||
    work > MAX_WORK_PER_BYTE * size + FREE_WORK
  ) {
    throw damaged(`declares ${count} Gaussians and ${work} products in ${size} bytes`);
  }
  return lpgs;
}

/** Features that the grid has for one place. */
export function gridFeatures({ grid }: Structure): number {
  return grid ? grid.rows.length * grid.features : 0;
}

/** Outputs and inputs of the network's layers by name; none without a network. */
export function layerShapes(structure: Structure): Record<string, [number, number]> {
  const { grid, num_children: K, hidden: H } = structure;
  if (!grid && K === 0) return {};
  const outputs = BASE + 3 * (coefficients(structure.sh_degree) - 1);
  const shapes: Record<string, [number, number]> = {
    token: [H, BASE + gridFeatures(structure)],
    inner: [H, H],
    parent_head: [outputs, H],
  };
  if (K > 0) {
    shapes.child_head = [outputs, H];
    shapes.place = [3 * K, H];
    if (structure.attention) shapes.attend = [3 * H, H];
  }
  return shapes;
}
