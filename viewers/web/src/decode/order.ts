import type { Extent } from "./protocol";
import { CHUNK_SPLATS, rowRange, type SplatSource } from "./splats";

const BINS = 4096;
/** log2 of opacity times area, clamped to this range. */
const LOWEST = -40;
const HIGHEST = 24;

/** Opacity under which a splat says nothing of a scene; formats of 8 bits agree who is over it. */
const FAINT = 5.5 / 255;
const LEAST_SEEN = 0.1;

/** What sorting takes for a splat of the file, shown or not. */
export const ORDER_BYTES = 7;

export interface Order {
  /** From the most visible to the least. */
  rows: Uint32Array;
  /** Whether a row of the file is seen at all. */
  seen: Uint8Array;
}

/** Rows by opacity times squared mean size, in bins. */
export function byImportance(source: SplatSource): Order {
  const keys = new Uint16Array(source.count);
  const seen = new Uint8Array(source.count);
  const counts = new Uint32Array(BINS + 1);
  for (let first = 0; first < source.count; first += CHUNK_SPLATS) {
    const count = Math.min(CHUNK_SPLATS, source.count - first);
    const { opacities, scales } = source.read(rowRange(first, count), 0);
    for (let i = 0; i < count; i++) {
      const volume = scales[3 * i]! * scales[3 * i + 1]! * scales[3 * i + 2]!;
      const log = Math.log2(opacities[i]!) + (2 / 3) * Math.log2(volume);
      const t = (HIGHEST - Math.max(LOWEST, Math.min(HIGHEST, log || LOWEST))) / (HIGHEST - LOWEST);
      const key = Math.min(BINS - 1, Math.floor(t * BINS));
      keys[first + i] = key;
      if (opacities[i]! >= FAINT) seen[first + i] = 1;
      counts[key + 1]!++;
    }
  }
  for (let k = 0; k < BINS; k++) counts[k + 1]! += counts[k]!;
  const rows = new Uint32Array(source.count);
  for (let i = 0; i < source.count; i++) rows[counts[keys[i]!]!++] = i;
  return { rows, seen };
}

/** Rows that a first view is found from are about so many, or all: with so many quantisation moves
 * no share of them by more than some thousandths, whichever they are. */
const PLACES = 32768;

/** Rows that say where a scene is: of those that are seen, evenly from the most visible on. */
export function spreadRows({ rows, seen }: Order): Uint32Array {
  const visible = rows.filter((row) => seen[row]);
  const chosen = visible.length < LEAST_SEEN * rows.length ? rows : visible;
  const stride = Math.max(1, Math.floor(chosen.length / PLACES));
  return chosen.filter((_, i) => i % stride === 0);
}

/** About as many of [N, 3] positions. */
export function spreadPlaces(positions: Float32Array): Float32Array {
  const stride = Math.max(1, Math.floor(positions.length / 3 / PLACES));
  return positions.filter((_, i) => Math.floor(i / 3) % stride === 0);
}

/** Median centre and 90% radius of [N, 3] positions, from at most 20,000 of them. */
export function extentOf(positions: Float32Array): Extent {
  const count = positions.length / 3;
  const stride = Math.max(1, Math.floor(count / 20000));
  const columns: number[][] = [[], [], []];
  for (let i = 0; i < count; i += stride) {
    for (let a = 0; a < 3; a++) columns[a]!.push(positions[3 * i + a]!);
  }
  const middle = (values: number[], share: number) => {
    const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
    return sorted.length
      ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
      : 0;
  };
  const center = columns.map((c) => middle(c, 0.5)) as [number, number, number];
  const distances = columns[0]!.map((_, i) =>
    Math.hypot(...columns.map((c, a) => c[i]! - center[a]!)),
  );
  return { center, radius: middle(distances, 0.9) || 1 };
}
