import { SceneError } from "./errors";
import { rotateHarmonics } from "./harmonics";
import { quatOf, quatProduct } from "./rotation";
import { allocateSplats, coefficients, type SplatData, type SplatSource, setQuat } from "./splats";

const NAME = "KHR_gaussian_splatting";
const READERS: Record<
  number,
  { bytes: number; read: (v: DataView, at: number) => number; max: number }
> = {
  5120: { bytes: 1, read: (v, at) => v.getInt8(at), max: 127 },
  5121: { bytes: 1, read: (v, at) => v.getUint8(at), max: 255 },
  5122: { bytes: 2, read: (v, at) => v.getInt16(at, true), max: 32767 },
  5123: { bytes: 2, read: (v, at) => v.getUint16(at, true), max: 65535 },
  5126: { bytes: 4, read: (v, at) => v.getFloat32(at, true), max: 1 },
};
const WIDTHS: Record<string, number> = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

interface Accessor {
  bufferView: number;
  byteOffset?: number;
  componentType: number;
  count: number;
  type: string;
  normalized?: boolean;
  sparse?: unknown;
}
interface View {
  byteOffset?: number;
  byteLength: number;
  byteStride?: number;
}
interface Node {
  mesh?: number;
  children?: number[];
  matrix?: number[];
  rotation?: number[];
  translation?: number[];
  scale?: number[];
}
interface Primitive {
  attributes: Record<string, number>;
  extensions?: Record<string, { kernel?: string; extensions?: object }>;
}
interface Gltf {
  scene?: number;
  scenes?: { nodes?: number[] }[];
  nodes?: Node[];
  meshes?: { primitives: Primitive[] }[];
  accessors?: Accessor[];
  bufferViews?: View[];
}

/** Column i of an attribute at a row. */
type Column = (row: number, component: number) => number;

interface Part {
  count: number;
  degree: number;
  columns: Record<"position" | "rotation" | "scale" | "opacity", Column>;
  sh: Column[];
  /** Rotation (row-major 3 x 3), uniform scale and translation into the axes of the 3DGS PLY. */
  rotation: number[];
  size: number;
  translation: number[];
}

function bad(detail: string): SceneError {
  return new SceneError("format", "GLB", detail);
}

/** Splats of a GLB with KHR_gaussian_splatting, in the axes of the 3DGS PLY. */
export function openGlb(bytes: Uint8Array): SplatSource {
  const { json, binary } = parseChunks(bytes);
  const parts: Part[] = [];
  const roots = json.scenes?.[json.scene ?? 0]?.nodes ?? (json.nodes ? [0] : []);
  const met = new Set<number>();
  for (const root of roots) collect({ json, binary, parts, met }, root, IDENTITY);
  if (parts.length === 0) throw bad("no Gaussian splats (KHR_gaussian_splatting) in it");
  const degree = Math.max(...parts.map((p) => p.degree));
  const starts = [0];
  for (const part of parts) starts.push(starts.at(-1)! + part.count);
  return {
    count: starts.at(-1)!,
    degree,
    read: (rows, wanted) => readRows(parts, starts, rows, Math.min(degree, wanted)),
  };
}

function parseChunks(bytes: Uint8Array): { json: Gltf; binary: DataView } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 20 || view.getUint32(0, true) !== 0x46546c67) throw bad("not a GLB file");
  const length = view.getUint32(12, true);
  const start = 20 + length;
  if (start + 8 > bytes.length || start + 8 + view.getUint32(start, true) > bytes.length) {
    throw new SceneError("damaged", "GLB", "cut off");
  }
  try {
    const json = JSON.parse(new TextDecoder().decode(bytes.subarray(20, start))) as Gltf;
    const size = view.getUint32(start, true);
    return { json, binary: new DataView(bytes.buffer, bytes.byteOffset + start + 8, size) };
  } catch (error) {
    throw new SceneError("damaged", "GLB", `its JSON cannot be read (${error})`);
  }
}

const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

/** Row-major product. */
function product(a: number[], b: number[]): number[] {
  return IDENTITY.map((_, i) => {
    const [r, c] = [Math.floor(i / 4), i % 4];
    return [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * r + k]! * b[4 * k + c]!, 0);
  });
}

function nodeMatrix(node: Node): number[] {
  if (node.matrix) return IDENTITY.map((_, i) => node.matrix![4 * (i % 4) + Math.floor(i / 4)]!);
  const [x, y, z, w] = (node.rotation ?? [0, 0, 0, 1]) as [number, number, number, number];
  const [tx, ty, tz] = (node.translation ?? [0, 0, 0]) as [number, number, number];
  const s = node.scale ?? [1, 1, 1];
  const rows = [
    1 - 2 * (y * y + z * z),
    2 * (x * y - w * z),
    2 * (x * z + w * y),
    tx,
    2 * (x * y + w * z),
    1 - 2 * (x * x + z * z),
    2 * (y * z - w * x),
    ty,
    2 * (x * z - w * y),
    2 * (y * z + w * x),
    1 - 2 * (x * x + y * y),
    tz,
    0,
    0,
    0,
    1,
  ];
  return rows.map((v, i) => (i % 4 < 3 ? v * (i < 12 ? s[i % 4]! : 1) : v));
}

interface Walk {
  json: Gltf;
  binary: DataView;
  parts: Part[];
  met: Set<number>;
}

function collect(walk: Walk, index: number, above: number[]): void {
  const { json, binary, parts, met } = walk;
  const node = json.nodes?.[index];
  // Nodes are trees: who follows others could be busy for ever.
  if (!node || met.has(index)) throw bad("its nodes cannot be followed");
  met.add(index);
  const matrix = product(above, nodeMatrix(node));
  for (const primitive of json.meshes?.[node.mesh ?? -1]?.primitives ?? []) {
    const extension = primitive.extensions?.[NAME];
    if (!extension) continue;
    if ((extension.kernel ?? "ellipse") !== "ellipse" || extension.extensions) {
      throw bad("splats of another kernel, or compressed ones");
    }
    parts.push(openPart(json, binary, primitive, matrix));
  }
  for (const child of node.children ?? []) collect(walk, child, matrix);
}

function openPart(json: Gltf, binary: DataView, primitive: Primitive, matrix: number[]): Part {
  const count = json.accessors?.[primitive.attributes.POSITION!]?.count ?? 0;
  if (!natural(count)) throw new SceneError("damaged", "GLB", `${count} splats`);
  const get = (name: string) => column(json, binary, primitive.attributes[name], name, count);
  const sh: Column[] = [];
  let degree = 0;
  for (let l = 0; l <= 3; l++) {
    if (primitive.attributes[`${NAME}:SH_DEGREE_${l}_COEF_0`] === undefined) break;
    for (let n = 0; n < 2 * l + 1; n++) sh.push(get(`${NAME}:SH_DEGREE_${l}_COEF_${n}`));
    degree = l;
  }
  if (sh.length === 0) throw bad("no colours");
  // Both turns of 180 degrees about z: glTF's y up against the PLY's y down.
  const m = product([-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], matrix);
  const size = Math.cbrt(determinant(m));
  if (!(size > 0)) throw bad("a node mirrors its splats");
  return {
    count,
    degree,
    columns: {
      position: get("POSITION"),
      rotation: get(`${NAME}:ROTATION`),
      scale: get(`${NAME}:SCALE`),
      opacity: get(`${NAME}:OPACITY`),
    },
    sh,
    rotation: [0, 1, 2, 4, 5, 6, 8, 9, 10].map((i) => m[i]! / size),
    size,
    translation: [m[3]!, m[7]!, m[11]!],
  };
}

function determinant(m: number[]): number {
  const [a, b, c, , d, e, f, , g, h, i] = m as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

function natural(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** `rows`: how many the attribute must have. Throws `format` or `damaged`. */
function column(
  json: Gltf,
  binary: DataView,
  index: number | undefined,
  name: string,
  rows: number,
): Column {
  const accessor = json.accessors?.[index ?? -1];
  const view = json.bufferViews?.[accessor?.bufferView ?? -1];
  if (!accessor || !view || accessor.sparse) throw bad(`attribute ${name} is missing or sparse`);
  const type = READERS[accessor.componentType];
  const width = WIDTHS[accessor.type];
  if (!type || !width) throw bad(`attribute ${name} has an unknown type`);
  const stride = view.byteStride ?? type.bytes * width;
  const offsets = [view.byteOffset ?? 0, accessor.byteOffset ?? 0];
  const start = offsets[0]! + offsets[1]!;
  // A stride of nothing would make any number of splats of a few bytes.
  if (!offsets.every(natural) || !natural(stride) || stride < type.bytes * width)
    throw new SceneError("damaged", "GLB", `attribute ${name} lies nowhere`);
  if (accessor.count !== rows)
    throw new SceneError("damaged", "GLB", `attribute ${name}: ${accessor.count} of ${rows} rows`);
  if (rows > 0 && start + stride * (rows - 1) + type.bytes * width > binary.byteLength) {
    throw new SceneError("damaged", "GLB", `attribute ${name} reaches beyond the file`);
  }
  const unit = accessor.normalized ? 1 / type.max : 1;
  return (row, c) =>
    Math.max(
      accessor.normalized ? -1 : -Infinity,
      unit * type.read(binary, start + stride * row + type.bytes * c),
    );
}

function readRows(parts: Part[], starts: number[], rows: Uint32Array, degree: number): SplatData {
  const out = allocateSplats(rows.length, degree);
  const K3 = 3 * coefficients(degree);
  const turns = parts.map((p) => rotateHarmonics(p.rotation, degree));
  const quats = parts.map((p) => quatOf(p.rotation));
  for (let i = 0; i < rows.length; i++) {
    let p = 0;
    while (rows[i]! >= starts[p + 1]!) p++;
    const part = parts[p]!;
    const row = rows[i]! - starts[p]!;
    const { position, rotation, scale, opacity } = part.columns;
    const at = [0, 1, 2].map((a) => position(row, a));
    for (let a = 0; a < 3; a++) {
      const r = part.rotation;
      out.means[3 * i + a] =
        part.size * (r[3 * a]! * at[0]! + r[3 * a + 1]! * at[1]! + r[3 * a + 2]! * at[2]!) +
        part.translation[a]!;
      out.scales[3 * i + a] = part.size * scale(row, a);
    }
    out.opacities[i] = opacity(row, 0);
    const [x, y, z, w] = [0, 1, 2, 3].map((c) => rotation(row, c)) as [
      number,
      number,
      number,
      number,
    ];
    setQuat(out.quats, i, ...quatProduct(quats[p]!, [w, x, y, z]));
    for (let j = 0; j < K3; j++) out.sh[K3 * i + j] = part.sh[Math.floor(j / 3)]?.(row, j % 3) ?? 0;
    turns[p]!(out.sh, K3 * i);
  }
  return out;
}
