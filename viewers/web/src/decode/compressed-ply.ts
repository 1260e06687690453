import { SceneError } from "./errors";
import { camerasOf } from "./ply-cameras";
import { type PlyElement, type PlyFile, saysAntialiased } from "./ply-header";
import {
  allocateSplats,
  coefficients,
  SH_C0,
  type SplatData,
  type SplatSource,
  setQuat,
} from "./splats";

/** Splats that share one row of ranges. */
const SHARED = 256;
const HIGHER: Record<number, number> = { 0: 0, 9: 1, 24: 2, 45: 3 };

/** PlayCanvas' compressed PLY: 16 bytes a splat, ranges per 256, harmonics as bytes. */
export function openCompressedPly(bytes: Uint8Array, file: PlyFile): SplatSource {
  const find = (name: string) => file.elements.find((e) => e.name === name);
  const vertex = find("vertex")!;
  const chunk = find("chunk");
  const sh = find("sh");
  const names = vertex.properties.map((p) => p.name).join(" ");
  const known =
    names === "packed_position packed_rotation packed_scale packed_color" && file.littleEndian;
  if (!known || vertex.stride !== 16 || !chunk) {
    throw new SceneError("format", "compressed PLY", `unknown properties: ${names}`);
  }
  if (chunk.count * SHARED < vertex.count || (chunk.stride !== 72 && chunk.stride !== 48)) {
    throw new SceneError("damaged", "compressed PLY", "its table of ranges does not fit");
  }
  const degree = HIGHER[sh?.properties.length ?? 0];
  if (
    degree === undefined ||
    (sh && (sh.count !== vertex.count || sh.stride !== sh.properties.length))
  ) {
    throw new SceneError("format", "compressed PLY", "unknown layout of harmonics");
  }
  const { view } = file;
  return {
    count: vertex.count,
    degree,
    antialiased: saysAntialiased(file.comments) === true,
    cameras: camerasOf(file.comments),
    read: (rows, wanted) => {
      const out = allocateSplats(rows.length, Math.min(degree, wanted));
      for (let i = 0; i < rows.length; i++) {
        readSplat(view, vertex, chunk, rows[i]!, i, out);
        if (sh && out.degree > 0) readHarmonics(bytes, sh, degree, rows[i]!, i, out);
      }
      return out;
    },
  };
}

function readSplat(
  view: DataView,
  vertex: PlyElement,
  chunk: PlyElement,
  row: number,
  i: number,
  out: SplatData,
): void {
  const at = vertex.start + row * vertex.stride;
  const [position, rotation, scale, color] = [0, 4, 8, 12].map((o) => view.getUint32(at + o, true));
  const ranges = chunk.start + Math.floor(row / SHARED) * chunk.stride;
  const range = (j: number, t: number) => {
    const group = Math.floor(j / 3) * 6 + (j % 3);
    const low = view.getFloat32(ranges + 4 * group, true);
    return low * (1 - t) + view.getFloat32(ranges + 4 * (group + 3), true) * t;
  };
  const K3 = 3 * coefficients(out.degree);
  for (let a = 0; a < 3; a++) {
    out.means[3 * i + a] = range(a, unit111011(position!, a));
    out.scales[3 * i + a] = Math.exp(range(3 + a, unit111011(scale!, a)));
    const t = ((color! >>> (24 - 8 * a)) & 255) / 255;
    out.sh[K3 * i + a] = ((chunk.stride === 72 ? range(6 + a, t) : t) - 0.5) / SH_C0;
  }
  out.opacities[i] = (color! & 255) / 255;
  const others = [20, 10, 0].map((s) => (((rotation! >>> s) & 1023) / 1023 - 0.5) * Math.SQRT2);
  const largest = Math.sqrt(Math.max(0, 1 - others.reduce((sum, x) => sum + x * x, 0)));
  const wxyz = [...others];
  wxyz.splice(rotation! >>> 30, 0, largest);
  setQuat(out.quats, i, wxyz[0]!, wxyz[1]!, wxyz[2]!, wxyz[3]!);
}

function unit111011(word: number, axis: number): number {
  if (axis === 0) return (word >>> 21) / 2047;
  return axis === 1 ? ((word >>> 11) & 1023) / 1023 : (word & 2047) / 2047;
}

function readHarmonics(
  bytes: Uint8Array,
  sh: PlyElement,
  stored: number,
  row: number,
  i: number,
  out: SplatData,
): void {
  const K3 = 3 * coefficients(out.degree);
  const higher = coefficients(stored) - 1;
  for (let j = 3; j < K3; j++) {
    const k = Math.floor(j / 3) - 1;
    const byte = bytes[sh.start + row * sh.stride + (j % 3) * higher + k]!;
    out.sh[K3 * i + j] = byte * (8 / 255) - 4;
  }
}
