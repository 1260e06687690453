/**
 * Whether a file without cameras shows what was around those who captured it, a room or a square,
 * and where in it to stand first. src/scene4d/bundle/inside_view.py finds the same for bundles.
 */
import { add, dot, frameOf, scale, sub, type V3 } from "../camera/vec";
import type { Box, View } from "./protocol";

/** Cells along each side of the ground plan; eyes are tried at their corners. */
const CELLS = 10;
/** Heights at which eyes are tried, as shares of the scene's. */
const HEIGHTS = [0.35, 0.45, 0.55];
/** Along each side of the scene: places within a cell count as one, at their mean. */
const CLUMPS = 24;
const RINGS = 64;
const FEWEST = 200;
/** Shares of all places: what a ball without air holds where they fill the box, what may float
 * before an eye, what a cell of the ground plan needs to hold something, a sector to be closed. */
const DOZEN = 12 / 4096;
const FLOATING = 3 / 4096;
const HELD = 2 / 4096;
const CLOSING = 2 / 1000;
/** Share of places at each end that does not count for the scene's sides. */
const TAIL = 0.01;
/** A floor lies within this share of the height, under this share of the ground plan. */
const FLOOR_HEIGHT = 0.12;
const LEAST_FLOOR = 0.5;
const WHOLE_FLOOR = 0.6;
/** How much room an eye needs, and how much is enough, as shares of the shortest side. */
const LEAST_CLEARANCE = 0.26;
const CLEARANCE = 0.5;
/** Of the sectors around an eye so many hold something at its height or over it. */
const SECTORS = 24;
const LEAST_CLOSED = 0.66;
/** Eyes that fit worse than by this share more than they must count less and less. */
const SOFT = 0.1;
/** Of the heights over one place better ones count more, by this power of how good they are. */
const PREFER = 16;
/** Steeper things over the eye (60 degrees) do not close a sector. */
const STEEP = Math.sqrt(3);
const DIRECTIONS = 12;
/** Slopes of half the picture's width and height. */
const WIDE = 0.64;
const HIGH = 0.5;

/** Places in the axes of the ground plan and of the height, around the box' middle. */
export interface Plan {
  /** x, y, z of one after the other. */
  rows: Float64Array;
  origin: V3;
  axes: [V3, V3, V3];
  low: V3;
  size: V3;
}

/**
 * Where to stand, looking level, in a scene that closes around places with air and a floor under
 * them: from where most of it is in the picture. Null for things that are seen from outside.
 */
export function insideView(plan: Plan | null): View | null {
  if (!plan || !hasFloor(plan)) return null;
  const { low, size } = plan;
  const clumps = clumpsOf(plan);
  const shortest = Math.min(...size);
  const needed = Math.max(LEAST_CLEARANCE * shortest, chance(size));
  const enough = CLEARANCE * shortest;
  const [a, b] = usualOf(plan);
  let fits = 0;
  let best: Seen | null = null;
  const all: Seen[] = [];
  for (const height of HEIGHTS)
    for (let i = 1; i < CELLS; i++)
      for (let j = 1; j < CELLS; j++) {
        const eye: V3 = [
          low[0] + (size[0] * i) / CELLS,
          low[1] + (size[1] * j) / CELLS,
          low[2] + size[2] * height,
        ];
        const room = clearance(clumps, eye, Math.max(needed, enough));
        const fitness = Math.min(room / needed, closedShare(clumps, eye) / LEAST_CLOSED);
        fits = Math.max(fits, fitness);
        // Eyes that only just fit, or only just do not, count less and less: none decides by a hair.
        const soft = Math.max(0, Math.min(1, (fitness - 1 + SOFT) / SOFT));
        const ease = Math.min(1, room / enough) * soft;
        if (ease === 0) continue;
        // Of places and directions that are alike always the same one is taken.
        const place = (0.02 * i + 0.01 * j) / CELLS - 0.05 * Math.abs(height - 0.45);
        for (const [n, seen] of seenFrom(clumps, eye, 0.1 * shortest).entries()) {
          const [c, s] = seen.direction;
          const score = ease * seen.share * (1 + 0.1 * (c * a + s * b) + place);
          const kind = n + DIRECTIONS * (i + CELLS * j);
          const one = { eye, kind, score, direction: seen.direction, distance: seen.distance };
          all.push(one);
          if (!best || score > best.score) best = one;
        }
      }
  return fits >= 1 && best && best.score > 0 ? viewOf(plan, best, all) : null;
}

interface Seen {
  eye: V3;
  /** One number for all heights over a place, in a direction. */
  kind: number;
  score: number;
  direction: readonly [number, number];
  distance: number;
}

/** Heights over one place are alike: theirs is the mean, by how good each is. */
function viewOf({ axes, origin }: Plan, best: Seen, all: readonly Seen[]): View {
  let [sum, weights] = [0, 0];
  for (const { eye, kind, score } of all) {
    if (kind !== best.kind) continue;
    const weight = (score / best.score) ** PREFER;
    weights += weight;
    sum += weight * eye[2];
  }
  const eye: V3 = [best.eye[0], best.eye[1], sum / weights];
  const [c, s] = best.direction;
  const target: V3 = [eye[0] + c * best.distance, eye[1] + s * best.distance, eye[2]];
  return { position: placed(eye, axes, origin), target: placed(target, axes, origin) };
}

/**
 * How far things gather at the lower end along a direction, of those that lie away from the box'
 * sides: -1 to 1, where what stands on a floor is at 1; 0 without a floor.
 */
export function gathersAlong(places: ArrayLike<number>, box: Box, up: V3): number {
  const plan = planOf(places, box, up);
  if (!plan || floorShare(plan) < LEAST_FLOOR) return 0;
  let [below, above] = [0, 0];
  const { rows, low, size } = plan;
  for (let i = 0; i < rows.length; i += 3) {
    let within = true;
    let share = 0;
    for (let a = 0; a < 3; a++) {
      share = (rows[i + a]! - low[a]!) / size[a]!;
      within &&= share >= 0.08 && share <= 0.92;
    }
    if (!within) continue;
    if (share < 0.4) below++;
    else if (share > 0.6) above++;
  }
  return (below - above) / Math.max(1, below + above);
}

/** Whether there is a floor below most of the content. */
export function hasFloor(plan: Plan | null): boolean {
  return plan !== null && floorShare(plan) >= WHOLE_FLOOR;
}

/** Places, x, y, z, within a box as they lie along a way up; null for too few, and flat ones. */
export function planOf(places: ArrayLike<number>, box: Box, up: V3): Plan | null {
  const axes: [V3, V3, V3] = [...frameOf(up), up];
  const origin = scale(add(box.low, box.high), 0.5);
  const all = new Float64Array(places.length);
  let used = 0;
  for (let i = 0; i + 2 < places.length; i += 3) {
    if (!isWithin(box, places, i)) continue;
    const x = places[i]! - origin[0];
    const y = places[i + 1]! - origin[1];
    const z = places[i + 2]! - origin[2];
    for (const axis of axes) all[used++] = x * axis[0] + y * axis[1] + z * axis[2];
  }
  const rows = all.subarray(0, used);
  const count = used / 3;
  if (count < FEWEST) return null;
  const columns = sortedColumns(rows);
  const at = (share: number) => columns.map((c) => c[Math.floor(share * (count - 1))]!) as V3;
  const low = at(TAIL);
  const size = sub(at(1 - TAIL), low);
  if (!(Math.min(...size) > 0)) return null;
  return { rows, origin, axes, low, size };
}

export function isWithin({ low, high }: Box, places: ArrayLike<number>, i: number): boolean {
  for (let a = 0; a < 3; a++)
    if (!(places[i + a]! >= low[a]! && places[i + a]! <= high[a]!)) return false;
  return true;
}

/** The x, the y and the z of rows, each from the least on. */
export function sortedColumns(rows: ArrayLike<number>): [Float64Array, Float64Array, Float64Array] {
  const column = (a: number) => {
    const values = new Float64Array(Math.floor(rows.length / 3));
    for (let i = 0; i < values.length; i++) values[i] = rows[3 * i + a]!;
    return values.sort();
  };
  return [column(0), column(1), column(2)];
}

/** Of the cells of the ground plan that hold something, the share that has a floor. */
function floorShare({ rows, low, size }: Plan): number {
  const [held, floored] = [new Float64Array(CELLS ** 2), new Float64Array(CELLS ** 2)];
  for (let i = 0; i < rows.length; i += 3) {
    let cell = 0;
    for (let a = 1; a >= 0; a--) {
      const share = Math.floor((CELLS * (rows[i + a]! - low[a]!)) / size[a]!);
      cell = CELLS * cell + Math.max(0, Math.min(CELLS - 1, share));
    }
    held[cell]!++;
    if (rows[i + 2]! < low[2] + FLOOR_HEIGHT * size[2]) floored[cell]!++;
  }
  const need = (HELD * rows.length) / 3;
  const full = (counts: Float64Array) => counts.reduce((sum, n) => sum + Math.min(1, n / need), 0);
  return full(floored) / full(held);
}

/** Places that lie close together as one, x, y, z and their share of all. */
function clumpsOf({ rows, low, size }: Plan): Float64Array {
  const members = new Map<number, number>();
  const sums: number[] = [];
  for (let i = 0; i < rows.length; i += 3) {
    let cell = 0;
    for (let a = 2; a >= 0; a--) {
      const share = Math.floor((CLUMPS * (rows[i + a]! - low[a]!)) / size[a]!);
      cell = CLUMPS * cell + Math.max(0, Math.min(CLUMPS - 1, share));
    }
    let at = members.get(cell);
    if (at === undefined) {
      at = sums.length;
      members.set(cell, at);
      sums.push(0, 0, 0, 0);
    }
    for (let a = 0; a < 3; a++) sums[at + a]! += rows[i + a]!;
    sums[at + 3]!++;
  }
  const clumps = Float64Array.from(sums);
  for (let i = 0; i < clumps.length; i += 4) {
    for (let a = 0; a < 3; a++) clumps[i + a]! /= clumps[i + 3]!;
    clumps[i + 3]! /= rows.length / 3;
  }
  return clumps;
}

/** The direction in the ground plan in which scenes are looked at where nothing else says. */
function usualOf({ axes }: Plan): [number, number] {
  const usual: V3 = Math.abs(axes[2][2]) > 0.5 ? [0.6, 0.8, 0] : [0.6, 0, 0.8];
  const [a, b] = [dot(usual, axes[0]), dot(usual, axes[1])];
  return [a / Math.hypot(a, b), b / Math.hypot(a, b)];
}

/** The radius of a ball in which a box full of places would hold a dozen of 4096. */
function chance(size: V3): number {
  return Math.cbrt((DOZEN * size[0] * size[1] * size[2]) / ((4 / 3) * Math.PI));
}

/** How far away from an eye places begin, but for some that may float; at most `most`. */
function clearance(clumps: Float64Array, eye: V3, most: number): number {
  const held = new Float64Array(RINGS);
  for (let i = 0; i < clumps.length; i += 4) {
    const [x, y, z] = [clumps[i]! - eye[0], clumps[i + 1]! - eye[1], clumps[i + 2]! - eye[2]];
    const ring = (RINGS / most) * Math.sqrt(x * x + y * y + z * z);
    if (ring < RINGS) held[Math.floor(ring)]! += clumps[i + 3]!;
  }
  let within = 0;
  for (let ring = 0; ring < RINGS; ring++) {
    if (within + held[ring]! > FLOATING)
      return (most * (ring + (FLOATING - within) / held[ring]!)) / RINGS;
    within += held[ring]!;
  }
  return most;
}

/** Of the sectors around an eye the share that holds something at its height or over it. */
function closedShare(clumps: Float64Array, eye: V3): number {
  const held = new Float64Array(SECTORS);
  for (let i = 0; i < clumps.length; i += 4) {
    const [x, y, z] = [clumps[i]! - eye[0], clumps[i + 1]! - eye[1], clumps[i + 2]! - eye[2]];
    if (z < 0 || z > STEEP * Math.hypot(x, y)) continue;
    const turn = (Math.atan2(y, x) / (2 * Math.PI) + 1) % 1;
    held[Math.min(SECTORS - 1, Math.floor(SECTORS * turn))]! += clumps[i + 3]!;
  }
  return held.reduce((sum, share) => sum + Math.min(1, share / CLOSING), 0) / SECTORS;
}

/** For each level direction the share of places in the picture, and how far away on average. */
function seenFrom(clumps: Float64Array, eye: V3, near: number) {
  return Array.from({ length: DIRECTIONS }, (_, n) => {
    const angle = (2 * Math.PI * n) / DIRECTIONS;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    let [share, sum] = [0, 0];
    for (let i = 0; i < clumps.length; i += 4) {
      const [x, y, z] = [clumps[i]! - eye[0], clumps[i + 1]! - eye[1], clumps[i + 2]! - eye[2]];
      const ahead = c * x + s * y;
      if (ahead < near || Math.abs(c * y - s * x) > WIDE * ahead) continue;
      if (Math.abs(z) > HIGH * ahead) continue;
      share += clumps[i + 3]!;
      sum += clumps[i + 3]! * ahead;
    }
    return { direction: [c, s] as const, share, distance: share > 0 ? sum / share : near };
  });
}

function placed(point: V3, axes: [V3, V3, V3], origin: V3): V3 {
  return axes.reduce((sum, axis, a) => add(sum, scale(axis, point[a]!)), origin);
}
