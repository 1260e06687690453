import { aroundRest, follow, logarithmBetween, POSE, TWIST } from "./pose";

/** When and how a scene moves (SPEC.md, section 9). */
export interface MotionShape {
  /** Seconds. */
  start: number;
  duration: number;
  /** Seconds between knots. */
  interval: number;
  nodes: number;
  /** [N, 3] where nodes are in the canonical arrangement. */
  rest: Float64Array;
  /** Whether moving splats come and go. */
  windows: boolean;
  /** Of time, in order: first segment and how many. */
  chunks: readonly { segment: number; segments: number }[];
}

/** The numbers of a node's dual quaternion: w, x, y, z, then the dual part. */
export const DUAL = 8;
/** Numbers of a knot: rotation vector and shift. */
export const KNOT = 6;
/** Knots that a segment's spline takes. */
const SPAN = 4;

/** The poses of all nodes at a time: cumulative cubic B-splines, of chunks that come one by one. */
export class Splines {
  /** [N, 8] poses at the time of the last `evaluate`; at first those of nothing having moved. */
  readonly duals: Float64Array;
  private readonly knots: (Float32Array | null)[];
  /** The segment that the poses and twists below are of. */
  private prepared = -1;
  /** [4, N] */
  private readonly poses: Float64Array;
  /** [3, N] from each knot to the next. */
  private readonly twists: Float64Array;
  private readonly pose = new Float64Array(POSE);

  constructor(readonly shape: MotionShape) {
    const { nodes, chunks } = shape;
    this.knots = chunks.map(() => null);
    this.duals = new Float64Array(DUAL * nodes);
    for (let n = 0; n < nodes; n++) this.duals[DUAL * n] = 1;
    this.poses = new Float64Array(SPAN * POSE * nodes);
    this.twists = new Float64Array((SPAN - 1) * TWIST * nodes);
  }

  /** Takes a chunk's knots, [segments + 3, N, 6]. */
  add(chunk: number, knots: Float32Array): void {
    this.knots[chunk] = knots;
  }

  /** Which chunk, which of all segments, and where in it a time is. */
  place(time: number): { chunk: number; segment: number; u: number } {
    const { start, interval, chunks } = this.shape;
    const last = chunks.at(-1)!;
    const v = Math.max(0, this.clamp(time) - start) / interval;
    const segment = Math.min(Math.floor(v), last.segment + last.segments - 1);
    const chunk = chunks.findLastIndex((c) => c.segment <= segment);
    return { chunk, segment, u: v - segment };
  }

  clamp(time: number): number {
    const { start, duration } = this.shape;
    return Math.max(start, Math.min(start + duration, time));
  }

  hasChunk(chunk: number): boolean {
    return this.knots[chunk] !== null;
  }

  /** Whether the chunk of a time is there. */
  has(time: number): boolean {
    return this.hasChunk(this.place(time).chunk);
  }

  /** Computes `duals` at a time; false, and nothing changed, where its chunk is not there. */
  evaluate(time: number): boolean {
    const { chunk, segment, u } = this.place(time);
    const knots = this.knots[chunk];
    if (!knots) return false;
    if (segment !== this.prepared) this.prepare(knots, segment - this.shape.chunks[chunk]!.segment);
    this.prepared = segment;
    const weights = [
      (5 + 3 * u - 3 * u * u + u * u * u) / 6,
      (1 + 3 * u + 3 * u * u - 2 * u * u * u) / 6,
      (u * u * u) / 6,
    ];
    const { nodes } = this.shape;
    const { pose, duals } = this;
    for (let n = 0; n < nodes; n++) {
      for (let k = 0; k < POSE; k++) pose[k] = this.poses[POSE * n + k]!;
      for (let j = 0; j < SPAN - 1; j++) {
        follow(pose, 0, this.twists, TWIST * (nodes * j + n), weights[j]!);
      }
      writeDual(pose, duals, DUAL * n);
    }
    return true;
  }

  /** The four poses of a segment, the first of `knots` being number `first`, and what is between. */
  private prepare(knots: Float32Array, first: number): void {
    const { nodes, rest } = this.shape;
    const { poses, twists } = this;
    for (let k = 0; k < SPAN; k++) {
      for (let n = 0; n < nodes; n++) {
        const at = POSE * (nodes * k + n);
        aroundRest(knots, KNOT * (nodes * (first + k) + n), rest, 3 * n, poses, at);
        if (k === 0) continue;
        const to = TWIST * (nodes * (k - 1) + n);
        logarithmBetween(poses, at - POSE * nodes, poses, at, twists, to);
      }
    }
  }
}

/** q and (0, t) q / 2. */
function writeDual(pose: Float64Array, out: Float64Array, o: number): void {
  const [w, x, y, z] = [pose[0]!, pose[1]!, pose[2]!, pose[3]!];
  const [a, b, c] = [pose[4]!, pose[5]!, pose[6]!];
  out[o] = w;
  out[o + 1] = x;
  out[o + 2] = y;
  out[o + 3] = z;
  out[o + 4] = -0.5 * (a * x + b * y + c * z);
  out[o + 5] = 0.5 * (a * w + b * z - c * y);
  out[o + 6] = 0.5 * (b * w + c * x - a * z);
  out[o + 7] = 0.5 * (c * w + a * y - b * x);
}
