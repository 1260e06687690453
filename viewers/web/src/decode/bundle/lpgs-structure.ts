import { coefficients } from "../splats";
import { damaged } from "./bytes";
import { carriedBytes, checkLimit, PRODUCTS } from "./limits";
import type { Lpgs, Manifest } from "./manifest.gen";

const MAX_FEATURES = 256;
/** Numbers of a Gaussian before its harmonics: scales 3, rotation 3, opacity, dc 3. */
export const BASE = 10;

export type Structure = Lpgs;

/** The manifest's entry `lpgs` once it fits the rest. */
export function checkedStructure(manifest: Manifest): Structure {
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
  const shapes = layerShapes(lpgs);
  if (Object.keys(shapes).length > 0 && lpgs.hidden < 1) {
    throw damaged("lpgs.hidden is 0, but there is a network");
  }
  const points = manifest.stages.reduce((sum, s) => sum + s.points, 0);
  checkLimit(PRODUCTS, products(shapes, points, count - points), carriedBytes(manifest));
  return lpgs;
}

/** Multiplications of the layers for so many parents and living children. */
function products(shapes: Record<string, [number, number]>, parents: number, children: number) {
  let sum = 0;
  for (const [name, [outputs, inputs]] of Object.entries(shapes)) {
    const own = name === "child_head" ? 0 : parents;
    const born = name === "parent_head" || name === "place" ? 0 : Math.max(0, children);
    sum += (own + born) * outputs * inputs;
  }
  return sum;
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
