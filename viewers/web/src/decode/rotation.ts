type Quat = [number, number, number, number];

/** Determinant of a row-major 3 x 3 matrix. */
export function determinant(m: readonly number[]): number {
  const [a, b, c, d, e, f, g, h, i] = m as Nine;
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

type Nine = [number, number, number, number, number, number, number, number, number];

/** Product of two quaternions wxyz: the turn `b`, then `a`. */
export function quatProduct(a: ArrayLike<number>, b: ArrayLike<number>): Quat {
  const [aw, ax, ay, az] = [a[0]!, a[1]!, a[2]!, a[3]!];
  const [bw, bx, by, bz] = [b[0]!, b[1]!, b[2]!, b[3]!];
  return [
    aw * bw - ax * bx - ay * by - az * bz,
    aw * bx + ax * bw + ay * bz - az * by,
    aw * by - ax * bz + ay * bw + az * bx,
    aw * bz + ax * by - ay * bx + az * bw,
  ];
}

/** wxyz of a rotation matrix, by its largest component. */
export function quatOf(m: readonly number[]): Quat {
  const [a, b, c, d, e, f, g, h, i] = m as Nine;
  if (a + e + i > 0) {
    const s = 2 * Math.sqrt(1 + a + e + i);
    return [s / 4, (h - f) / s, (c - g) / s, (d - b) / s];
  }
  if (a >= e && a >= i) {
    const s = 2 * Math.sqrt(1 + a - e - i);
    return [(h - f) / s, s / 4, (b + d) / s, (c + g) / s];
  }
  if (e >= i) {
    const s = 2 * Math.sqrt(1 + e - a - i);
    return [(c - g) / s, (b + d) / s, s / 4, (f + h) / s];
  }
  const s = 2 * Math.sqrt(1 + i - a - e);
  return [(d - b) / s, (c + g) / s, (f + h) / s, s / 4];
}
