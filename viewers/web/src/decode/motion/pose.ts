/**
 * Rigid poses and their logarithms, as runs of numbers in Float64Arrays: a pose is a unit quaternion
 * w, x, y, z and a translation (7 numbers), a twist a rotation vector and a vector (6 numbers).
 */

export const POSE = 7;
export const TWIST = 6;

type Numbers = Float64Array;

/** Angles below it are computed by series: the closed forms cancel there. */
const SMALL = 1e-2;

const twist = new Float64Array(TWIST);
const step = new Float64Array(POSE);

/** Writes exp of `scale` times the twist at `i` to the pose at `o`. */
export function exponential(twists: Numbers, i: number, scale: number, out: Numbers, o: number) {
  const ax = scale * twists[i]!;
  const ay = scale * twists[i + 1]!;
  const az = scale * twists[i + 2]!;
  const bx = scale * twists[i + 3]!;
  const by = scale * twists[i + 4]!;
  const bz = scale * twists[i + 5]!;
  const A2 = ax * ax + ay * ay + az * az;
  const A = Math.sqrt(A2);
  const small = A < SMALL;
  const s = small ? 0.5 - A2 / 48 + (A2 * A2) / 3840 : Math.sin(0.5 * A) / A;
  const f = small ? 0.5 - A2 / 24 + (A2 * A2) / 720 : (1 - Math.cos(A)) / A2;
  const g = small ? 1 / 6 - A2 / 120 + (A2 * A2) / 5040 : (A - Math.sin(A)) / (A2 * A);
  out[o] = Math.cos(0.5 * A);
  out[o + 1] = s * ax;
  out[o + 2] = s * ay;
  out[o + 3] = s * az;
  addCrossed(ax, ay, az, bx, by, bz, f, g, out, o + 4);
}

/** Writes the twist between two poses, log(P^-1 Q), the shorter way round. */
export function logarithmBetween(
  P: Numbers,
  p: number,
  Q: Numbers,
  q: number,
  out: Numbers,
  o: number,
) {
  relative(P, p, Q, q, step);
  const sign = step[0]! < 0 ? -1 : 1;
  const x = sign * step[1]!;
  const y = sign * step[2]!;
  const z = sign * step[3]!;
  const n = Math.sqrt(x * x + y * y + z * z);
  const A = 2 * Math.atan2(n, sign * step[0]!);
  const A2 = A * A;
  const small = A < SMALL;
  const s = n > 1e-12 ? A / n : 2;
  const g = small
    ? 1 / 12 + A2 / 720 + (A2 * A2) / 30240
    : (1 - (0.5 * A) / Math.tan(0.5 * A)) / A2;
  out[o] = s * x;
  out[o + 1] = s * y;
  out[o + 2] = s * z;
  addCrossed(s * x, s * y, s * z, step[4]!, step[5]!, step[6]!, -0.5, g, out, o + 3);
}

/** b + f a x b + g a x (a x b). */
function addCrossed(
  ax: number,
  ay: number,
  az: number,
  bx: number,
  by: number,
  bz: number,
  f: number,
  g: number,
  out: Numbers,
  o: number,
): void {
  const cx = ay * bz - az * by;
  const cy = az * bx - ax * bz;
  const cz = ax * by - ay * bx;
  out[o] = bx + f * cx + g * (ay * cz - az * cy);
  out[o + 1] = by + f * cy + g * (az * cx - ax * cz);
  out[o + 2] = bz + f * cz + g * (ax * cy - ay * cx);
}

/** P^-1 Q. */
function relative(P: Numbers, p: number, Q: Numbers, q: number, out: Numbers): void {
  const w = P[p]!;
  const x = -P[p + 1]!;
  const y = -P[p + 2]!;
  const z = -P[p + 3]!;
  multiply(w, x, y, z, Q[q]!, Q[q + 1]!, Q[q + 2]!, Q[q + 3]!, out, 0);
  const tx = Q[q + 4]! - P[p + 4]!;
  const ty = Q[q + 5]! - P[p + 5]!;
  const tz = Q[q + 6]! - P[p + 6]!;
  rotate(w, x, y, z, tx, ty, tz, out, 4);
}

/** The pose at `p` becomes itself times exp of `scale` times a twist: first that, then the pose. */
export function follow(P: Numbers, p: number, twists: Numbers, i: number, scale: number): void {
  exponential(twists, i, scale, step, 0);
  const w = P[p]!;
  const x = P[p + 1]!;
  const y = P[p + 2]!;
  const z = P[p + 3]!;
  multiply(w, x, y, z, step[0]!, step[1]!, step[2]!, step[3]!, P, p);
  rotate(w, x, y, z, step[4]!, step[5]!, step[6]!, step, 4);
  P[p + 4]! += step[4]!;
  P[p + 5]! += step[5]!;
  P[p + 6]! += step[6]!;
}

/** The pose that takes a place to R (x - c) + c + s, R by the rotation vector `knots` at `i`. */
export function aroundRest(
  knots: ArrayLike<number>,
  i: number,
  rest: Numbers,
  c: number,
  out: Numbers,
  o: number,
) {
  for (let a = 0; a < 3; a++) {
    twist[a] = knots[i + a]!;
    twist[3 + a] = 0;
  }
  exponential(twist, 0, 1, out, o);
  rotate(
    out[o]!,
    out[o + 1]!,
    out[o + 2]!,
    out[o + 3]!,
    rest[c]!,
    rest[c + 1]!,
    rest[c + 2]!,
    out,
    o + 4,
  );
  for (let a = 0; a < 3; a++) out[o + 4 + a] = rest[c + a]! + knots[i + 3 + a]! - out[o + 4 + a]!;
}

function multiply(
  w: number,
  x: number,
  y: number,
  z: number,
  W: number,
  X: number,
  Y: number,
  Z: number,
  out: Numbers,
  o: number,
): void {
  out[o] = w * W - x * X - y * Y - z * Z;
  out[o + 1] = w * X + x * W + y * Z - z * Y;
  out[o + 2] = w * Y - x * Z + y * W + z * X;
  out[o + 3] = w * Z + x * Y - y * X + z * W;
}

/** A vector turned by a unit quaternion. */
function rotate(
  w: number,
  x: number,
  y: number,
  z: number,
  a: number,
  b: number,
  c: number,
  out: Numbers,
  o: number,
): void {
  const tx = 2 * (y * c - z * b);
  const ty = 2 * (z * a - x * c);
  const tz = 2 * (x * b - y * a);
  out[o] = a + w * tx + y * tz - z * ty;
  out[o + 1] = b + w * ty + z * tx - x * tz;
  out[o + 2] = c + w * tz + x * ty - y * tx;
}
