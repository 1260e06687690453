import { damaged } from "./bytes";
import type { Array as ArrayEntry, Context } from "./manifest.gen";
import type { RansDecoder } from "./rans";
import type { Tables } from "./tables";

const MAX_CHANNEL_TABLES = 256;
const MAX_CONTEXT_CHANNELS = 256;
/** Contexts whose sums span less are looked up in a table. */
const SPAN = 1 << 16;

/** Decoded codes of one stage by array name: one column per component. */
export type Columns = Map<string, Int32Array[]>;

/** A run of channels "sh.3" or "sh.0-11". */
interface Run {
  array: string;
  first: number;
  last: number;
}

function parseRun(text: string): Run {
  const match = /^([a-z][a-z0-9_]*)\.(\d{1,4})(?:-(\d{1,4}))?$/.exec(text);
  if (!match) throw damaged(`a context names no channel: ${text}`);
  const first = Number(match[2]);
  return { array: match[1]!, first, last: match[3] === undefined ? first : Number(match[3]) };
}

/** Decodes the columns of one array, `count` items each, and adds them to `known`. */
export function decodeArray(
  decoder: RansDecoder,
  entry: ArrayEntry,
  count: number,
  tables: Tables,
  known: Columns,
): void {
  checkLists(entry);
  const columns: Int32Array[] = [];
  const sums = new RunningSums();
  known.set(entry.name, columns);
  for (let c = 0; c < entry.components; c++) {
    const context = entry.contexts?.[c] ?? null;
    const previous = entry.previous?.[c] ?? [];
    const used = ((context?.edges.length ?? 0) + 1) * (previous.length + 1);
    if (used > MAX_CHANNEL_TABLES || entry.tables[c]! + used > tables.count) {
      throw damaged(`array ${entry.name} uses frequency tables that do not exist`);
    }
    if (!rising(previous)) throw damaged(`array ${entry.name} has unsorted edges`);
    const rows = context ? contextRows(context, entry.name, count, known, sums) : null;
    const r = entry.low_bits?.[c] ?? 0;
    const low = entry.low[c]!;
    const added = r > 0 ? 0 : low;
    const codes =
      previous.length > 0
        ? decoder.chained(count, entry.tables[c]!, rows, previous, added)
        : decoder.symbols(count, entry.tables[c]!, rows, added);
    if (r > 0) {
      const bits = decoder.bits(count, r);
      for (let i = 0; i < count; i++) codes[i] = low + ((codes[i]! << r) | bits[i]!);
    }
    columns.push(codes);
  }
}

function checkLists(entry: ArrayEntry): void {
  const lists = [entry.low, entry.tables, entry.low_bits, entry.contexts, entry.previous];
  if (lists.some((list) => list !== undefined && list.length !== entry.components)) {
    throw damaged(
      `array ${entry.name} has ${entry.components} components and lists of another length`,
    );
  }
}

function rising(edges: readonly number[]): boolean {
  return edges.every((edge, i) => i === 0 || edge > edges[i - 1]!);
}

/** Channels whose codes stay below this can be summed up as 32-bit integers. */
const SMALL = 2 ** 31 / MAX_CONTEXT_CHANNELS;

type Sums = Int32Array | Float64Array;

/** Sums over runs of channels that grow by one from one channel to the next. */
class RunningSums {
  private last: { run: Run; magnitude: boolean; values: Sums } | null = null;

  of(run: Run, magnitude: boolean, count: number, column: (c: number) => Int32Array): Sums {
    if (run.first === run.last && !magnitude) return column(run.first);
    const { last } = this;
    const grows =
      last !== null &&
      last.magnitude === magnitude &&
      last.run.array === run.array &&
      last.run.first === run.first &&
      last.run.last <= run.last;
    let values = grows ? last.values : new Int32Array(count);
    for (let c = grows ? last.run.last + 1 : run.first; c <= run.last; c++) {
      const codes = column(c);
      if (values instanceof Int32Array && !small(codes)) values = Float64Array.from(values);
      if (values instanceof Float64Array) addTo(values, codes, 1, magnitude);
      else addSmall(values, codes, magnitude);
    }
    this.last = { run, magnitude, values };
    return values;
  }
}

function small(codes: Int32Array): boolean {
  let most = 0;
  for (let i = 0; i < codes.length; i++) most |= Math.abs(codes[i]!);
  return most >= 0 && most < SMALL;
}

function addSmall(sum: Int32Array, codes: Int32Array, magnitude: boolean): void {
  const n = sum.length;
  if (magnitude) for (let i = 0; i < n; i++) sum[i] = sum[i]! + Math.abs(codes[i]!);
  else for (let i = 0; i < n; i++) sum[i] = sum[i]! + codes[i]!;
}

function addTo(sum: Float64Array, codes: Int32Array, weight: number, magnitude: boolean): void {
  const n = sum.length;
  if (magnitude) for (let i = 0; i < n; i++) sum[i]! += weight * Math.abs(codes[i]!);
  else for (let i = 0; i < n; i++) sum[i]! += weight * codes[i]!;
}

/** Number of the table of every item: how many edges are at most its weighted sum. */
function contextRows(
  context: Context,
  name: string,
  count: number,
  known: Columns,
  sums: RunningSums,
): Uint8Array {
  const runs = context.of.map(parseRun);
  const width = runs.reduce((sum, run) => sum + run.last - run.first + 1, 0);
  if (width > MAX_CONTEXT_CHANNELS)
    throw damaged(`array ${name} has a context of ${width} channels`);
  if (!rising(context.edges) || (context.weights && context.weights.length !== width)) {
    throw damaged(`array ${name} has a context with unfitting weights or unsorted edges`);
  }
  const column = (array: string) => (c: number) => {
    const codes = known.get(array)?.[c];
    if (!codes || codes.length !== count) {
      throw damaged(`array ${name} takes its context from ${array}.${c}, which is not there yet`);
    }
    return codes;
  };
  const magnitude = context.magnitude === true;
  if (runs.length === 1 && !context.weights) {
    return bins(sums.of(runs[0]!, magnitude, count, column(runs[0]!.array)), context.edges);
  }
  const values = new Float64Array(count);
  let weight = 0;
  for (const run of runs) {
    for (let c = run.first; c <= run.last; c++) {
      addTo(values, column(run.array)(c), context.weights?.[weight++] ?? 1, magnitude);
    }
  }
  return bins(values, context.edges);
}

function bins(values: Sums, edges: readonly number[]): Uint8Array {
  if (values instanceof Int32Array) return smallBins(values, edges) ?? searched(values, edges);
  return searched(values, edges);
}

/** By a table over the values' span; null where they span too much. */
function smallBins(values: Int32Array, edges: readonly number[]): Uint8Array | null {
  let low = values.length > 0 ? values[0]! : 0;
  let high = low;
  for (let i = 0; i < values.length; i++) {
    const v = values[i]!;
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  if (high - low >= SPAN) return null;
  const table = new Uint8Array(high - low + 1);
  for (const edge of edges) {
    for (let v = Math.max(0, edge - low); v < table.length; v++) table[v]!++;
  }
  const out = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) out[i] = table[(values[i]! - low) | 0]!;
  return out;
}

function searched(values: Sums, edges: readonly number[]): Uint8Array {
  const out = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    let [a, b] = [0, edges.length];
    while (a < b) {
      const middle = (a + b) >> 1;
      if (edges[middle]! <= values[i]!) a = middle + 1;
      else b = middle;
    }
    out[i] = a;
  }
  return out;
}
