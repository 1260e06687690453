import type { Followers } from "../motion/followers";
import { FOLLOWED } from "../motion/followers";
import { Ranks } from "../motion/ranks";
import { KNOT, type MotionShape } from "../motion/splines";
import { damaged } from "./bytes";
import type { KindReader, MotionReader, SplatKind } from "./kind";
import { carriedBytes, checkLimit, DISTANCES } from "./limits";
import type { Array as ArrayEntry, Manifest, Splats4D } from "./manifest.gen";
import { splatsKind } from "./plain";
import type { DecodedStage, StageDecoder } from "./stages";
import { type Range, rangeSize } from "./values";

/** Nodes lie within so many steps of the grid's origin. */
const FARTHEST = 2 ** 22;
const FULL = 255;
/** Sums of the codes of knots, radians, and lengths that shifts and rests may have. */
const MOST_SUM = 2 ** 30;
const MOST_TURN = 1000;
const MOST_LENGTH = 1e30;
/** Knots that two chunks share. */
const SEAM = 3;
/** Arrays of points that say how they move. */
const NODES = { nodes: FOLLOWED, weights: FOLLOWED - 1 };

/** Kind `splats4d` (SPEC.md, section 9): Gaussians, of which some follow nodes. */
export const splats4dKind: SplatKind = {
  drawable: "splats",
  check(manifest, size) {
    splatsKind.check(manifest, size);
    checkMotion(manifest);
  },
  open(decoder, degree): KindReader {
    const plain = splatsKind.open(decoder, degree);
    return {
      size: plain.size,
      pointsPerPiece: plain.pointsPerPiece,
      read: plain.read,
      motion: new Motion(decoder),
    };
  },
};

/** Bytes of how points move, in the worker, on the page and in textures; of all that may move. */
export function motionBytes({ splats4d, stages }: Manifest): number {
  if (!splats4d?.nodes) return 0;
  return 150 * stages.reduce((sum, s) => sum + s.points, 0);
}

/** The manifest's entry once it fits the rest. */
function checkMotion(manifest: Manifest): Splats4D {
  const entry = manifest.splats4d;
  if (!entry) throw damaged("the manifest has no entry splats4d");
  const { nodes, chunks } = entry;
  if (nodes > 0 && nodes < FOLLOWED) throw damaged(`${nodes} nodes are fewer than a splat follows`);
  if (!manifest.positions) throw damaged("a bundle of splats has no positions");
  if (nodes > 0 !== chunks.length > 0)
    throw damaged("there are nodes without chunks, or chunks without");
  checkChunks(manifest, entry);
  checkArrays(manifest, entry);
  const points = manifest.stages.reduce((sum, s) => sum + s.points, 0);
  checkLimit(DISTANCES, points * nodes, carriedBytes(manifest));
  return entry;
}

/** Chunks are the last stages, one each, and follow each other until the end. */
function checkChunks({ stages }: Manifest, { chunks, interval, duration }: Splats4D): void {
  const before = stages.length - chunks.length;
  let segment = 0;
  for (const [i, chunk] of chunks.entries()) {
    if (chunk.stage !== before + i || stages[chunk.stage]!.points > 0) {
      throw damaged(
        `chunk ${i} is not a stage of its own without points, one of the last in order`,
      );
    }
    if (chunk.segment !== segment) throw damaged(`chunk ${i} leaves a gap or overlaps another one`);
    segment += chunk.segments;
  }
  // A stage before the chunks that has neither points nor chunks is none that could be shown first.
  if (before < 1) throw damaged("there is no stage before the chunks");
  if (chunks.length > 0 && !(interval * segment >= duration)) {
    throw damaged(`its chunks end ${interval * segment} seconds after the start, not ${duration}`);
  }
}

/** Which arrays must be there, of what size; others that the kind knows must not. */
function checkArrays(manifest: Manifest, { nodes, windows, chunks }: Splats4D): void {
  const wanted = new Map<string, Partial<ArrayEntry>>([["moving", { components: 1 }]]);
  if (nodes > 0) {
    wanted.set("node_rest", { components: 3, items: nodes, stage: 0 });
    for (const [name, components] of Object.entries(NODES)) wanted.set(name, { components });
    if (windows) wanted.set("window", { components: FOLLOWED });
    for (const [i, { stage, segments }] of chunks.entries()) {
      wanted.set(`motion_${i}`, { components: KNOT, items: nodes * (segments + 3), stage });
    }
  }
  const found = new Map(manifest.arrays.map((a) => [a.name, a]));
  for (const [name, { components, items, stage }] of wanted) {
    const a = found.get(name);
    if (!a) throw damaged(`array ${name} is missing`);
    if (a.components !== components || a.items !== items || a.stage !== stage) {
      throw damaged(`array ${name} has another form than its kind says`);
    }
    if (name !== "window" && (a.quantiser || a.basis || a.mean)) {
      throw damaged(`array ${name} is of integers and has no quantiser`);
    }
  }
  const known = /^(?:node_rest|moving|nodes|weights|window|motion_\d+)$/;
  for (const name of found.keys()) {
    if (known.test(name) && !wanted.has(name)) throw damaged(`array ${name} belongs to nothing`);
  }
}

class Motion implements MotionReader {
  readonly chunkStages: readonly number[];
  private readonly entry: Splats4D;
  private ranks: Ranks | null = null;
  private readonly seams = new Map<number, Record<"first" | "last", Int32Array[]>>();

  constructor(private readonly decoder: StageDecoder) {
    this.entry = decoder.manifest.splats4d!;
    this.chunkStages = this.entry.chunks.map((c) => c.stage);
  }

  shape(): MotionShape | null {
    const { start, duration, interval, nodes, windows, chunks } = this.entry;
    if (nodes === 0) return null;
    const rest = this.places();
    const { origin, step } = this.decoder.manifest.positions!;
    return {
      start,
      duration,
      interval,
      nodes,
      rest: Float64Array.from(rest, (q, i) => origin[i % 3]! + step * q),
      windows,
      chunks: chunks.map(({ segment, segments }) => ({ segment, segments })),
    };
  }

  /** [N, 3] of the grid; makes what resolves ranks. */
  private places(): Int32Array {
    const { nodes } = this.entry;
    const columns = this.decoder.take("node_rest");
    const rest = new Int32Array(3 * nodes);
    for (const [a, column] of columns.entries()) {
      for (let n = 0; n < nodes; n++) {
        const q = column[n]!;
        if (!(Math.abs(q) <= FARTHEST)) throw damaged(`node ${n} lies too far from the grid`);
        rest[3 * n + a] = q;
      }
    }
    this.ranks = new Ranks(rest, nodes);
    return rest;
  }

  followers(stage: DecodedStage, range: Range): { rows: Uint32Array; followers: Followers } {
    const rows = movingRows(stage, range);
    const { nodes: count } = this.entry;
    const items = rows.length;
    if (items > 0 && count === 0) throw damaged("a splat moves, but there are no nodes");
    const followers: Followers = {
      count: items,
      nodes: new Uint16Array(FOLLOWED * items),
      weights: new Uint8Array(FOLLOWED * items),
      windows: this.entry.windows && items > 0 ? this.windows(stage, range, rows) : null,
    };
    if (items === 0) return { rows, followers };
    const ranks = stage.codes.get("nodes")!;
    const weights = stage.codes.get("weights")!;
    const [xs, ys, zs] = stage.grid!;
    const { nodes } = followers;
    for (let i = 0; i < items; i++) {
      const p = range.from + rows[i]! * range.stride;
      for (let j = 0; j < FOLLOWED; j++) {
        const rank = ranks[j]![p]!;
        if (!(rank >= 0 && rank < count)) throw damaged(`a splat follows node ${rank} of ${count}`);
        for (let k = 0; k < j; k++) {
          if (ranks[k]![p] === rank) throw damaged("a splat follows the same node twice");
        }
        nodes[FOLLOWED * i + j] = rank;
      }
      this.ranks!.resolve(xs[p]!, ys[p]!, zs[p]!, nodes, FOLLOWED * i);
      putWeights(weights, p, followers, i);
    }
    return { rows, followers };
  }

  /** [n, 4] of the moving rows, with times from the motion's start. */
  private windows(stage: DecodedStage, range: Range, rows: Uint32Array): Float32Array<ArrayBuffer> {
    const { start } = this.entry;
    const all = new Float32Array(FOLLOWED * rangeSize(range));
    const target = { data: all, width: FOLLOWED, at: 0, of: FOLLOWED };
    this.decoder.values.into("window", stage.codes, range, target);
    const out = new Float32Array(FOLLOWED * rows.length);
    for (let i = 0; i < rows.length; i++) {
      const [rise, fall, a, b] = all.subarray(
        4 * rows[i]!,
        4 * rows[i]! + 4,
      ) as unknown as number[];
      if (!(a! > 0 && b! > 0)) throw damaged("a window opens or closes in no time");
      out.set([rise! - start, fall! - start, a!, b!], 4 * i);
    }
    return out;
  }

  knots(chunk: number): Float32Array<ArrayBuffer> {
    const { nodes, chunks } = this.entry;
    const columns = this.decoder.take(`motion_${chunk}`);
    const count = chunks[chunk]!.segments + 3;
    const out = new Float32Array(KNOT * nodes * count);
    for (const [c, column] of columns.entries()) {
      sumKnots(column, nodes, `motion_${chunk}`);
      this.scale(column, c, out);
    }
    this.compareSeams(chunk, columns);
    return out;
  }

  /** Codes that are summed up become numbers of component c. */
  private scale(sums: Int32Array, c: number, out: Float32Array): void {
    const step = c < 3 ? this.entry.rotation_step : this.entry.shift_step;
    const most = c < 3 ? MOST_TURN : MOST_LENGTH;
    for (let i = 0; i < sums.length; i++) {
      const value = Math.fround(step * sums[i]!);
      if (!(Math.abs(value) <= most)) throw damaged(`a node turns or shifts by ${value}`);
      out[KNOT * i + c] = value;
    }
    if (c === 3) checkTurns(out);
  }

  /** Three knots are in two chunks that follow each other, and are the same in both. */
  private compareSeams(chunk: number, columns: Int32Array[]): void {
    const seam = SEAM * this.entry.nodes;
    const first = columns.map((c) => c.slice(0, seam));
    const last = columns.map((c) => c.slice(-seam));
    const differ = (a: Int32Array[] | undefined, b: Int32Array[]) =>
      a?.some((column, c) => column.some((x, i) => x !== b[c]![i]));
    if (
      differ(this.seams.get(chunk - 1)?.last, first) ||
      differ(this.seams.get(chunk + 1)?.first, last)
    ) {
      throw damaged(`chunk ${chunk} does not begin or end as the one beside it says`);
    }
    this.seams.set(chunk, { first, last });
  }
}

/** The code of each knot becomes the sum of its node's codes up to it. */
function sumKnots(column: Int32Array, nodes: number, name: string): void {
  for (let i = 0; i < column.length; i++) {
    const sum = column[i]! + (i < nodes ? 0 : column[i - nodes]!);
    if (!(Math.abs(sum) <= MOST_SUM)) throw damaged(`array ${name} has sums beyond 2^30`);
    column[i] = sum;
  }
}

/** Rotation vectors in the first three of `KNOT` columns. */
function checkTurns(knots: Float32Array): void {
  for (let i = 0; i < knots.length; i += KNOT) {
    if (!(Math.hypot(knots[i]!, knots[i + 1]!, knots[i + 2]!) <= MOST_TURN)) {
      throw damaged("a node turns by more than 1000 radians");
    }
  }
}

/** Which of the points in `range`, counted in it, move. */
function movingRows(stage: DecodedStage, { from, to, stride }: Range): Uint32Array {
  const moving = stage.codes.get("moving")![0]!;
  const rows: number[] = [];
  for (let p = from, i = 0; p < to; p += stride, i++) {
    const says = moving[p]!;
    if (says !== 0 && says !== 1) throw damaged(`array moving has a ${says}`);
    if (says === 1) rows.push(i);
  }
  return Uint32Array.from(rows);
}

/** Three stored weights and what is missing to 1; the largest one's node comes to the front. */
function putWeights(
  stored: Int32Array[],
  p: number,
  { nodes, weights }: Followers,
  i: number,
): void {
  const at = FOLLOWED * i;
  let rest = FULL;
  let largest = at;
  for (let j = 0; j < FOLLOWED; j++) {
    const w = j < FOLLOWED - 1 ? stored[j]![p]! : rest;
    rest -= w;
    if (!(w >= 0 && rest >= 0)) throw damaged("a splat has weights that are no shares of 1");
    weights[at + j] = w;
    if (w > weights[largest]!) largest = at + j;
  }
  const [node, weight] = [nodes[largest]!, weights[largest]!];
  nodes[largest] = nodes[at]!;
  weights[largest] = weights[at]!;
  nodes[at] = node;
  weights[at] = weight;
}
