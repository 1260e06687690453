import type { FieldPlane, FieldShape } from "../decode/field/field";
import { fours } from "./layout";

/** Texels in a row of the texture (or buffer) that holds all planes. */
export const ROW = 2048;

/** Where the planes lie: each begins with a row; its texels follow each other as in
 * the bundle: row by row, at each place those of all slabs. */
export interface PlanePlaces {
  /** First texel of each plane. */
  starts: number[];
  rows: number;
}

export function planePlaces(shape: FieldShape): PlanePlaces {
  let rows = 0;
  const starts = shape.feature_planes.map((plane) => {
    const start = rows * ROW;
    const texels = shape.slabs.length * plane.columns * plane.rows * fours(shape.features);
    rows += Math.ceil(texels / ROW);
    return start;
  });
  return { starts, rows };
}

/** A plane's values in whole texels, its last row filled up with zeros. */
export function paddedPlane(shape: FieldShape, { values }: FieldPlane): Float32Array {
  const F = shape.features;
  const width = 4 * fours(F);
  const items = values.length / F;
  const out = new Float32Array(Math.ceil((items * width) / (4 * ROW)) * 4 * ROW);
  if (width === F) out.set(values);
  else for (let i = 0; i < items; i++) out.set(values.subarray(i * F, (i + 1) * F), i * width);
  return out;
}
