import type { FieldShape } from "./field";

/** Between a ray and a slab's axis; below it the ray counts as parallel to the slab. */
export const MIN_COSINE = 0.2;
/** Beyond the range, in halves of it, over which coverage falls to 0. */
export const FADE = 0.1;
/** Slabs of one ray. */
export const MAX_SLABS = 3;

type V3 = readonly number[];

const dot = (a: V3, b: V3) => a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!;

/** How much each slab counts for a ray in this direction, of length 1; they sum to 1. */
export function slabWeights({ slabs, overlap }: FieldShape, direction: V3): number[] {
  const angles = slabs.map((s) =>
    Math.acos(Math.max(-1, Math.min(1, dot(s.rotation[2]!, direction)))),
  );
  const nearest = Math.min(...angles);
  let raw = angles.map((a) => {
    const t = Math.max(0, Math.min(1, 1 - (a - nearest) / overlap));
    return t * t * (3 - 2 * t);
  });
  if (raw.length > MAX_SLABS) {
    const next = [...raw].sort((a, b) => b - a)[MAX_SLABS]!;
    raw = raw.map((w) => Math.max(0, w - next));
    const only = angles.indexOf(nearest);
    if (!(raw.reduce((a, b) => a + b, 0) > 1e-6)) raw = angles.map((_, s) => (s === only ? 1 : 0));
  }
  const sum = raw.reduce((a, b) => a + b, 0);
  return raw.map((w) => w / sum);
}

/** A ray in slab `s`: coordinates 2 p, 2 p + 1 of each plane p, and how much it is inside. */
export function slabCoordinates(
  shape: FieldShape,
  s: number,
  origin: V3,
  direction: V3,
): { coordinates: number[]; inside: number } {
  const { rotation, viewpoint, disparities, low, high } = shape.slabs[s]!;
  const from = origin.map((v, a) => v - viewpoint[a]!);
  const o = rotation.map((row) => dot(row, from));
  const d = rotation.map((row) => dot(row, direction));
  const parallel = !(d[2]! > MIN_COSINE);
  const tangent = parallel ? [0, 0] : [d[0]! / d[2]!, d[1]! / d[2]!];
  let farthest = 0;
  const coordinates: number[] = [];
  for (const [p, disparity] of disparities.entries()) {
    for (let a = 0; a < 2; a++) {
      const q = disparity * o[a]! + (1 - disparity * o[2]!) * tangent[a]!;
      const c = ((q - low[p]![a]!) / (high[p]![a]! - low[p]![a]!)) * 2 - 1;
      farthest = Math.max(farthest, Math.abs(c));
      coordinates.push(c);
    }
  }
  const inside = parallel ? 0 : Math.max(0, Math.min(1, 1 - (farthest - 1) / FADE));
  return { coordinates, inside };
}
