import { SceneError } from "./errors";

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

/**
 * The header's elements with where their rows start; without those behind rows of unknown length
 * (lists). Throws `format` or `damaged`.
 */
export function parsePlyHeader(bytes: Uint8Array): PlyElement[] {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, LONGEST_HEADER));
  const end = /end_header\r?\n/.exec(head);
  if (!head.startsWith("ply") || !end) throw badPly("no PLY header");
  if (!/^format binary_little_endian /m.test(head)) throw badPly("only binary little-endian files");
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
  return elements.filter((element) => !Number.isNaN(element.start));
}
