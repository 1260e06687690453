import { SceneError } from "./errors";
import type { CaptureCamera } from "./protocol";

/** The zeroth spherical harmonic. */
export const SH_C0 = 0.28209479177387814;
/** No buffer of the player is larger: iOS kills tabs above it. */
export const MAX_BUFFER_BYTES = 1e9;
/** Splats of one drawable piece; each is packed and uploaded on its own, so no frame stalls. */
export const CHUNK_SPLATS = 32768;

/** N Gaussians as plain arrays, activated and ready to draw; no engine, no DOM. */
export interface SplatData {
  readonly count: number;
  /** Spherical harmonics' degree, 0 to 3; K = (degree + 1)^2. */
  readonly degree: number;
  /** [N, 3] scene units. */
  readonly means: Float32Array;
  /** [N, 4] wxyz, unit length. */
  readonly quats: Float32Array;
  /** [N, 3] standard deviations. */
  readonly scales: Float32Array;
  /** [N] 0 to 1. */
  readonly opacities: Float32Array;
  /** [N, K, 3] coefficients, as in 3DGS: colour = 0.5 + sum of basis times coefficient. */
  readonly sh: Float32Array;
}

export function coefficients(degree: number): number {
  return (degree + 1) * (degree + 1);
}

/** Bytes that N splats of a degree take as SplatData. */
export function splatBytes(count: number, degree: number): number {
  return count * 4 * (11 + 3 * coefficients(degree));
}

/** Zeroed arrays. Throws `too-big` where one array would pass 1 GB. */
export function allocateSplats(count: number, degree: number): SplatData {
  const widest = count * 4 * Math.max(4, 3 * coefficients(degree));
  if (!(widest <= MAX_BUFFER_BYTES)) {
    throw new SceneError("too-big", `${count} splats`, `${widest} bytes in one array`);
  }
  return {
    count,
    degree,
    means: new Float32Array(count * 3),
    quats: new Float32Array(count * 4),
    scales: new Float32Array(count * 3),
    opacities: new Float32Array(count),
    sh: new Float32Array(count * coefficients(degree) * 3),
  };
}

export function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** Writes a quaternion wxyz at splat i with unit length; a zero one becomes the identity. */
export function setQuat(
  quats: Float32Array,
  i: number,
  w: number,
  x: number,
  y: number,
  z: number,
): void {
  const norm = Math.hypot(w, x, y, z);
  const s = norm > 0 ? 1 / norm : 0;
  quats[4 * i] = norm > 0 ? w * s : 1;
  quats[4 * i + 1] = x * s;
  quats[4 * i + 2] = y * s;
  quats[4 * i + 3] = z * s;
}

/** A scene's splats with random access; nothing is activated before it is asked for. */
export interface SplatSource {
  readonly count: number;
  readonly degree: number;
  /** Bytes that it keeps beside the file: what it has unpacked. */
  readonly unpacked?: number;
  /** Bytes of the files beside the first one that it was read from. */
  readonly beside?: number;
  /** Trained with antialiasing, where the file can say so. */
  readonly antialiased?: boolean;
  /** From where it was seen, where the file says so. */
  readonly cameras?: CaptureCamera[];
  /** Splats of the given rows, with harmonics up to `degree` at most. */
  read(rows: Uint32Array, degree: number): SplatData;
}

/** Some of the splats. */
export function rowsOf(data: SplatData, rows: Uint32Array): SplatData {
  const out = allocateSplats(rows.length, data.degree);
  const width = 3 * coefficients(data.degree);
  for (let i = 0; i < rows.length; i++) {
    const r = rows[i]!;
    out.means.set(data.means.subarray(3 * r, 3 * r + 3), 3 * i);
    out.quats.set(data.quats.subarray(4 * r, 4 * r + 4), 4 * i);
    out.scales.set(data.scales.subarray(3 * r, 3 * r + 3), 3 * i);
    out.opacities[i] = data.opacities[r]!;
    out.sh.set(data.sh.subarray(width * r, width * (r + 1)), width * i);
  }
  return out;
}

/** Rows first .. first + count - 1. */
export function rowRange(first: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => first + i);
}
