import { openCompressedPly } from "./compressed-ply";
import { camerasOf } from "./ply-cameras";
import {
  badPly,
  columnOf,
  type PlyElement,
  type PlyFile,
  parsePly,
  saysAntialiased,
} from "./ply-header";
import {
  allocateSplats,
  coefficients,
  type SplatData,
  type SplatSource,
  setQuat,
  sigmoid,
} from "./splats";

const NEEDED = [
  "x",
  "y",
  "z",
  "f_dc_0",
  "f_dc_1",
  "f_dc_2",
  "opacity",
  "scale_0",
  "scale_1",
  "rot_0",
  "rot_1",
  "rot_2",
  "rot_3",
];
/** How much thinner than wide a splat of 2DGS, which has two sizes, is drawn. */
const FLAT = 1e-3;

type Column = (row: number) => number;

/** A file's columns, and what it says of how they are drawn. */
interface Columns {
  position: Column[];
  scale: Column[];
  rotation: Column[];
  opacity: Column;
  sh: Column[];
  /** Standard deviation of mip-splatting's 3D smoothing filter. */
  filter: Column | undefined;
}

/** Degree of the harmonics, 0 to 7. */
function degreeOf(vertex: PlyElement): number {
  const rest = vertex.properties.filter((p) => p.name.startsWith("f_rest_")).length;
  const degree = Math.round(Math.sqrt(rest / 3 + 1)) - 1;
  if (rest !== 3 * (coefficients(degree) - 1) || degree > 7)
    throw badPly(`${rest} f_rest properties`);
  return degree;
}

/**
 * The splats of a 3DGS PLY file, of any encoding and types; harmonics above degree 3 are left out,
 * two sizes (2DGS) make flat splats. Throws `format` or `damaged`.
 */
export function openPly(bytes: Uint8Array): SplatSource {
  const file = parsePly(bytes);
  const vertex = file.elements.find((e) => e.name === "vertex");
  if (!vertex) throw badPly("no vertices");
  if (vertex.properties.some((p) => p.name === "packed_position")) {
    return openCompressedPly(bytes, file);
  }
  const stored = degreeOf(vertex);
  const degree = Math.min(3, stored);
  const columns = columnsOf(file, vertex, stored);
  return {
    count: vertex.count,
    degree,
    antialiased: saysAntialiased(file.comments) ?? columns.filter !== undefined,
    cameras: camerasOf(file.comments),
    read: (rows, wanted) => readRows(vertex, rows, columns, Math.min(degree, wanted)),
  };
}

function columnsOf(file: PlyFile, vertex: PlyElement, stored: number): Columns {
  const at = (name: string) => {
    const column = columnOf(file, vertex, name);
    if (!column) throw badPly(`no property ${name}: not a file of Gaussian splats`);
    return column;
  };
  for (const name of NEEDED) at(name);
  const rest = coefficients(stored) - 1;
  const sh = Array.from({ length: 3 * coefficients(Math.min(3, stored)) }, (_, j) => {
    const k = Math.floor(j / 3);
    return at(k === 0 ? `f_dc_${j}` : `f_rest_${(j % 3) * rest + k - 1}`);
  });
  const thick = columnOf(file, vertex, "scale_2");
  return {
    position: ["x", "y", "z"].map(at),
    scale: [at("scale_0"), at("scale_1"), ...(thick ? [thick] : [])],
    rotation: ["rot_0", "rot_1", "rot_2", "rot_3"].map(at),
    opacity: at("opacity"),
    sh,
    filter: columnOf(file, vertex, "filter_3D"),
  };
}

function readRows(
  vertex: PlyElement,
  rows: Uint32Array,
  { position, scale, rotation, opacity, sh, filter }: Columns,
  degree: number,
): SplatData {
  const out = allocateSplats(rows.length, degree);
  const K3 = 3 * coefficients(degree);
  for (let i = 0; i < rows.length; i++) {
    const row = vertex.start + rows[i]! * vertex.stride;
    const sizes = scale.map((read) => Math.exp(read(row)));
    if (sizes.length < 3) sizes.push(FLAT * Math.min(sizes[0]!, sizes[1]!));
    out.opacities[i] = sigmoid(opacity(row));
    if (filter) out.opacities[i]! *= smooth(sizes, filter(row));
    for (let a = 0; a < 3; a++) {
      out.means[3 * i + a] = position[a]!(row);
      out.scales[3 * i + a] = sizes[a]!;
    }
    const [w, x, y, z] = rotation.map((read) => read(row));
    setQuat(out.quats, i, w!, x!, y!, z!);
    for (let k = 0; k < K3; k++) out.sh[K3 * i + k] = sh[k]!(row);
    if (!drawable(out, i, K3)) erase(out, i, K3);
  }
  return out;
}

/**
 * Widens a splat by the filter, sizes adding in squares, and returns what its opacity is multiplied
 * by: the share of the volumes (Yu et al., Mip-Splatting, CVPR 2024, equation 9).
 */
function smooth(sizes: number[], filter: number): number {
  let share = 1;
  for (let a = 0; a < 3; a++) {
    const wide = Math.hypot(sizes[a]!, filter);
    share *= wide > 0 ? sizes[a]! / wide : 1;
    sizes[a] = wide;
  }
  return share;
}

/** Whether all values of a splat are numbers. */
function drawable(out: SplatData, i: number, K3: number): boolean {
  let sum = out.opacities[i]!;
  for (let a = 0; a < 3; a++) sum += out.means[3 * i + a]! + out.scales[3 * i + a]!;
  for (let a = 0; a < 4; a++) sum += out.quats[4 * i + a]!;
  for (let k = 0; k < K3; k++) sum += out.sh[K3 * i + k]!;
  return Number.isFinite(sum);
}

/** A splat that nothing can draw (`--drop-invalid` of `scene4d convert`) becomes one unseen. */
function erase(out: SplatData, i: number, K3: number): void {
  out.opacities[i] = 0;
  out.means.fill(0, 3 * i, 3 * i + 3);
  out.scales.fill(0, 3 * i, 3 * i + 3);
  out.sh.fill(0, K3 * i, K3 * i + K3);
  setQuat(out.quats, i, 1, 0, 0, 0);
}
