import { isThere } from "../camera/clock";
import { fromHalf, type PackedSplats } from "./pack";
import type { TimeSpan } from "./protocol";

/** What picking needs of a piece; 26 bytes a splat. */
export interface Pickable {
  count: number;
  transformA: Uint32Array;
  transformB: Uint16Array;
  opacity: Uint16Array;
  /** When it is there; null: always. */
  span: TimeSpan | null;
}

export function pickable(packed: PackedSplats, span: TimeSpan | null = null): Pickable {
  const opacity = new Uint16Array(packed.count);
  for (let i = 0; i < packed.count; i++) opacity[i] = packed.color[4 * i + 3]!;
  return {
    count: packed.count,
    transformA: packed.transformA.slice(),
    transformB: packed.transformB.slice(),
    opacity,
    span,
  };
}

/** Standard deviations from the ray beyond which a splat is not met. */
const REACH = 3.4;
const FAINTEST = 1 / 255;
/** A pixel with less coverage than this has nothing to focus on. */
const LEAST_COVERAGE = 0.2;

type V3 = readonly [number, number, number];

/**
 * Distance along the ray at which half of its pixel's opacity is reached, of what is there at a
 * time in seconds; null in the void.
 *
 * Each Gaussian is met where it is densest on the ray, with its opacity times exp(-d^2 / 2).
 */
export function pickAlong(
  pieces: readonly Pickable[],
  origin: V3,
  direction: V3,
  time = 0,
): number | null {
  const norm = Math.hypot(...direction);
  const d = direction.map((v) => v / norm) as [number, number, number];
  const hits: [number, number][] = [];
  for (const piece of pieces) if (isThere(piece.span, time)) meet(piece, origin, d, hits);
  hits.sort((a, b) => a[0] - b[0]);
  const total = 1 - hits.reduce((left, [, alpha]) => left * (1 - alpha), 1);
  if (total < LEAST_COVERAGE) return null;
  let left = 1;
  for (const [distance, alpha] of hits) {
    left *= 1 - alpha;
    if (1 - left >= total / 2) return distance;
  }
  return null;
}

function meet(piece: Pickable, o: V3, d: V3, hits: [number, number][]): void {
  const positions = new Float32Array(piece.transformA.buffer, piece.transformA.byteOffset);
  for (let i = 0; i < piece.count; i++) {
    const px = positions[4 * i]! - o[0];
    const py = positions[4 * i + 1]! - o[1];
    const pz = positions[4 * i + 2]! - o[2];
    const along = px * d[0] + py * d[1] + pz * d[2];
    if (along <= 0) continue;
    const sx = fromHalf(piece.transformB[4 * i]!);
    const sy = fromHalf(piece.transformB[4 * i + 1]!);
    const sz = fromHalf(piece.transformB[4 * i + 2]!);
    const reach = REACH * Math.max(sx, sy, sz);
    if (px * px + py * py + pz * pz - along * along > reach * reach) continue;
    const word = piece.transformA[4 * i + 3]!;
    const qx = fromHalf(word & 0xffff);
    const qy = fromHalf(word >>> 16);
    const qz = fromHalf(piece.transformB[4 * i + 3]!);
    const qw = Math.sqrt(Math.max(0, 1 - qx * qx - qy * qy - qz * qz));
    const p = unrotate(qw, qx, qy, qz, px, py, pz);
    const e = unrotate(qw, qx, qy, qz, d[0], d[1], d[2]);
    const inverse = [1 / Math.max(sx, 1e-7), 1 / Math.max(sy, 1e-7), 1 / Math.max(sz, 1e-7)];
    let pp = 0;
    let pe = 0;
    let ee = 0;
    for (let a = 0; a < 3; a++) {
      const u = p[a]! * inverse[a]!;
      const v = e[a]! * inverse[a]!;
      pp += u * u;
      pe += u * v;
      ee += v * v;
    }
    const distance = pe / ee;
    const alpha = fromHalf(piece.opacity[i]!) * Math.exp(-0.5 * Math.max(0, pp - (pe * pe) / ee));
    if (distance > 0 && alpha >= FAINTEST) hits.push([distance, Math.min(0.999, alpha)]);
  }
}

/** The vector in the splat's own axes. */
function unrotate(
  w: number,
  x: number,
  y: number,
  z: number,
  a: number,
  b: number,
  c: number,
): [number, number, number] {
  const tx = 2 * (c * y - b * z);
  const ty = 2 * (a * z - c * x);
  const tz = 2 * (b * x - a * y);
  return [a - w * tx + y * tz - z * ty, b - w * ty + z * tx - x * tz, c - w * tz + x * ty - y * tx];
}
