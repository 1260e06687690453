/** Splat files with known boxes, made by the tests. */

export interface Made {
  bytes: Uint8Array;
  low: [number, number, number];
  high: [number, number, number];
}

type V3 = [number, number, number];

/** The same numbers from 0 to 1 always. */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

/** A 3DGS PLY of small grey splats at these places; `vary`: of many sizes and opacities. */
export function plyOf(
  places: readonly V3[],
  size: number,
  colour = 0.5,
  vary: (() => number) | null = null,
): Uint8Array {
  const names = [
    ...["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"],
    ...["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"],
  ];
  const header = `ply\nformat binary_little_endian 1.0\nelement vertex ${places.length}\n${names
    .map((name) => `property float ${name}\n`)
    .join("")}end_header\n`;
  const head = new TextEncoder().encode(header);
  const rows = new Float32Array(places.length * names.length);
  const dc = (colour - 0.5) / 0.28209479;
  const log = Math.log(size);
  const by = (range: number) => (vary ? range * (vary() - 0.5) : 0);
  for (const [i, p] of places.entries()) {
    const logs = [log + by(2), log + by(2), log + by(2)];
    rows.set([...p, dc, dc, dc, 4 + by(14), ...logs, 1, 0, 0, 0], i * names.length);
  }
  const bytes = new Uint8Array(head.length + rows.byteLength);
  bytes.set(head);
  bytes.set(new Uint8Array(rows.buffer), head.length);
  return bytes;
}

/** Splats evenly in a box, and a share of them floating far around it. */
export function boxFile(low: V3, high: V3, floaters = 0, count = 3000): Made {
  const next = randomFrom(7);
  const size = high.map((x, a) => x - low[a]!) as V3;
  const places = Array.from({ length: count }, (_, i) => {
    const far = i < floaters * count;
    return size.map((s, a) => {
      const t = next();
      return low[a]! + s * (far ? 0.5 + 16 * (t - 0.5) : t);
    }) as V3;
  });
  return { bytes: plyOf(places, Math.max(...size) / 60), low, high };
}

/**
 * A room of 6 x 2.6 x 5 with things in it, without a ceiling and, over most of a turn, without
 * walls: neither plainly inside nor plainly outside.
 */
export function halfOpenRoom(count = 12_000, opening = 0.68): Uint8Array {
  const next = randomFrom(11);
  const sides = (low: V3, high: V3, n: number): V3[] => {
    const [x, y, z] = high.map((h, a) => h - low[a]!) as V3;
    const areas = [y * z, x * z, x * y];
    const all = areas[0]! + areas[1]! + areas[2]!;
    return Array.from({ length: n }, () => {
      const row = low.map((l, a) => l + (high[a]! - l) * next()) as V3;
      const t = next() * all;
      const axis = t < areas[0]! ? 0 : t < areas[0]! + areas[1]! ? 1 : 2;
      row[axis] = next() < 0.5 ? low[axis] : high[axis];
      return row;
    });
  };
  const shell = sides([0, -2.6, 0], [6, 0, 5], count).filter(([x, y, z]) => {
    const turn = Math.abs(Math.atan2(z - 2.5, x - 3)) / Math.PI;
    return y > -2.55 && (turn > opening || y > -0.05);
  });
  const things = [
    ...sides([0.2, -0.6, 2.8], [2.2, 0, 4.8], count / 8),
    ...sides([4.4, -1.6, 4.4], [5.8, 0, 4.95], count / 8),
    ...sides([3.6, -0.8, 0.4], [4.8, 0, 1.2], count / 8),
  ];
  const places = [...shell, ...things].map((p) => p.map((v) => v + 0.07 * (next() - 0.5)) as V3);
  return plyOf(places, 0.02, 0.5, next);
}
