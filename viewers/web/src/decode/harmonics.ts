/** Real spherical harmonics of degrees 1 to 3 in the order and with the signs of 3DGS. */
export function shBasis(x: number, y: number, z: number): number[] {
  const c1 = 0.4886025119029199;
  const c2 = 1.0925484305920792;
  const c3 = 0.5900435899266435;
  const d3 = 2.890611442640554;
  const e3 = 0.4570457994644658;
  return [
    0.28209479177387814,
    -c1 * y,
    c1 * z,
    -c1 * x,
    c2 * x * y,
    -c2 * y * z,
    0.31539156525252005 * (3 * z * z - 1),
    -c2 * x * z,
    0.5 * c2 * (x * x - y * y),
    -c3 * y * (3 * x * x - y * y),
    d3 * x * y * z,
    -e3 * y * (5 * z * z - 1),
    0.3731763325901154 * z * (5 * z * z - 3),
    -e3 * x * (5 * z * z - 1),
    0.5 * d3 * z * (x * x - y * y),
    -c3 * x * (x * x - 3 * y * y),
  ];
}

/**
 * Turns [K, 3] coefficients in place so that the scene rotated by `m` (row-major 3 x 3) shows in
 * direction m d what it showed in d. Band matrices are fitted over many directions.
 */
export function rotateHarmonics(
  m: readonly number[],
  degree: number,
): (sh: Float32Array, offset: number) => void {
  const identity = m.every((v, i) => Math.abs(v - (i % 4 === 0 ? 1 : 0)) < 1e-7);
  if (identity || degree === 0) return () => {};
  const bands = Array.from({ length: degree }, (_, i) => bandMatrix(m, i + 1));
  return (sh, offset) => {
    bands.forEach((matrix, index) => {
      const l = index + 1;
      const size = 2 * l + 1;
      const start = offset + 3 * l * l;
      const old = sh.slice(start, start + 3 * size);
      for (let r = 0; r < size; r++) {
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let k = 0; k < size; k++) sum += matrix[r]![k]! * old[3 * k + c]!;
          sh[start + 3 * r + c] = sum;
        }
      }
    });
  };
}

/** Well-spread directions; over them the harmonics are nearly orthogonal. */
const DIRECTIONS = Array.from({ length: 64 }, (_, i) => {
  const z = 1 - (2 * i + 1) / 64;
  const phi = 2.399963229728653 * i;
  const s = Math.sqrt(1 - z * z);
  return [s * Math.cos(phi), s * Math.sin(phi), z] as const;
});

/** Least squares for new of Y(m d) . new = Y(d) . old, over all directions and every unit old. */
function bandMatrix(m: readonly number[], l: number): number[][] {
  const size = 2 * l + 1;
  const left = Array.from({ length: size }, () => new Array<number>(size).fill(0));
  const right = Array.from({ length: size }, () => new Array<number>(size).fill(0));
  const band = (x: number, y: number, z: number) =>
    shBasis(x, y, z).slice(l * l, (l + 1) * (l + 1));
  for (const [x, y, z] of DIRECTIONS) {
    const at = (r: number) => m[3 * r]! * x + m[3 * r + 1]! * y + m[3 * r + 2]! * z;
    const turned = band(at(0), at(1), at(2));
    const plain = band(x, y, z);
    for (let r = 0; r < size; r++) {
      for (let c = 0; c < size; c++) {
        left[r]![c]! += turned[r]! * turned[c]!;
        right[r]![c]! += turned[r]! * plain[c]!;
      }
    }
  }
  return solve(left, right);
}

/** X of A X = B by elimination with pivoting; small and square. */
export function solve(a: number[][], b: number[][]): number[][] {
  const n = a.length;
  const rows = a.map((row, i) => [...row, ...b[i]!]);
  for (let col = 0; col < n; col++) {
    let pivot = col;
    for (let r = col + 1; r < n; r++) {
      if (Math.abs(rows[r]![col]!) > Math.abs(rows[pivot]![col]!)) pivot = r;
    }
    [rows[col], rows[pivot]] = [rows[pivot]!, rows[col]!];
    const lead = rows[col]!;
    for (let r = 0; r < n; r++) {
      if (r === col) continue;
      const factor = rows[r]![col]! / lead[col]!;
      rows[r] = rows[r]!.map((v, i) => v - factor * lead[i]!);
    }
  }
  return rows.map((row, i) => row.slice(n).map((v) => v / row[i]!));
}
