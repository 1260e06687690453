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
/** Places that eyes are tried with. */
const JUDGES = 1000;
const FEWEST = 200;
/** A filled box has no air of the size in which it would hold so many places on average. */
const DOZEN = 12;
/** Places that may float before an eye. */
const FLOATING = 3;
/** Share of places at each end that does not count for the scene's sides. */
const TAIL = 0.01;
/** A floor lies within this share of the height, under this share of the ground plan. */
const FLOOR_HEIGHT = 0.12;
const LEAST_FLOOR = 0.5;
const WHOLE_FLOOR = 0.6;
/** How much room an eye needs, and how much is enough, as shares of the shortest side. */
const LEAST_CLEARANCE = 0.3;
const CLEARANCE = 0.5;
/** Of the sectors around an eye so many hold something at its height or over it. */
const SECTORS = 24;
const LEAST_CLOSED = 0.75;
/** Steeper things over the eye (60 degrees) do not close a sector. */
const STEEP = Math.sqrt(3);
const DIRECTIONS = 12;
/** Slopes of half the picture's width and height. */
const WIDE = 0.64;
const HIGH = 0.5;

/** Places in the axes of the ground plan and of the height, around the box' middle. */
interface Plan {
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
export function insideView(places: ArrayLike<number>, box: Box, up: V3): View | null {
  const plan = planOf(places, box, up);
  if (!plan || floorShare(plan) < WHOLE_FLOOR) return null;
  const { low, size, axes, origin } = plan;
  const judges = every(plan.rows, Math.ceil(plan.rows.length / 3 / JUDGES));
  const shortest = Math.min(...size);
  const needed = Math.max(LEAST_CLEARANCE * shortest, chance(plan));
  let best = 0;
  let found: View | null = null;
  for (const height of HEIGHTS)
    for (let i = 1; i < CELLS; i++)
      for (let j = 1; j < CELLS; j++) {
        const eye: V3 = [
          low[0] + (size[0] * i) / CELLS,
          low[1] + (size[1] * j) / CELLS,
          low[2] + size[2] * height,
        ];
        const room = clearance(plan.rows, eye);
        if (room < needed || closedShare(judges, eye) < LEAST_CLOSED) continue;
        const ease = Math.min(1, room / (CLEARANCE * shortest));
        for (const seen of seenFrom(judges, eye, 0.1 * shortest)) {
          if (ease * seen.count <= best) continue;
          best = ease * seen.count;
          const [c, s] = seen.direction;
          const target: V3 = [eye[0] + c * seen.distance, eye[1] + s * seen.distance, eye[2]];
          found = { position: placed(eye, axes, origin), target: placed(target, axes, origin) };
        }
      }
  return found;
}

/**
 * How far things gather at the lower end along a direction, of those that lie away from the box'
 * sides: -1 to 1, where what stands on a floor is at 1; 0 without a floor.
 */
export function gathersAlong(places: ArrayLike<number>, box: Box, up: V3): number {
  const plan = planOf(places, box, up);
  if (!plan || floorShare(plan) < LEAST_FLOOR) return 0;
  let [below, above] = [0, 0];
  for (let i = 0; i < plan.rows.length; i += 3) {
    const at = [0, 1, 2].map((a) => (plan.rows[i + a]! - plan.low[a]!) / plan.size[a]!);
    if (at.some((x) => x < 0.08 || x > 0.92)) continue;
    if (at[2]! < 0.4) below++;
    else if (at[2]! > 0.6) above++;
  }
  return (below - above) / Math.max(1, below + above);
}

/** Whether there is a floor below most of the content. */
export function hasFloor(places: ArrayLike<number>, box: Box, up: V3): boolean {
  const plan = planOf(places, box, up);
  return plan !== null && floorShare(plan) >= WHOLE_FLOOR;
}

function planOf(places: ArrayLike<number>, box: Box, up: V3): Plan | null {
  const axes: [V3, V3, V3] = [...frameOf(up), up];
  const origin = scale(add(box.low, box.high), 0.5);
  const rows: number[] = [];
  for (let i = 0; i + 2 < places.length; i += 3) {
    const row: V3 = [places[i]!, places[i + 1]!, places[i + 2]!];
    if (!row.every((x, a) => x >= box.low[a]! && x <= box.high[a]!)) continue;
    const d = sub(row, origin);
    rows.push(dot(d, axes[0]), dot(d, axes[1]), dot(d, axes[2]));
  }
  const count = rows.length / 3;
  if (count < FEWEST) return null;
  const columns = [0, 1, 2].map((a) =>
    Float64Array.from({ length: count }, (_, i) => rows[3 * i + a]!).sort(),
  );
  const at = (share: number) => columns.map((c) => c[Math.floor(share * (count - 1))]!) as V3;
  const low = at(TAIL);
  const size = sub(at(1 - TAIL), low);
  if (!(Math.min(...size) > 0)) return null;
  return { rows: Float64Array.from(rows), origin, axes, low, size };
}

/** Of the cells of the ground plan that hold something, the share that has a floor. */
function floorShare({ rows, low, size }: Plan): number {
  const [held, floored] = [new Set<number>(), new Set<number>()];
  for (let i = 0; i < rows.length; i += 3) {
    const [a, b] = [0, 1].map((axis) => {
      const share = (rows[i + axis]! - low[axis]!) / size[axis]!;
      return Math.max(0, Math.min(CELLS - 1, Math.floor(CELLS * share)));
    }) as [number, number];
    held.add(a + CELLS * b);
    if (rows[i + 2]! < low[2] + FLOOR_HEIGHT * size[2]) floored.add(a + CELLS * b);
  }
  return floored.size / held.size;
}

/** Every so manieth row. */
function every(rows: Float64Array, stride: number): Float64Array {
  return rows.filter((_, i) => Math.floor(i / 3) % stride === 0);
}

/** The radius of a ball in which a box full of as many places would hold a dozen. */
function chance({ rows, size }: Plan): number {
  const share = DOZEN / (rows.length / 3);
  return Math.cbrt((share * size[0] * size[1] * size[2]) / ((4 / 3) * Math.PI));
}

/** How far away the fourth place is: some may float. */
function clearance(rows: Float64Array, eye: V3): number {
  const nearest = new Float64Array(FLOATING + 1).fill(Number.POSITIVE_INFINITY);
  for (let i = 0; i < rows.length; i += 3) {
    const [x, y, z] = [rows[i]! - eye[0], rows[i + 1]! - eye[1], rows[i + 2]! - eye[2]];
    const far = x * x + y * y + z * z;
    if (far >= nearest[FLOATING]!) continue;
    nearest[FLOATING] = far;
    nearest.sort();
  }
  return Math.sqrt(nearest[FLOATING]!);
}

function closedShare(rows: Float64Array, eye: V3): number {
  const counts = new Int32Array(SECTORS);
  for (let i = 0; i < rows.length; i += 3) {
    const [x, y, z] = [rows[i]! - eye[0], rows[i + 1]! - eye[1], rows[i + 2]! - eye[2]];
    if (z < 0 || z > STEEP * Math.hypot(x, y)) continue;
    const turn = (Math.atan2(y, x) / (2 * Math.PI) + 1) % 1;
    counts[Math.min(SECTORS - 1, Math.floor(SECTORS * turn))]!++;
  }
  return counts.filter((count) => count >= 2).length / SECTORS;
}

/** For each level direction how many places are in the picture, and how far away on average. */
function seenFrom(rows: Float64Array, eye: V3, near: number) {
  return Array.from({ length: DIRECTIONS }, (_, n) => {
    const angle = (2 * Math.PI * n) / DIRECTIONS;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    let [count, sum] = [0, 0];
    for (let i = 0; i < rows.length; i += 3) {
      const [x, y, z] = [rows[i]! - eye[0], rows[i + 1]! - eye[1], rows[i + 2]! - eye[2]];
      const ahead = c * x + s * y;
      if (ahead < near || Math.abs(c * y - s * x) > WIDE * ahead) continue;
      if (Math.abs(z) > HIGH * ahead) continue;
      count++;
      sum += ahead;
    }
    return { direction: [c, s] as const, count, distance: sum / Math.max(1, count) };
  });
}

function placed(point: V3, axes: [V3, V3, V3], origin: V3): V3 {
  return axes.reduce((sum, axis, a) => add(sum, scale(axis, point[a]!)), origin);
}
