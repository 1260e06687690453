/**
 * Buffers of glTF's EXT_meshopt_compression, written from the extension's specification (Appendix A,
 * modes 0 and 1): its own decoder is WebAssembly, which the page's policy does not let run.
 */
import { SceneError } from "../errors";

const GROUP = 16;
const TAIL = 32;
const KEPT = 16;
const TABLE = 16;
const EXPLICIT = 15;

function damaged(what: string): SceneError {
  return new SceneError("damaged", "GLB", `compressed ${what}`);
}

/** Rows of `stride` bytes. Throws `damaged`. */
export function decodeAttributes(
  data: Uint8Array,
  count: number,
  stride: number,
): Uint8Array<ArrayBuffer> {
  const end = data.length - Math.max(TAIL, stride);
  if (stride === 0 || stride % 4 !== 0 || stride > 256) throw damaged(`rows of ${stride} bytes`);
  // Two bits for 16 rows are the least, so that few bytes cannot ask for much memory.
  if (end < 1 + stride * Math.floor(count / (4 * GROUP)) || data[0] !== 0xa0) {
    throw damaged("attributes are no such or cut off");
  }
  const out = new Uint8Array(count * stride);
  const last = data.slice(data.length - stride);
  const blockRows = Math.min(Math.floor(8192 / stride / GROUP) * GROUP, 256);
  const codes = new Uint8Array(GROUP);
  let at = 1;
  for (let start = 0; start < count; start += blockRows) {
    const size = Math.min(blockRows, count - start);
    for (let column = 0; column < stride; column++) {
      const head = at;
      at += Math.ceil(size / GROUP / 4);
      let value = last[column]!;
      for (let group = 0; group * GROUP < size; group++) {
        at = readGroup(data, at, (data[head + (group >> 2)]! >> (2 * (group & 3))) & 3, codes);
        if (at > end) throw damaged("attributes are damaged");
        const first = start + group * GROUP;
        for (let i = 0; i < GROUP && first + i < start + size; i++) {
          const code = codes[i]!;
          value = (value + (code & 1 ? ~(code >> 1) : code >> 1)) & 255;
          out[(first + i) * stride + column] = value;
        }
      }
      last[column] = value;
    }
  }
  if (at !== end) throw damaged("attributes are damaged");
  return out;
}

/** Differences of 16 bytes in 0, 2, 4 or 8 bits; where the next ones begin. */
function readGroup(data: Uint8Array, at: number, mode: number, codes: Uint8Array): number {
  if (mode === 0) {
    codes.fill(0);
    return at;
  }
  const bits = 1 << mode;
  const each = 8 / bits;
  const sentinel = mode < 3 ? (1 << bits) - 1 : 256;
  let rest = at + GROUP / each;
  for (let i = 0; i < GROUP; i++) {
    const packed = data[at + Math.floor(i / each)]!;
    let code = (packed >> (8 - bits - bits * (i % each))) & ((1 << bits) - 1);
    if (code === sentinel) code = data[rest++]!;
    codes[i] = code;
  }
  return rest;
}

/** [T, 3] corners, whichever the stream says. Throws `damaged`. */
export function decodeTriangles(data: Uint8Array, count: number): Uint32Array<ArrayBuffer> {
  // A byte for each is the least, so that few bytes cannot ask for much memory.
  if (data.length < 1 + count + TABLE || data[0] !== 0xe1) {
    throw damaged("triangles are no such or cut off");
  }
  return new Triangles(data, count).decoded();
}

/** What decoding keeps: 16 edges and 16 vertices, the next new vertex and the last one numbered. */
class Triangles {
  private readonly edges = new Uint32Array(2 * KEPT);
  private readonly recent = new Uint32Array(KEPT);
  private edge = 0;
  private vertex = 0;
  private coming = 0;
  private last = 0;
  private at: number;
  private readonly end: number;

  constructor(
    private readonly data: Uint8Array,
    private readonly count: number,
  ) {
    this.at = 1 + count;
    this.end = data.length - TABLE;
  }

  decoded(): Uint32Array<ArrayBuffer> {
    const out = new Uint32Array(3 * this.count);
    for (let t = 0; t < this.count; t++) {
      const code = this.data[1 + t]!;
      const [high, low] = [code >> 4, code & 15];
      let [a, b, c] = [0, 0, 0];
      if (high < EXPLICIT) {
        const place = 2 * ((this.edge - 1 - high) & (KEPT - 1));
        if (high >= this.edge) throw damaged("triangles are of no edge");
        [a, b] = [this.edges[place]!, this.edges[place + 1]!];
        c = this.beside(low);
      } else {
        [a, b, c] = this.apart(code);
        this.pushEdge(b, a);
      }
      this.pushEdge(c, b);
      this.pushEdge(a, c);
      out.set([a, b, c], 3 * t);
    }
    if (this.at !== this.end) throw damaged("triangles are damaged");
    return out;
  }

  /** The corner opposite to an edge. */
  private beside(low: number): number {
    if (low > 0 && low < 13) return this.kept(low + 1);
    let corner: number;
    if (low === 0) corner = this.coming++;
    else if (low === EXPLICIT) corner = this.number();
    else corner = this.last = (this.last + (low === 13 ? -1 : 1)) >>> 0;
    this.keep(corner);
    return corner;
  }

  /** Three corners, of which no edge is kept. */
  private apart(code: number): [number, number, number] {
    let pair = this.data[this.end + (code & 15)]!;
    if (code >= 0xfe) {
      pair = this.byte();
      if (pair === 0) this.coming = 0;
    }
    const [high, low] = [pair >> 4, pair & 15];
    if (code < 0xfe && (high === EXPLICIT || low === EXPLICIT)) throw damaged("triangles' table");
    const a = code === 0xff ? this.number() : this.coming++;
    const b = this.corner(high);
    const c = this.corner(low);
    this.keep(a);
    if (high === 0 || high === EXPLICIT) this.keep(b);
    if (low === 0 || low === EXPLICIT) this.keep(c);
    return [a, b, c];
  }

  private corner(how: number): number {
    if (how === EXPLICIT) return this.number();
    return how === 0 ? this.coming++ : this.kept(how);
  }

  /** The vertex kept `how` - 1 before the newest. */
  private kept(how: number): number {
    if (how > this.vertex) throw damaged("triangles are of no vertex");
    return this.recent[(this.vertex - how) & (KEPT - 1)]!;
  }

  private keep(vertex: number): void {
    this.recent[this.vertex++ & (KEPT - 1)] = vertex;
  }

  private pushEdge(a: number, b: number): void {
    const place = 2 * (this.edge++ & (KEPT - 1));
    this.edges[place] = a;
    this.edges[place + 1] = b;
  }

  private byte(): number {
    if (this.at >= this.end) throw damaged("triangles are cut off");
    return this.data[this.at++]!;
  }

  /** The difference from the last one, its sign in the lowest bit, in bytes of 7 bits. */
  private number(): number {
    let code = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      code |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    this.last = (this.last + ((code >>> 1) ^ -(code & 1))) >>> 0;
    return this.last;
  }
}
