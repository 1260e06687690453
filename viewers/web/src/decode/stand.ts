/**
 * How a scene stands that nobody photographed: its box, which way is up, and from which side it is
 * seen first. src/scene4d/bundle/first_view.py finds the same for bundles.
 */
import { centreOf, sizeOf } from "../camera/first-view";
import { add, cross, dot, frameOf, length, normalize, scale, sub, type V3 } from "../camera/vec";
import {
  gathersAlong,
  hasFloor,
  insideView,
  isWithin,
  type Plan,
  planOf,
  sortedColumns,
} from "./inside";
import type { Box, FileStand } from "./protocol";

/** From some thousand places of splats, x, y, z; null without any. */
export function standOf(places: ArrayLike<number>): FileStand | null {
  const box = contentBox(places);
  if (!box) return null;
  const up = findUp(places, box);
  const plan = planOf(places, box, up);
  return { box, up, forward: clearDirection(places, box, up, plan), inside: insideView(plan) };
}

/** Steps of a walk outwards through bins of this share of the widest middle half. */
const BINS_PER_SPREAD = 4;
const EMPTY_BINS = 2;
const EMPTY_SHARE = 0.001;
const TAIL = 0.003;

/**
 * The box of places without what floats around: along each axis it ends where two bins in a row hold
 * next to nothing. Null without places.
 */
export function contentBox(places: ArrayLike<number>): Box | null {
  const all = chosen(places, (i) => Number.isFinite(places[i]! + places[i + 1]! + places[i + 2]!));
  if (all.length === 0) return null;
  let rows = all;
  for (let round = 0; round < 2; round++) {
    const columns = sortedColumns(rows);
    const spreads = columns.map((c) => quantile(c, 0.75) - quantile(c, 0.25));
    const widest = Math.max(...spreads);
    if (!(widest > 0)) break;
    const ends = columns.map((c) => endsOf(c, widest));
    const [low, high] = [0, 1].map((e) => ends.map((end) => end[e])) as [V3, V3];
    const before = rows;
    rows = chosen(before, (i) => isWithin({ low, high }, before, i));
  }
  const columns = sortedColumns(rows.length > 0 ? rows : all);
  return {
    low: columns.map((c) => quantile(c, TAIL)) as V3,
    high: columns.map((c) => quantile(c, 1 - TAIL)) as V3,
  };
}

/** Rows, x, y, z, that are wanted; `wants` takes the number of a row's x. */
function chosen(places: ArrayLike<number>, wants: (i: number) => boolean): Float64Array {
  const rows = new Float64Array(places.length);
  let used = 0;
  for (let i = 0; i + 2 < places.length; i += 3) {
    if (!wants(i)) continue;
    for (let a = 0; a < 3; a++) rows[used++] = places[i + a]!;
  }
  return rows.subarray(0, used);
}

/** The least and the largest value before two empty bins in a row, from the middle half on. */
function endsOf(sorted: Float64Array, spread: number): [number, number] {
  const width = spread / BINS_PER_SPREAD;
  const few = Math.max(1, EMPTY_SHARE * sorted.length);
  const walk = (from: number, step: 1 | -1) => {
    let empty = 0;
    let edge = from;
    const last = step > 0 ? sorted.at(-1)! : sorted[0]!;
    for (let n = 0; n < 10_000 && empty < EMPTY_BINS; n++) {
      const [a, b] = [from + step * n * width, from + step * (n + 1) * width];
      const count = Math.abs(rankOf(sorted, b) - rankOf(sorted, a));
      empty = count < few ? empty + 1 : 0;
      if (empty === 0) edge = b;
      if (step > 0 ? b > last : b < last) break;
    }
    return edge;
  };
  return [walk(quantile(sorted, 0.25), -1), walk(quantile(sorted, 0.75), 1)];
}

function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

/** How many are less. */
function rankOf(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** How a file without cameras stands where nothing in it says otherwise: the 3DGS PLY's y is down. */
export const FILE_UP: V3 = [0, -1, 0];
const TRIALS = 300;
/** Places that judge a plane. */
const JUDGES = 800;
/** Of the variance along a ground, as a share of that of all places. */
const LEAST_WIDTH = 0.95;
/** Shares of the box' size and of the places. */
const THICKNESS = 0.012;
const ONE_SIDED = 0.93;
const LEAST_GROUND = 0.2;
/** A plane within 45 degrees of the usual ground counts whole, another one as much as this. */
const UNUSUAL = 0.5;
const NEAR_UP = Math.cos(Math.PI / 4);
const AXIS = Math.cos((4 * Math.PI) / 180);

/**
 * Which way is up in a file without cameras. A ground is a plane near which many places lie, spread
 * out, with all others on one side. Else things gather on a floor, or the scene stands in the
 * format's own way, unless it is mirrored along it, which nothing that stands is.
 */
export function findUp(places: ArrayLike<number>, box: Box): V3 {
  const margin = 0.1 * sizeOf(box);
  const low = box.low.map((x) => x - margin) as V3;
  const high = box.high.map((x) => x + margin) as V3;
  const rows = chosen(places, (i) => isWithin({ low, high }, places, i));
  if (rows.length < 3 * 50) return FILE_UP;
  const ground = groundOf(rows, sizeOf(box));
  if (ground && usual(ground) === 1) return snapped(ground);
  // A back or a wall is a plane, too: what gathers and what the mirror says come before it.
  return gatheredUp(rows, box) ?? mirrorFree(rows, box) ?? snapped(ground ?? FILE_UP);
}

function groundOf(rows: Float64Array, size: number): V3 | null {
  const next = numbersFrom(1);
  const count = rows.length / 3;
  const stride = Math.ceil(count / JUDGES);
  const judges = chosen(rows, (i) => (i / 3) % stride === 0);
  const pick = (): V3 => {
    const i = 3 * Math.floor(next() * count);
    return [rows[i]!, rows[i + 1]!, rows[i + 2]!];
  };
  let best = LEAST_GROUND / 2;
  let found: { at: V3; up: V3 } | null = null;
  for (let trial = 0; trial < TRIALS; trial++) {
    const [a, b, c] = [pick(), pick(), pick()];
    const normal = normalize(cross(sub(b, a), sub(c, a)));
    if (length(normal) === 0) continue;
    const plane = judge(judges, a, normal, size);
    const score = plane.share * usual(plane.up);
    if (score > best) {
      best = score;
      found = { at: a, up: plane.up };
    }
  }
  if (!found) return null;
  // What decides must not hang on which three places were drawn.
  const { at, up } = refined(rows, found.at, found.up, size);
  const plane = judge(rows, at, up, size);
  return plane.share * usual(plane.up) >= LEAST_GROUND ? plane.up : null;
}

function usual(up: V3): number {
  return dot(up, FILE_UP) > NEAR_UP ? 1 : UNUSUAL;
}

/**
 * The share of places near a plane; 0 unless the others are at one side, which is `up`, and those
 * near it are spread at least as far along it as all are: what stands on a ground is no wider.
 */
function judge(places: Float64Array, at: V3, normal: V3, size: number): { share: number; up: V3 } {
  const [near, all] = [new Spread(), new Spread()];
  let [above, below] = [0, 0];
  const thick = THICKNESS * size;
  for (let i = 0; i < places.length; i += 3) {
    const x = places[i]! - at[0];
    const y = places[i + 1]! - at[1];
    const z = places[i + 2]! - at[2];
    const height = x * normal[0] + y * normal[1] + z * normal[2];
    all.add(x, y, z, height);
    if (height > thick) above++;
    else if (height < -thick) below++;
    else near.add(x, y, z, height);
  }
  const up = above >= below ? normal : scale(normal, -1);
  const others = above + below;
  const oneSided = others < 0.02 * all.count || Math.max(above, below) >= ONE_SIDED * others;
  const wide = near.along() >= LEAST_WIDTH * all.along();
  return { share: oneSided && wide ? near.count / all.count : 0, up };
}

/** How far places are spread along a plane. */
class Spread {
  count = 0;
  private readonly sums = [0, 0, 0, 0];
  private squares = 0;

  add(x: number, y: number, z: number, height: number): void {
    this.count++;
    const { sums } = this;
    sums[0]! += x;
    sums[1]! += y;
    sums[2]! += z;
    sums[3]! += height;
    this.squares += x * x + y * y + z * z - height * height;
  }

  /** The variance along the plane, of both directions together. */
  along(): number {
    const n = Math.max(1, this.count);
    const [x, y, z, height] = this.sums.map((s) => s / n) as [number, number, number, number];
    return Math.max(0, this.squares / n - (x * x + y * y + z * z - height * height));
  }
}

/** The plane through the rows near a plane. */
function refined(rows: Float64Array, at: V3, up: V3, size: number): { at: V3; up: V3 } {
  const near = chosen(rows, (i) => {
    const d: V3 = [rows[i]! - at[0], rows[i + 1]! - at[1], rows[i + 2]! - at[2]];
    return Math.abs(dot(d, up)) <= 1.5 * THICKNESS * size;
  });
  const mean: V3 = [0, 0, 0];
  for (let i = 0; i < near.length; i++) mean[i % 3]! += near[i]! / (near.length / 3);
  const [x, y] = frameOf(up);
  let [xx, xy, yy, xh, yh] = [0, 0, 0, 0, 0];
  for (let i = 0; i < near.length; i += 3) {
    const d: V3 = [near[i]! - mean[0], near[i + 1]! - mean[1], near[i + 2]! - mean[2]];
    const [a, b, h] = [dot(d, x), dot(d, y), dot(d, up)];
    xx += a * a;
    xy += a * b;
    yy += b * b;
    xh += a * h;
    yh += b * h;
  }
  const determinant = xx * yy - xy * xy;
  if (!(determinant > 1e-12 * xx * yy)) return { at: mean, up };
  // Height as a linear function of x and y: its slopes turn the normal.
  const [slopeX, slopeY] = [(xh * yy - yh * xy) / determinant, (yh * xx - xh * xy) / determinant];
  return { at: mean, up: normalize(sub(up, add(scale(x, slopeX), scale(y, slopeY)))) };
}

/** By so much things must gather more at another side than at the formats' floor. */
const HEAVIER = 0.1;
const LEAST_GATHERED = 0.2;

/** The way up of the formats' ones in which a scene has a floor and things gather on it. */
function gatheredUp(places: ArrayLike<number>, box: Box): V3 | null {
  let best = LEAST_GATHERED - HEAVIER;
  let found: V3 | null = null;
  for (const up of [FILE_UP, [0, 0, 1], [0, 1, 0]] as V3[]) {
    const gathered = gathersAlong(places, box, up);
    if (gathered <= best + HEAVIER) continue;
    best = gathered;
    found = up;
  }
  return found;
}

const CELLS = 10;
const MIRRORED = 0.15;
/** Fewer places leave too much to chance. */
const LEAST_PLACES = 1000;

/** Z where the scene is far more alike mirrored along y, the format's own way up, than along z. */
function mirrorFree(rows: Float64Array, box: Box): V3 | null {
  if (rows.length < 3 * LEAST_PLACES) return null;
  const cells = new Set<number>();
  const key = ([a, b, c]: V3) => a + CELLS * (b + CELLS * c);
  for (let i = 0; i < rows.length; i += 3) {
    const place: V3 = [0, 0, 0];
    for (let a = 0; a < 3; a++) {
      const share = (rows[i + a]! - box.low[a]!) / Math.max(1e-12, box.high[a]! - box.low[a]!);
      place[a] = Math.max(0, Math.min(CELLS - 1, Math.floor(CELLS * share)));
    }
    cells.add(key(place));
  }
  const alike = [0, 1, 2].map((axis) => {
    let both = 0;
    for (const cell of cells) {
      const at: V3 = [
        cell % CELLS,
        Math.floor(cell / CELLS) % CELLS,
        Math.floor(cell / CELLS ** 2),
      ];
      at[axis] = CELLS - 1 - at[axis]!;
      if (cells.has(key(at))) both++;
    }
    return both / cells.size;
  });
  return alike[1]! > alike[2]! + MIRRORED ? [0, 0, 1] : null;
}

function snapped(up: V3): V3 {
  const axis = up.findIndex((x) => Math.abs(x) > AXIS);
  return axis < 0 ? up : (up.map((x, a) => (a === axis ? Math.sign(x) : 0)) as V3);
}

/** Always the same numbers from 0 to 1 (Lehmer's generator, modulo 2^31 - 1). */
function numbersFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

const DIRECTIONS = 12;
const DOWNWARDS = 0.35;
/** Share of all places by which a direction may be worse than the best one. */
const TOLERATED = 0.005;
/** What lies before the middle and is tall: shares of the length, the half width and the height. */
const FRONT = 0.25;
const MIDDLE = 0.3;
const OVER = 0.25;
/** By this share of all places a wall in front is more than what always stands there. */
const WALLED = 0.02;

/**
 * The direction to look along at a box, a little from above: the usual one for the axes, or the
 * next one to it in whose way no wall stands and nothing floats before the box.
 */
export function clearDirection(
  places: ArrayLike<number>,
  box: Box,
  up: V3,
  plan: Plan | null = planOf(places, box, up),
): V3 {
  const usual: V3 = Math.abs(up[2]) > 0.5 ? [0.6, 0.8, 0] : [0.6, 0, 0.8];
  const flat = normalize(sub(usual, scale(up, dot(usual, up))));
  const side = cross(up, flat);
  const inside = chosen(places, (i) => isWithin(box, places, i));
  const outside = chosen(places, (i) => !isWithin(box, places, i));
  const floor = hasFloor(plan);
  const found: { direction: V3; walls: number; count: number }[] = [];
  for (let n = 0; n < DIRECTIONS; n++) {
    // 0, 30, -30, 60, -60 ... degrees away from the usual one.
    const angle = ((n % 2 ? 1 : -1) * Math.ceil(n / 2) * 2 * Math.PI) / DIRECTIONS;
    const level = add(scale(flat, Math.cos(angle)), scale(side, Math.sin(angle)));
    const direction = normalize(sub(level, scale(up, DOWNWARDS)));
    const walls = floor ? inFront(inside, level, up) : 0;
    found.push({ direction, walls, count: inTheWay(outside, box, direction) });
  }
  const usualWalls = Math.min(...found.map((f) => f.walls)) + (WALLED * places.length) / 3;
  for (const f of found) f.count += Math.max(0, f.walls - usualWalls);
  const least = Math.min(...found.map((f) => f.count));
  return found.find((f) => f.count <= least + TOLERATED * (places.length / 3))!.direction;
}

/** How many places stand up in front of the middle, along a level direction. */
function inFront(rows: Float64Array, level: V3, up: V3): number {
  const count = rows.length / 3;
  const shares = (axis: V3) => {
    const along = new Float64Array(count);
    let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let i = 0; i < count; i++) {
      const x = rows[3 * i]! * axis[0] + rows[3 * i + 1]! * axis[1] + rows[3 * i + 2]! * axis[2];
      along[i] = x;
      low = Math.min(low, x);
      high = Math.max(high, x);
    }
    for (let i = 0; i < count; i++) along[i] = (along[i]! - low) / Math.max(1e-12, high - low);
    return along;
  };
  const [ahead, aside, height] = [shares(level), shares(cross(up, level)), shares(up)];
  let found = 0;
  for (let i = 0; i < count; i++)
    if (height[i]! > OVER && Math.abs(aside[i]! - 0.5) < MIDDLE && ahead[i]! < FRONT) found++;
  return found;
}

/** How many places lie around the line from the eye to the box. */
function inTheWay(outside: Float64Array, box: Box, direction: V3): number {
  const [centre, size] = [centreOf(box), sizeOf(box)];
  let count = 0;
  for (let i = 0; i < outside.length; i += 3) {
    const d = sub([outside[i]!, outside[i + 1]!, outside[i + 2]!], centre);
    const along = -dot(d, direction);
    if (along <= 0 || along > 2 * size) continue;
    if (length(add(d, scale(direction, along))) < 0.35 * size) count++;
  }
  return count;
}
