import { fromHalf } from "../decode/pack";

/** 8-bit pixels of a texture that was read as bytes, half floats or floats. */
export function toBytes(texels: Uint8Array | Uint16Array | Float32Array): Uint8Array {
  if (texels instanceof Uint8Array) return texels;
  const value = texels instanceof Uint16Array ? fromHalf : (x: number) => x;
  return Uint8Array.from(texels, (x) => Math.round(255 * Math.min(1, Math.max(0, value(x)))));
}

/** Bottom row first becomes top row first, or the other way. */
export function flipRows(data: Uint8Array, width: number, height: number): Uint8Array {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    out.set(data.subarray(4 * width * y, 4 * width * (y + 1)), 4 * width * (height - 1 - y));
  }
  return out;
}
