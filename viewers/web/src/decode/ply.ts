import { openCompressedPly } from "./compressed-ply";
import { badPly, type PlyElement, parsePlyHeader } from "./ply-header";
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
  "scale_2",
  "rot_0",
  "rot_1",
  "rot_2",
  "rot_3",
];
const DEGREES: Record<number, number> = { 0: 0, 9: 1, 24: 2, 45: 3 };

function degreeOf(vertex: PlyElement): number {
  const rest = vertex.properties.filter((p) => p.name.startsWith("f_rest_")).length;
  const degree = DEGREES[rest];
  if (degree === undefined) throw badPly(`${rest} f_rest properties`);
  return degree;
}

/** The splats of a 3DGS PLY file. Throws `format` or `damaged`. */
export function openPly(bytes: Uint8Array): SplatSource {
  const elements = parsePlyHeader(bytes);
  const vertex = elements.find((e) => e.name === "vertex");
  if (!vertex) throw badPly("no vertices");
  if (vertex.properties.some((p) => p.name === "packed_position")) {
    return openCompressedPly(bytes, elements);
  }
  const offsets = new Map(vertex.properties.map((p) => [p.name, p.offset]));
  for (const name of NEEDED) {
    if (!offsets.has(name)) throw badPly(`no property ${name}: not a file of Gaussian splats`);
  }
  if (vertex.properties.some((p) => !/^float(32)?$/.test(p.type) && wanted(p.name))) {
    throw badPly("splat properties that are not 32-bit floats");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const degree = degreeOf(vertex);
  return {
    count: vertex.count,
    degree,
    read: (rows, wantedDegree) =>
      readRows(view, vertex, rows, offsets, degree, Math.min(degree, wantedDegree)),
  };
}

function wanted(name: string): boolean {
  return NEEDED.includes(name) || name.startsWith("f_rest_");
}

function readRows(
  view: DataView,
  vertex: PlyElement,
  rows: Uint32Array,
  offsets: ReadonlyMap<string, number>,
  stored: number,
  degree: number,
): SplatData {
  const out = allocateSplats(rows.length, degree);
  const at = (name: string) => offsets.get(name)!;
  const position = ["x", "y", "z"].map(at);
  const scale = ["scale_0", "scale_1", "scale_2"].map(at);
  const rotation = ["rot_0", "rot_1", "rot_2", "rot_3"].map(at);
  const opacity = at("opacity");
  const K3 = 3 * coefficients(degree);
  const rest = coefficients(stored) - 1;
  const sh = Array.from({ length: K3 }, (_, j) => {
    const k = Math.floor(j / 3);
    return k === 0 ? at(`f_dc_${j}`) : at(`f_rest_${(j % 3) * rest + k - 1}`);
  });
  for (let i = 0; i < rows.length; i++) {
    const row = vertex.start + rows[i]! * vertex.stride;
    for (let a = 0; a < 3; a++) {
      out.means[3 * i + a] = view.getFloat32(row + position[a]!, true);
      out.scales[3 * i + a] = Math.exp(view.getFloat32(row + scale[a]!, true));
    }
    const [w, x, y, z] = rotation.map((o) => view.getFloat32(row + o, true));
    setQuat(out.quats, i, w!, x!, y!, z!);
    out.opacities[i] = sigmoid(view.getFloat32(row + opacity, true));
    for (let k = 0; k < K3; k++) out.sh[K3 * i + k] = view.getFloat32(row + sh[k]!, true);
  }
  return out;
}
