import { SceneError } from "./errors";
import { allocateSplats, CHUNK_SPLATS, type SplatData, setQuat, sigmoid } from "./splats";

export interface PlyProperty {
  name: string;
  type: string;
  offset: number;
}

export interface PlyElement {
  name: string;
  count: number;
  stride: number;
  properties: PlyProperty[];
  /** Where its first row starts in the file. */
  start: number;
}

const SIZES: Record<string, number> = {
  char: 1,
  int8: 1,
  uchar: 1,
  uint8: 1,
  short: 2,
  int16: 2,
  ushort: 2,
  uint16: 2,
  int: 4,
  int32: 4,
  uint: 4,
  uint32: 4,
  float: 4,
  float32: 4,
  double: 8,
  float64: 8,
};
const LONGEST_HEADER = 65536;

function bad(detail: string): SceneError {
  return new SceneError("format", "PLY", detail);
}

function parseLine(line: string, elements: PlyElement[]): void {
  const words = line.trim().split(/\s+/);
  const last = elements.at(-1);
  if (words[0] === "element") {
    const count = Number(words[2]);
    if (!Number.isSafeInteger(count) || count < 0) throw bad(`element count ${words[2]}`);
    elements.push({ name: words[1]!, count, stride: 0, properties: [], start: 0 });
  } else if (words[0] === "property" && last) {
    if (words[1] === "list") {
      if (last.name === "vertex") throw bad("vertices with lists");
      last.stride = Number.NaN;
      return;
    }
    const size = SIZES[words[1]!];
    if (size === undefined) throw bad(`property type ${words[1]}`);
    last.properties.push({ name: words[2]!, type: words[1]!, offset: last.stride });
    last.stride += size;
  }
}

/** The header's elements with where their rows start. Throws `format` or `damaged`. */
export function parsePlyHeader(bytes: Uint8Array): PlyElement[] {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, LONGEST_HEADER));
  const end = /end_header\r?\n/.exec(head);
  if (!head.startsWith("ply") || !end) throw bad("no PLY header");
  if (!/^format binary_little_endian /m.test(head)) throw bad("only binary little-endian files");
  const elements: PlyElement[] = [];
  for (const line of head.slice(0, end.index).split("\n")) parseLine(line, elements);
  let start = end.index + end[0].length;
  for (const element of elements) {
    element.start = start;
    start += element.count * element.stride;
    if (start > bytes.length) {
      throw new SceneError("damaged", "PLY", `cut off: ${bytes.length} bytes, ${start} expected`);
    }
  }
  return elements;
}

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
  if (degree === undefined) throw bad(`${rest} f_rest properties`);
  return degree;
}

/** The splats of a 3DGS PLY file, piece by piece. Throws `format` or `damaged`. */
export function* decodePly(bytes: Uint8Array): Generator<SplatData> {
  const vertex = parsePlyHeader(bytes).find((e) => e.name === "vertex");
  if (!vertex) throw bad("no vertices");
  const offsets = new Map(vertex.properties.map((p) => [p.name, p.offset]));
  for (const name of NEEDED) {
    if (!offsets.has(name)) throw bad(`no property ${name}: not a file of Gaussian splats`);
  }
  if (vertex.properties.some((p) => SIZES[p.type] === 8)) throw bad("double-precision properties");
  const degree = degreeOf(vertex);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let first = 0; first < vertex.count; first += CHUNK_SPLATS) {
    const count = Math.min(CHUNK_SPLATS, vertex.count - first);
    yield readRows(
      view,
      vertex.start + first * vertex.stride,
      vertex.stride,
      count,
      offsets,
      degree,
    );
  }
}

function readRows(
  view: DataView,
  start: number,
  stride: number,
  count: number,
  offsets: ReadonlyMap<string, number>,
  degree: number,
): SplatData {
  const out = allocateSplats(count, degree);
  const at = (name: string) => offsets.get(name)!;
  const position = ["x", "y", "z"].map(at);
  const scale = ["scale_0", "scale_1", "scale_2"].map(at);
  const rotation = ["rot_0", "rot_1", "rot_2", "rot_3"].map(at);
  const K = (degree + 1) ** 2;
  const sh = new Array<number>(3 * K);
  for (let c = 0; c < 3; c++) {
    sh[c] = at(`f_dc_${c}`);
    for (let k = 1; k < K; k++) sh[3 * k + c] = at(`f_rest_${c * (K - 1) + k - 1}`);
  }
  const opacity = at("opacity");
  for (let i = 0; i < count; i++) {
    const row = start + i * stride;
    const read = (offset: number) => view.getFloat32(row + offset, true);
    for (let a = 0; a < 3; a++) {
      out.means[3 * i + a] = read(position[a]!);
      out.scales[3 * i + a] = Math.exp(read(scale[a]!));
    }
    setQuat(
      out.quats,
      i,
      read(rotation[0]!),
      read(rotation[1]!),
      read(rotation[2]!),
      read(rotation[3]!),
    );
    out.opacities[i] = sigmoid(read(opacity));
    for (let k = 0; k < 3 * K; k++) out.sh[3 * K * i + k] = read(sh[k]!);
  }
  return out;
}
