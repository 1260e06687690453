import type { Extent } from "./protocol";
import { CHUNK_SPLATS, rowRange, type SplatSource } from "./splats";

const BINS = 4096;
/** log2 of opacity times area, clamped to this range. */
const LOWEST = -40;
const HIGHEST = 24;

/** What sorting takes for a splat of the file, shown or not. */
export const ORDER_BYTES = 6;

/** Rows from the most visible to the least: opacity times squared mean size, in bins. */
export function byImportance(source: SplatSource): Uint32Array {
  const keys = new Uint16Array(source.count);
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
      counts[key + 1]!++;
    }
  }
  for (let k = 0; k < BINS; k++) counts[k + 1]! += counts[k]!;
  const order = new Uint32Array(source.count);
  for (let i = 0; i < source.count; i++) order[counts[keys[i]!]!++] = i;
  return order;
}

/** Rows that say where a scene is: from all but the faintest tenth of an order, evenly. */
export function spreadRows(order: Uint32Array): Uint32Array {
  const visible = Math.ceil(0.9 * order.length);
  const stride = Math.max(1, Math.ceil(visible / 16384));
  return order.subarray(0, visible).filter((_, i) => i % stride === 0);
}

/** Places that a first view is found from; of about as many, or all. */
const SAMPLE = 4096;

/** Every so manieth of [N, 3] positions. */
function sampleOf(positions: Float32Array): Float32Array {
  const count = positions.length / 3;
  const stride = Math.max(1, Math.floor(count / SAMPLE));
  const sample = new Float32Array(3 * Math.ceil(count / stride));
  for (let i = 0, k = 0; i < count; i += stride, k += 3) {
    sample.set(positions.subarray(3 * i, 3 * i + 3), k);
  }
  return sample;
}

/** Median centre and 90% radius of [N, 3] positions, from at most 20,000 of them; and a sample. */
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
  return { center, radius: middle(distances, 0.9) || 1, sample: sampleOf(positions) };
}
