import { BLOCK } from "../field/mpi";
import { damaged } from "./bytes";

/** Alpha, luma, and two differences of colour; of texels red, green, blue and alpha. */
export const CHANNELS = 4;
const TEXELS = BLOCK * BLOCK;
const MOST_LEVEL = 7;
const MOST_FREQUENCY = 2 ** 20;
/** Blocks that are decoded together, so that columns are read some items at a time. */
const BATCH = 64;
/** What the transform makes of 1 in one direction, where it is constant, and of 1/255 in both. */
const CONSTANT = 64;
const ONE = 2 ** 18;

/** [down, across] of each frequency in stored order: by their sum, then by the first. */
const ORDER = Array.from({ length: 2 * BLOCK - 1 }, (_, sum) =>
  Array.from({ length: BLOCK }, (_, u) => [u, sum - u] as const),
)
  .flat()
  .filter(([, v]) => v >= 0 && v < BLOCK);

/** Some blocks. */
interface Batch {
  /** [block, channel, down, across]: frequencies, then what they are transformed to. */
  readonly values: Float64Array;
  /** [block, channel]: 1 + the largest u + v of a frequency that is not 0; 0: there is none. */
  readonly reach: Uint8Array;
}

/**
 * [blocks, 8, 8, 4]: texels, in 1 / 255, of columns of rounded frequencies (SPEC.md, section 8).
 * Every sum is a whole number that a double holds, so that all machines find the same texels.
 */
export function blockTexels(
  columns: readonly Int32Array[],
  levels: Int32Array,
  steps: readonly (readonly number[])[],
): Uint8Array<ArrayBuffer> {
  const scales = new Float64Array(levels.length);
  for (const [t, level] of levels.entries()) {
    if (!(level >= 0 && level <= MOST_LEVEL))
      throw damaged(`a block of an MPI plane has level ${level}`);
    scales[t] = 2 ** level;
  }
  const batch: Batch = {
    values: new Float64Array(BATCH * CHANNELS * TEXELS),
    reach: new Uint8Array(BATCH * CHANNELS),
  };
  const texels = new Uint8Array(levels.length * CHANNELS * TEXELS);
  for (let from = 0; from < levels.length; from += BATCH) {
    const count = Math.min(BATCH, levels.length - from);
    readBatch(columns, steps, scales, from, count, batch);
    for (let c = 0; c < count * CHANNELS; c++) transform(batch, c);
    writeColours(batch, count, texels, from * CHANNELS * TEXELS);
  }
  return texels;
}

/** Codes of blocks `from` .. `from` + `count` - 1, times their steps. */
function readBatch(
  columns: readonly Int32Array[],
  steps: readonly (readonly number[])[],
  scales: Float64Array,
  from: number,
  count: number,
  { values, reach }: Batch,
): void {
  values.fill(0);
  reach.fill(0);
  for (let i = 0; i < columns.length; i++) {
    const [column, channel, k] = [columns[i]!, i % CHANNELS, Math.floor(i / CHANNELS)];
    const [u, v] = ORDER[k]!;
    const step = steps[channel]![k]!;
    for (let t = 0; t < count; t++) {
      const code = column[from + t]!;
      // Most of them are.
      if (code === 0) continue;
      const frequency = code * step * scales[from + t]!;
      if (!(Math.abs(frequency) <= MOST_FREQUENCY)) {
        throw damaged(`a block of an MPI plane has the frequency ${frequency}`);
      }
      const at = CHANNELS * t + channel;
      values[TEXELS * at + BLOCK * u + v] = frequency;
      reach[at] = u + v + 1;
    }
  }
}

/** One channel of one block, in place. */
function transform({ values, reach }: Batch, channel: number): void {
  const start = TEXELS * channel;
  const end = start + TEXELS;
  const most = reach[channel]!;
  if (most <= 1) {
    if (most === 1) values.fill(CONSTANT * CONSTANT * values[start]!, start, end);
    return;
  }
  for (let v = 0; v < Math.min(most, BLOCK); v++) transformLine(values, start + v, BLOCK);
  for (let row = start; row < end; row += BLOCK) transformLine(values, row, 1);
}

/**
 * D's transposed times 8 numbers that are `stride` apart. Its even rows are the same from both
 * ends, the odd ones change their sign: half the products do.
 */
function transformLine(x: Float64Array, at: number, stride: number): void {
  const x0 = x[at]!;
  const x1 = x[at + stride]!;
  const x2 = x[at + 2 * stride]!;
  const x3 = x[at + 3 * stride]!;
  const x4 = x[at + 4 * stride]!;
  const x5 = x[at + 5 * stride]!;
  const x6 = x[at + 6 * stride]!;
  const x7 = x[at + 7 * stride]!;
  const e0 = 64 * x0 + 83 * x2 + 64 * x4 + 36 * x6;
  const e1 = 64 * x0 + 36 * x2 - 64 * x4 - 83 * x6;
  const e2 = 64 * x0 - 36 * x2 - 64 * x4 + 83 * x6;
  const e3 = 64 * x0 - 83 * x2 + 64 * x4 - 36 * x6;
  const o0 = 89 * x1 + 75 * x3 + 50 * x5 + 18 * x7;
  const o1 = 75 * x1 - 18 * x3 - 89 * x5 - 50 * x7;
  const o2 = 50 * x1 - 89 * x3 + 18 * x5 + 75 * x7;
  const o3 = 18 * x1 - 50 * x3 + 75 * x5 - 89 * x7;
  x[at] = e0 + o0;
  x[at + stride] = e1 + o1;
  x[at + 2 * stride] = e2 + o2;
  x[at + 3 * stride] = e3 + o3;
  x[at + 4 * stride] = e3 - o3;
  x[at + 5 * stride] = e2 - o2;
  x[at + 6 * stride] = e1 - o1;
  x[at + 7 * stride] = e0 - o0;
}

/** Red, green, blue and alpha of the first `count` blocks, to `texels` from `to`. */
function writeColours({ values }: Batch, count: number, texels: Uint8Array, to: number): void {
  let o = to;
  for (let t = 0; t < count; t++) {
    const start = t * CHANNELS * TEXELS;
    for (let i = start; i < start + TEXELS; i++, o += CHANNELS) {
      const red = rounded(values[i + 2 * TEXELS]!);
      const green = rounded(values[i + 3 * TEXELS]!);
      const both = rounded(values[i + TEXELS]!) - (green >> 1);
      const blue = both - (red >> 1);
      texels[o] = clamped(blue + red);
      texels[o + 1] = clamped(both + green);
      texels[o + 2] = clamped(blue);
      texels[o + 3] = clamped(rounded(values[i]!));
    }
  }
}

function rounded(sum: number): number {
  return Math.floor((sum + ONE / 2) / ONE);
}

function clamped(value: number): number {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
