import type { FieldShape } from "./field";

/** Between a ray and a slab's axis; below it the ray counts as parallel to the slab. */
export const MIN_COSINE = 0.2;
/** Beyond the range, in halves of it, over which coverage falls to 0. */
export const FADE = 0.1;
/** Slabs of one ray. */
export const MAX_SLABS = 3;
/** What obliqueness costs a ray, by its tangent, and what every ray pays. */
export const OBLIQUE_COST = 0.05;
export const LEAST_COST = 0.001;
/** A ray's cost is divided by how much of it is inside, or by this. */
export const LEAST_INSIDE = 1e-6;
/** Weights whose sum is not above this leave the cheapest slab alone. */
export const LEAST_WEIGHTS = 1e-6;

type V3 = readonly number[];

const dot = (a: V3, b: V3) => a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!;

/** A ray as one slab has it. */
export interface SlabRay {
  /** Coordinates 2 p, 2 p + 1 of each plane p. */
  coordinates: number[];
  /** How much it is inside: 1 to 0. */
  inside: number;
  cost: number;
  /** From the slab's viewpoint, along its axis. */
  originZ: number;
  /** Along the slab's axis; 1 where the ray is parallel to it. */
  directionZ: number;
}

/** A ray in slab `s`. */
export function slabRay(shape: FieldShape, s: number, origin: V3, direction: V3): SlabRay {
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
  const shift = Math.hypot(o[0]! - o[2]! * tangent[0]!, o[1]! - o[2]! * tangent[1]!);
  const parallax = shift * (disparities.at(-1)! - disparities[0]!);
  const askew = OBLIQUE_COST * Math.hypot(tangent[0]!, tangent[1]!);
  const cost = (parallax + askew + LEAST_COST) / Math.max(inside, LEAST_INSIDE);
  return { coordinates, inside, cost, originZ: o[2]!, directionZ: parallel ? 1 : d[2]! };
}

/** How much slabs count for a ray that costs so much in them; the weights sum to 1. */
export function slabWeights(costs: readonly number[], overlap: number): number[] {
  const cheapest = Math.min(...costs);
  let raw = costs.map((c) => {
    const t = Math.max(0, Math.min(1, 1 - (c - cheapest) / overlap));
    return t * t * (3 - 2 * t);
  });
  const sum = () => raw.reduce((a, b) => a + b, 0);
  if (raw.length > MAX_SLABS) {
    const next = [...raw].sort((a, b) => b - a)[MAX_SLABS]!;
    raw = raw.map((w) => Math.max(0, w - next));
    const only = costs.indexOf(cheapest);
    if (!(sum() > LEAST_WEIGHTS)) raw = costs.map((_, s) => (s === only ? 1 : 0));
  }
  const total = sum();
  return raw.map((w) => w / total);
}

/** The slabs that count for a ray, with their weights. */
export function slabsOf(
  shape: FieldShape,
  origin: V3,
  direction: V3,
): { slab: number; weight: number; ray: SlabRay }[] {
  const rays = shape.slabs.map((_, s) => slabRay(shape, s, origin, direction));
  const costs = rays.map((ray) => ray.cost);
  return slabWeights(costs, shape.overlap).flatMap((weight, slab) =>
    weight > 0 ? [{ slab, weight, ray: rays[slab]! }] : [],
  );
}
