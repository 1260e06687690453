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

/** A 3DGS PLY of small grey splats at these places. */
export function plyOf(places: readonly V3[], size: number, colour = 0.5): Uint8Array {
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
  for (const [i, p] of places.entries())
    rows.set([...p, dc, dc, dc, 4, log, log, log, 1, 0, 0, 0], i * names.length);
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
