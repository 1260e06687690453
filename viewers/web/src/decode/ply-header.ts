import { SceneError } from "./errors";
import { MAX_BUFFER_BYTES } from "./splats";

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

/** Not a PLY file that can be read. */
export function badPly(detail: string): SceneError {
  return new SceneError("format", "PLY", detail);
}

function parseLine(line: string, elements: PlyElement[]): void {
  const words = line.trim().split(/\s+/);
  const last = elements.at(-1);
  if (words[0] === "element") {
    const count = Number(words[2]);
    if (!Number.isSafeInteger(count) || count < 0) throw badPly(`element count ${words[2]}`);
    elements.push({ name: words[1]!, count, stride: 0, properties: [], start: 0 });
  } else if (words[0] === "property" && last) {
    if (words[1] === "list") {
      if (last.name === "vertex") throw badPly("vertices with lists");
      last.stride = Number.NaN;
      return;
    }
    const size = SIZES[words[1]!];
    if (size === undefined) throw badPly(`property type ${words[1]}`);
    last.properties.push({ name: words[2]!, type: words[1]!, offset: last.stride });
    last.stride += size;
  }
}

export interface PlyFile {
  /** With where their rows start; without those behind rows of unknown length (lists). */
  elements: PlyElement[];
  comments: string[];
  view: DataView;
  littleEndian: boolean;
}

type Getter = (view: DataView, at: number, littleEndian: boolean) => number;
const GETTERS: Record<string, Getter> = {
  char: (v, at) => v.getInt8(at),
  uchar: (v, at) => v.getUint8(at),
  short: (v, at, little) => v.getInt16(at, little),
  ushort: (v, at, little) => v.getUint16(at, little),
  int: (v, at, little) => v.getInt32(at, little),
  uint: (v, at, little) => v.getUint32(at, little),
  float: (v, at, little) => v.getFloat32(at, little),
  double: (v, at, little) => v.getFloat64(at, little),
};
const OTHER_NAMES: Record<string, string> = {
  int8: "char",
  uint8: "uchar",
  int16: "short",
  uint16: "ushort",
  int32: "int",
  uint32: "uint",
  float32: "float",
  float64: "double",
};

/** Reads a property of the element's row that starts at `row`. */
export function columnOf(
  file: PlyFile,
  element: PlyElement,
  name: string,
): ((row: number) => number) | undefined {
  const property = element.properties.find((p) => p.name === name);
  if (!property) return undefined;
  const get = GETTERS[OTHER_NAMES[property.type] ?? property.type]!;
  const { view, littleEndian } = file;
  const { offset } = property;
  return (row) => get(view, row + offset, littleEndian);
}

/** The header of a PLY file, binary or text, and its data. Throws `format` or `damaged`. */
export function parsePly(bytes: Uint8Array): PlyFile {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, LONGEST_HEADER));
  const end = /end_header\r?\n/.exec(head);
  if (!head.startsWith("ply") || !end) throw badPly("no PLY header");
  const form = /^format (\S+)/m.exec(head)?.[1];
  if (!form || !/^(ascii|binary_(little|big)_endian)$/.test(form)) throw badPly(`format ${form}`);
  const elements: PlyElement[] = [];
  const comments: string[] = [];
  for (const line of head.slice(0, end.index).split("\n")) {
    if (line.startsWith("comment ")) comments.push(line.slice(8).trim());
    else parseLine(line, elements);
  }
  const start = end.index + end[0].length;
  if (form === "ascii") return { ...fromText(bytes, start, elements), comments };
  let at = start;
  for (const element of elements) {
    element.start = at;
    at += element.count * element.stride;
    if (at > bytes.length) throw cutOff(bytes.length, at);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const known = elements.filter((element) => !Number.isNaN(element.start));
  return { elements: known, comments, view, littleEndian: form === "binary_little_endian" };
}

function cutOff(found: number, expected: number): SceneError {
  return new SceneError("damaged", "PLY", `cut off: ${found} bytes, ${expected} expected`);
}

/** Bytes of the shortest number of a text: a digit and what separates it from the next. */
const LEAST_TEXT = 2;

/** The numbers of a text as doubles, element after element up to the first with lists. */
function fromText(bytes: Uint8Array, start: number, elements: PlyElement[]) {
  const known: PlyElement[] = [];
  let total = 0;
  for (const element of elements) {
    if (Number.isNaN(element.stride)) break;
    const width = element.properties.length;
    const properties = element.properties.map((p, i) => ({ ...p, type: "double", offset: 8 * i }));
    known.push({ ...element, properties, stride: 8 * width, start: 8 * total });
    total += element.count * width;
  }
  if (start + LEAST_TEXT * total > bytes.length + 1) {
    throw cutOff(bytes.length, start + LEAST_TEXT * total);
  }
  if (8 * total > MAX_BUFFER_BYTES) throw new SceneError("too-big", "PLY", `${total} numbers`);
  const view = new DataView(new ArrayBuffer(8 * total));
  let at = start;
  for (let i = 0; i < total; i++) {
    while (at < bytes.length && bytes[at]! <= 32) at++;
    const from = at;
    while (at < bytes.length && bytes[at]! > 32) at++;
    if (from === at) throw cutOff(i, total);
    view.setFloat64(8 * i, numberOf(String.fromCharCode(...bytes.subarray(from, at))), true);
  }
  return { elements: known, view, littleEndian: true };
}

function numberOf(word: string): number {
  const value = Number(word);
  if (!Number.isNaN(value) || /^[+-]?nan/i.test(word)) return value;
  const infinite = /^([+-]?)inf/i.exec(word);
  if (!infinite) throw new SceneError("damaged", "PLY", `a number ${word.slice(0, 40)}`);
  return infinite[1] === "-" ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/**
 * Whether comments say that the splats are to be drawn with antialiasing, undefined where none
 * does; the last one counts. Brush's, Postshot's, and the one proposed for the 3DGS reference.
 */
export function saysAntialiased(comments: readonly string[]): boolean | undefined {
  let said: boolean | undefined;
  for (const comment of comments) {
    const words = comment.toLowerCase().split(/[\s:=]+/);
    if (words[0] === "splatrendermode") said = words[1] === "mip" || words[1] === "antialiased";
    else if (words[0] === "antialiased" || words[0] === "antialiasing") {
      said = /^(1|true|yes|on)$/.test(words[1] ?? "");
    } else if (words[0] === "train_flags") {
      said = words.includes("antialiasing") || words.includes("antialiased");
    }
  }
  return said;
}
