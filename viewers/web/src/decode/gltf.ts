import { SceneError } from "./errors";
import { decodeAttributes, decodeTriangles } from "./mesh/meshopt";

const MESHOPT = "EXT_meshopt_compression";
const READERS: Record<
  number,
  { bytes: number; read: (v: DataView, at: number) => number; max: number }
> = {
  5120: { bytes: 1, read: (v, at) => v.getInt8(at), max: 127 },
  5121: { bytes: 1, read: (v, at) => v.getUint8(at), max: 255 },
  5122: { bytes: 2, read: (v, at) => v.getInt16(at, true), max: 32767 },
  5123: { bytes: 2, read: (v, at) => v.getUint16(at, true), max: 65535 },
  5125: { bytes: 4, read: (v, at) => v.getUint32(at, true), max: 2 ** 32 - 1 },
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
interface Packed {
  buffer: number;
  byteOffset?: number;
  byteLength: number;
  byteStride: number;
  count: number;
  mode: string;
  filter?: string;
}
interface View {
  byteOffset?: number;
  byteLength: number;
  byteStride?: number;
  extensions?: { [MESHOPT]?: Packed };
}
interface Node {
  mesh?: number;
  children?: number[];
  matrix?: number[];
  rotation?: number[];
  translation?: number[];
  scale?: number[];
}
export interface Primitive {
  attributes: Record<string, number>;
  indices?: number;
  material?: number;
  mode?: number;
  extensions?: Record<string, { kernel?: string; extensions?: object }>;
}
interface Material {
  pbrMetallicRoughness?: {
    baseColorFactor?: number[];
    baseColorTexture?: {
      index: number;
      texCoord?: number;
      extensions?: Record<string, unknown>;
    };
  };
}
interface Texture {
  source?: number;
  extensions?: { EXT_texture_webp?: { source?: number } };
}
interface Gltf {
  scene?: number;
  scenes?: { nodes?: number[] }[];
  nodes?: Node[];
  meshes?: { primitives: Primitive[] }[];
  accessors?: Accessor[];
  bufferViews?: View[];
  extensionsUsed?: string[];
  extensionsRequired?: string[];
  materials?: Material[];
  textures?: Texture[];
  images?: { bufferView?: number }[];
}

/** A document with its binary part. */
export interface Glb {
  json: Gltf;
  binary: DataView;
  /** Views that were compressed, by their number. */
  unpacked: Map<number, DataView>;
}

/** Column i of an attribute at a row. */
export type Column = (row: number, component: number) => number;

export function bad(detail: string): SceneError {
  return new SceneError("format", "GLB", detail);
}

function damaged(detail: string): SceneError {
  return new SceneError("damaged", "GLB", detail);
}

/** The document and the binary part. Throws `format` or `damaged`. */
export function openChunks(bytes: Uint8Array): Glb {
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
    const binary = new DataView(bytes.buffer, bytes.byteOffset + start + 8, size);
    return { json, binary, unpacked: new Map() };
  } catch (error) {
    throw new SceneError("damaged", "GLB", `its JSON cannot be read (${error})`);
  }
}

/** Turned by 180 degrees about z: glTF's y up against the PLY's y down. */
const TO_PLY = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
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

/** What the default scene shows, each with its row-major matrix into the axes of the 3DGS PLY. */
export function primitivesOf(glb: Glb): { primitive: Primitive; matrix: number[] }[] {
  const { json } = glb;
  const found: { primitive: Primitive; matrix: number[] }[] = [];
  const met = new Set<number>();
  const collect = (index: number, above: number[]): void => {
    const node = json.nodes?.[index];
    // Nodes are trees: who follows others could be busy for ever.
    if (!node || met.has(index)) throw bad("its nodes cannot be followed");
    met.add(index);
    const matrix = product(above, nodeMatrix(node));
    for (const primitive of json.meshes?.[node.mesh ?? -1]?.primitives ?? [])
      found.push({ primitive, matrix });
    for (const child of node.children ?? []) collect(child, matrix);
  };
  const roots = json.scenes?.[json.scene ?? 0]?.nodes ?? (json.nodes ? [0] : []);
  for (const root of roots) collect(root, TO_PLY);
  return found;
}

/** From where a buffer view begins; decompressed where it is compressed. */
function viewOf(glb: Glb, index: number): DataView {
  const view = glb.json.bufferViews?.[index];
  if (!view) throw bad("a buffer view is missing");
  const packed = view.extensions?.[MESHOPT];
  if (!packed) {
    const start = view.byteOffset ?? 0;
    if (!natural(start) || start > glb.binary.byteLength) throw damaged("a view lies nowhere");
    return new DataView(
      glb.binary.buffer,
      glb.binary.byteOffset + start,
      glb.binary.byteLength - start,
    );
  }
  const known = glb.unpacked.get(index);
  if (known) return known;
  const bytes = unpack(glb.binary, packed);
  const found = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  glb.unpacked.set(index, found);
  return found;
}

function unpack(binary: DataView, packed: Packed): Uint8Array {
  const { byteOffset: start = 0, byteLength: length, count, byteStride: stride, mode } = packed;
  if (packed.buffer !== 0 || (packed.filter ?? "NONE") !== "NONE") {
    throw bad(`compressed with the filter ${packed.filter}, or beside the file`);
  }
  if (![start, length, count, stride].every(natural) || start + length > binary.byteLength) {
    throw damaged("a compressed view lies nowhere");
  }
  const data = new Uint8Array(binary.buffer, binary.byteOffset + start, length);
  if (mode === "ATTRIBUTES") return decodeAttributes(data, count, stride);
  if (mode !== "TRIANGLES") throw bad(`compressed as ${mode}`);
  if (count % 3 !== 0 || (stride !== 2 && stride !== 4)) throw damaged("triangles of no corners");
  const corners = decodeTriangles(data, count / 3);
  return new Uint8Array(stride === 4 ? corners.buffer : Uint16Array.from(corners).buffer);
}

/** The bytes of a buffer view. Throws `format` or `damaged`. */
export function bytesOf(glb: Glb, index: number | undefined): Uint8Array<ArrayBuffer> {
  const view = viewOf(glb, index ?? -1);
  const { byteLength } = glb.json.bufferViews![index!]!;
  if (!natural(byteLength) || byteLength > view.byteLength) throw damaged("a view is cut off");
  return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, byteLength).slice();
}

export function natural(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** `rows`: how many the attribute must have. Throws `format` or `damaged`. */
export function column(glb: Glb, index: number | undefined, name: string, rows: number): Column {
  const accessor = glb.json.accessors?.[index ?? -1];
  const view = glb.json.bufferViews?.[accessor?.bufferView ?? -1];
  if (!accessor || !view || accessor.sparse) throw bad(`attribute ${name} is missing or sparse`);
  const type = READERS[accessor.componentType];
  const width = WIDTHS[accessor.type];
  if (!type || !width) throw bad(`attribute ${name} has an unknown type`);
  const stride = view.byteStride ?? type.bytes * width;
  const binary = viewOf(glb, accessor.bufferView);
  const start = accessor.byteOffset ?? 0;
  // A stride of nothing would make any number of splats of a few bytes.
  if (!natural(start) || !natural(stride) || stride < type.bytes * width)
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
