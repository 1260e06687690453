import { coefficients, SH_C0, type SplatData } from "./splats";

/** One drawable piece: the texels of the engine's splat textures, made in the worker. */
export interface PackedSplats {
  readonly count: number;
  readonly degree: number;
  /** Texture size; the arrays below have width * height texels. */
  readonly width: number;
  readonly height: number;
  /** RGBA16F: colour of degree 0 and opacity. */
  readonly color: Uint16Array<ArrayBuffer>;
  /** RGBA32U: position (3 float32) and rotation x, y (2 half). */
  readonly transformA: Uint32Array<ArrayBuffer>;
  /** RGBA16F: standard deviations and rotation z. */
  readonly transformB: Uint16Array<ArrayBuffer>;
  /** RGBA32U (the last of degree 2: R32U): coefficients, 11-10-11 bits against their largest. */
  readonly sh: Uint32Array<ArrayBuffer>[];
  /** [N, 3] for sorting. */
  readonly centers: Float32Array<ArrayBuffer>;
  /** Encloses all that is drawn: x, y, z smallest, then largest. */
  readonly bounds: Float32Array<ArrayBuffer>;
}

/** The kernel's end in standard deviations. */
export const EXTENT = 3.34;

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** Half-precision bits of a number, rounded to nearest even; beyond 65504 it is clamped. */
export function toHalf(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7bff;
  if (magnitude < 0x38800000) {
    if (magnitude < 0x33000000) return sign;
    const shift = 126 - (magnitude >>> 23);
    const mantissa = (magnitude & 0x7fffff) | 0x800000;
    const half = mantissa >>> shift;
    const rest = mantissa & ((1 << shift) - 1);
    const middle = 1 << (shift - 1);
    return sign | (half + (rest > middle || (rest === middle && (half & 1) === 1) ? 1 : 0));
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** The number that half-precision bits mean. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Texture size as the engine chooses it for `count` elements. */
export function textureSize(count: number): { width: number; height: number } {
  const width = Math.max(1, Math.ceil(Math.sqrt(count)));
  return { width, height: Math.max(1, Math.ceil(count / width)) };
}

/** Texels of `data`; non-finite splats become invisible. */
export function packSplats(data: SplatData): PackedSplats {
  const { count, degree } = data;
  const { width, height } = textureSize(count);
  const texels = width * height;
  const packed: PackedSplats = {
    count,
    degree,
    width,
    height,
    color: new Uint16Array(texels * 4),
    transformA: new Uint32Array(texels * 4),
    transformB: new Uint16Array(texels * 4),
    sh: shTexels(degree).map((channels) => new Uint32Array(texels * channels)),
    centers: new Float32Array(count * 3),
    bounds: new Float32Array([Infinity, Infinity, Infinity, -Infinity, -Infinity, -Infinity]),
  };
  const positions = new Float32Array(packed.transformA.buffer);
  for (let i = 0; i < count; i++) packGeometry(data, i, packed, positions);
  if (!(packed.bounds[0]! <= packed.bounds[3]!)) packed.bounds.fill(0);
  if (degree > 0) packHarmonics(data, packed.sh);
  return packed;
}

/** One splat of no size and no opacity. */
export function unseenSplat(): PackedSplats {
  return {
    count: 1,
    degree: 0,
    width: 1,
    height: 1,
    color: new Uint16Array(4),
    transformA: new Uint32Array(4),
    transformB: new Uint16Array(4),
    sh: [],
    centers: new Float32Array(3),
    bounds: new Float32Array(6),
  };
}

/** Channels of each texture of spherical harmonics. */
export function shTexels(degree: number): number[] {
  return [[], [4], [4, 4, 1], [4, 4, 4, 4]][degree]!;
}

function isFinite3(a: Float32Array, i: number): boolean {
  return Number.isFinite(a[3 * i]! + a[3 * i + 1]! + a[3 * i + 2]!);
}

function packGeometry(
  data: SplatData,
  i: number,
  out: PackedSplats,
  positions: Float32Array,
): void {
  const { means, quats, scales } = data;
  const drawn = isFinite3(means, i) && isFinite3(scales, i) && Number.isFinite(quats[4 * i]!);
  if (!drawn) return;
  const K3 = 3 * coefficients(data.degree);
  const sign = quats[4 * i]! < 0 ? -1 : 1;
  const reach = EXTENT * Math.max(scales[3 * i]!, scales[3 * i + 1]!, scales[3 * i + 2]!);
  for (let a = 0; a < 3; a++) {
    const x = means[3 * i + a]!;
    positions[4 * i + a] = x;
    out.centers[3 * i + a] = x;
    out.bounds[a] = Math.min(out.bounds[a]!, x - reach);
    out.bounds[a + 3] = Math.max(out.bounds[a + 3]!, x + reach);
    out.transformB[4 * i + a] = toHalf(scales[3 * i + a]!);
    out.color[4 * i + a] = toHalf(0.5 + SH_C0 * data.sh[K3 * i + a]!);
  }
  out.color[4 * i + 3] = toHalf(data.opacities[i]!);
  out.transformA[4 * i + 3] =
    (toHalf(sign * quats[4 * i + 1]!) | (toHalf(sign * quats[4 * i + 2]!) << 16)) >>> 0;
  out.transformB[4 * i + 3] = toHalf(sign * quats[4 * i + 3]!);
}

function packHarmonics(data: SplatData, textures: Uint32Array[]): void {
  const K = coefficients(data.degree);
  const higher = K - 1;
  const { sh } = data;
  const words = new Uint32Array(16);
  const channels = shTexels(data.degree);
  for (let i = 0; i < data.count; i++) {
    const base = 3 * (K * i + 1);
    const end = base + 3 * higher;
    let max = 0;
    for (let j = base; j < end; j++) max = Math.max(max, Math.abs(sh[j]!));
    // A scale of 0 would be divided by; a splat without harmonics keeps words that decode to 0.
    if (!(max > 0 && max < Infinity)) continue;
    scratch[0] = max;
    words[0] = scratchBits[0]!;
    // x / max is within -1..1 and becomes one of `levels` + 1 numbers.
    const scale = 0.5 / max;
    for (let k = 0, j = base; k < higher; k++, j += 3) {
      const r = ((sh[j]! * scale + 0.5) * 2047 + 0.5) | 0;
      const g = ((sh[j + 1]! * scale + 0.5) * 1023 + 0.5) | 0;
      const b = ((sh[j + 2]! * scale + 0.5) * 2047 + 0.5) | 0;
      words[k + 1] = (r << 21) | (g << 11) | b;
    }
    let word = 0;
    for (let t = 0; t < channels.length; t++) {
      const width = channels[t]!;
      const texture = textures[t]!;
      for (let c = 0; c < width; c++) texture[width * i + c] = words[word++]!;
    }
  }
}

/** Buffers that may be handed over instead of copied. */
export function transferables(packed: PackedSplats): ArrayBuffer[] {
  const arrays = [
    packed.color,
    packed.transformA,
    packed.transformB,
    packed.centers,
    packed.bounds,
  ];
  return [...arrays, ...packed.sh].map((a) => a.buffer);
}

/** Bytes on the GPU and in the sorter for one piece. */
export function packedBytes(packed: PackedSplats): number {
  return transferables(packed).reduce((sum, b) => sum + b.byteLength, 0);
}
