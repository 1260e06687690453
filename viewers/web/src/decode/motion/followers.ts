import { quatProduct } from "../rotation";
import { type SplatData, sigmoid } from "../splats";
import { DUAL } from "./splines";

/** Nodes that a moving splat follows. */
export const FOLLOWED = 4;

/** What splats that move follow, and when they are there; one item for each splat. */
export interface Followers {
  readonly count: number;
  /** [n, 4] numbers of nodes, that of the largest weight first. */
  readonly nodes: Uint16Array<ArrayBuffer>;
  /** [n, 4] in 1/255; they sum to 255. */
  readonly weights: Uint8Array<ArrayBuffer>;
  /** [n, 4] rise and fall, in seconds from the motion's start, and their lengths; null: always. */
  readonly windows: Float32Array<ArrayBuffer> | null;
}

/** How much of its opacity a splat has; `seconds` from the motion's start. */
export function windowAt(windows: ArrayLike<number>, i: number, seconds: number): number {
  const rise = (seconds - windows[4 * i]!) / windows[4 * i + 2]!;
  const fall = (windows[4 * i + 1]! - seconds) / windows[4 * i + 3]!;
  return sigmoid(rise) * sigmoid(fall);
}

/**
 * Blends the nodes of splat i (SPEC.md, section 9): writes a unit quaternion w, x, y, z and a shift.
 */
export function blend(
  { nodes, weights }: Followers,
  i: number,
  duals: Float64Array,
  out: Float64Array,
): void {
  const first = DUAL * nodes[FOLLOWED * i]!;
  const [fw, fx, fy, fz] = [duals[first]!, duals[first + 1]!, duals[first + 2]!, duals[first + 3]!];
  let rw = 0;
  let rx = 0;
  let ry = 0;
  let rz = 0;
  let dw = 0;
  let dx = 0;
  let dy = 0;
  let dz = 0;
  for (let j = FOLLOWED * i; j < FOLLOWED * (i + 1); j++) {
    const n = DUAL * nodes[j]!;
    const w = duals[n]!;
    const x = duals[n + 1]!;
    const y = duals[n + 2]!;
    const z = duals[n + 3]!;
    const s = fw * w + fx * x + fy * y + fz * z < 0 ? -weights[j]! : weights[j]!;
    rw += s * w;
    rx += s * x;
    ry += s * y;
    rz += s * z;
    dw += s * duals[n + 4]!;
    dx += s * duals[n + 5]!;
    dy += s * duals[n + 6]!;
    dz += s * duals[n + 7]!;
  }
  const squares = rw * rw + rx * rx + ry * ry + rz * rz;
  const unit = 1 / Math.sqrt(squares);
  const twice = 2 / squares;
  out[0] = unit * rw;
  out[1] = unit * rx;
  out[2] = unit * ry;
  out[3] = unit * rz;
  out[4] = twice * (rw * dx - dw * rx + ry * dz - rz * dy);
  out[5] = twice * (rw * dy - dw * ry + rz * dx - rx * dz);
  out[6] = twice * (rw * dz - dw * rz + rx * dy - ry * dx);
}

/** Writes x, y, z at `o`, moved as `blended` says. */
export function shifted(
  blended: Float64Array,
  x: number,
  y: number,
  z: number,
  out: Float32Array,
  o: number,
): void {
  const [w, a, b, c] = [blended[0]!, blended[1]!, blended[2]!, blended[3]!];
  const tx = 2 * (b * z - c * y);
  const ty = 2 * (c * x - a * z);
  const tz = 2 * (a * y - b * x);
  out[o] = x + w * tx + b * tz - c * ty + blended[4]!;
  out[o + 1] = y + w * ty + c * tx - a * tz + blended[5]!;
  out[o + 2] = z + w * tz + a * ty - b * tx + blended[6]!;
}

/** Splats as they are at a time: `seconds` from the motion's start, `duals` the nodes' poses then. */
export function movedSplats(
  data: SplatData,
  followers: Followers,
  duals: Float64Array,
  seconds: number,
): SplatData {
  const means = new Float32Array(data.means.length);
  const quats = new Float32Array(data.quats.length);
  const opacities = data.opacities.slice();
  const blended = new Float64Array(7);
  for (let i = 0; i < data.count; i++) {
    blend(followers, i, duals, blended);
    const [x, y, z] = data.means.subarray(3 * i, 3 * i + 3) as unknown as [number, number, number];
    shifted(blended, x, y, z, means, 3 * i);
    quats.set(quatProduct(blended, data.quats.subarray(4 * i, 4 * i + 4)), 4 * i);
    if (followers.windows) opacities[i]! *= windowAt(followers.windows, i, seconds);
  }
  return { ...data, means, quats, opacities };
}

/** Moved places alone, [n, 3], and the box that encloses them: x, y, z smallest, then largest. */
export function movedPlaces(
  places: Float32Array,
  followers: Followers,
  duals: Float64Array,
): { centers: Float32Array<ArrayBuffer>; bounds: Float32Array<ArrayBuffer> } {
  const { count } = followers;
  const centers = new Float32Array(3 * count);
  const blended = new Float64Array(7);
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < count; i++) {
    blend(followers, i, duals, blended);
    shifted(blended, places[3 * i]!, places[3 * i + 1]!, places[3 * i + 2]!, centers, 3 * i);
    for (let a = 0; a < 3; a++) {
      const x = centers[3 * i + a]!;
      if (x < low[a]!) low[a] = x;
      if (x > high[a]!) high[a] = x;
    }
  }
  return { centers, bounds: Float32Array.of(...low, ...high) };
}
