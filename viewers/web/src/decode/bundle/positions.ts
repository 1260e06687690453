import { damaged } from "./bytes";
import type { Positions } from "./manifest.gen";
import { RansDecoder } from "./rans";
import { PRECISION, type Tables } from "./tables";

const CONTEXTS = 8;

/** Bit b of an occupancy goes to bit b xor c; its own inverse. */
const REFLECT = Array.from({ length: 8 }, (_, c) =>
  Uint8Array.from({ length: 256 }, (_, m) => {
    let out = 0;
    for (let b = 0; b < 8; b++) out |= ((m >> b) & 1) << (b ^ c);
    return out;
  }),
);
const POPCOUNT = Uint8Array.from({ length: 256 }, (_, m) => {
  let bits = 0;
  for (let b = 0; b < 8; b++) bits += (m >> b) & 1;
  return bits;
});

/** Nodes of one octree level as grid coordinates; x, y, z in one column each. */
interface Level {
  columns: [Uint32Array, Uint32Array, Uint32Array];
  child: Uint8Array;
  context: Uint8Array;
}

/** Grid coordinates, three columns of `count`, of one stage (SPEC.md, section 4). */
export function decodePositions(
  bytes: Uint8Array,
  entry: Positions,
  tables: Tables,
  count: number,
  depth: number,
): [Uint32Array, Uint32Array, Uint32Array] {
  if (entry.tables + CONTEXTS > tables.count || entry.leaf_table >= tables.count) {
    throw damaged("positions use frequency tables that do not exist");
  }
  if (depth > entry.bits) throw damaged("an octree is deeper than the positions have bits");
  const decoder = new RansDecoder(bytes, tables);
  let level: Level = {
    columns: [new Uint32Array(1), new Uint32Array(1), new Uint32Array(1)],
    child: new Uint8Array(1),
    context: Uint8Array.of(CONTEXTS - 1),
  };
  for (let l = 0; l < depth; l++) {
    level = descend(level, decoder.symbols(level.child.length, entry.tables, level.context), count);
  }
  const points = leaves(decoder, level, entry, count, entry.bits - depth);
  decoder.finish();
  return points;
}

function descend(level: Level, symbols: Int32Array, count: number): Level {
  let total = 0;
  for (const symbol of symbols) {
    if (symbol > 254) throw damaged("an octree node has an occupancy above 255");
    total += POPCOUNT[symbol + 1]!;
  }
  if (total > count) throw damaged(`the octree has more nodes than its ${count} points can fill`);
  const [xs, ys, zs] = level.columns;
  const columns: Level["columns"] = [
    new Uint32Array(total),
    new Uint32Array(total),
    new Uint32Array(total),
  ];
  const child = new Uint8Array(total);
  const context = new Uint8Array(total);
  let at = 0;
  for (let i = 0; i < symbols.length; i++) {
    const occupancy = REFLECT[level.child[i]!]![symbols[i]! + 1]!;
    for (let b = 0; b < 8; b++) {
      if (!((occupancy >> b) & 1)) continue;
      columns[0][at] = (xs[i]! << 1) | (b & 1);
      columns[1][at] = (ys[i]! << 1) | ((b >> 1) & 1);
      columns[2][at] = (zs[i]! << 1) | (b >> 2);
      child[at] = b;
      context[at] =
        ((occupancy >> (b ^ 1)) & 1) |
        (((occupancy >> (b ^ 2)) & 1) << 1) |
        (((occupancy >> (b ^ 4)) & 1) << 2);
      at++;
    }
  }
  return { columns, child, context };
}

function leaves(
  decoder: RansDecoder,
  level: Level,
  entry: Positions,
  count: number,
  rest: number,
): [Uint32Array, Uint32Array, Uint32Array] {
  const nodes = level.child.length;
  const r = entry.leaf_low_bits;
  const high = decoder.symbols(nodes, entry.leaf_table);
  const low = r > 0 ? decoder.bits(nodes, r) : null;
  const points: [Uint32Array, Uint32Array, Uint32Array] = [
    new Uint32Array(count),
    new Uint32Array(count),
    new Uint32Array(count),
  ];
  const [px, py, pz] = points;
  const [xs, ys, zs] = level.columns;
  let at = 0;
  for (let i = 0; i < nodes; i++) {
    const size = ((high[i]! << r) | (low ? low[i]! : 0)) + 1;
    if (at + size > count) throw damaged(`the octree holds more than ${count} points`);
    for (const end = at + size; at < end; at++) {
      px[at] = xs[i]! << rest;
      py[at] = ys[i]! << rest;
      pz[at] = zs[i]! << rest;
    }
  }
  if (at !== count) throw damaged(`the octree holds ${at} points, the manifest says ${count}`);
  for (const column of points) {
    for (const [shift, width] of passes(rest)) {
      const bits = decoder.bits(count, width);
      for (let i = 0; i < count; i++) column[i] = column[i]! | (bits[i]! << shift);
    }
  }
  return points;
}

/** Shift and width of the passes that carry the low bits, high ones first. */
function passes(rest: number): [number, number][] {
  if (rest > PRECISION)
    return [
      [PRECISION, rest - PRECISION],
      [0, PRECISION],
    ];
  return rest > 0 ? [[0, rest]] : [];
}
