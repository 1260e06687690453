/** Three numbers. */
export type V3 = [number, number, number];
export type V3Like = readonly [number, number, number];

export const add = (a: V3Like, b: V3Like): V3 => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
export const sub = (a: V3Like, b: V3Like): V3 => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const scale = (a: V3Like, s: number): V3 => [a[0] * s, a[1] * s, a[2] * s];
export const dot = (a: V3Like, b: V3Like): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const length = (a: V3Like): number => Math.hypot(a[0], a[1], a[2]);
export const lerp = (a: V3Like, b: V3Like, t: number): V3 => add(scale(a, 1 - t), scale(b, t));

export const cross = (a: V3Like, b: V3Like): V3 => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

/** Unit length; a zero vector stays zero. */
export function normalize(a: V3Like): V3 {
  const n = length(a);
  return n > 0 ? scale(a, 1 / n) : [0, 0, 0];
}

/** Two unit vectors that make a right-handed frame (first, second, up). */
export function frameOf(up: V3Like): [V3, V3] {
  const helper: V3 = Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const first = normalize(sub(helper, scale(up, dot(helper, up))));
  return [first, cross(up, first)];
}
