import { decompress as zstd } from "fzstd";
import { SceneError } from "./errors";
import { rotateHarmonics } from "./harmonics";
import { determinant, quatOf, quatProduct } from "./rotation";
import {
  allocateSplats,
  coefficients,
  MAX_BUFFER_BYTES,
  type SplatData,
  type SplatSource,
  setQuat,
} from "./splats";

const MAGIC = 0x5053474e;
const HEADER_BYTES = 16;
const ANTIALIASED = 1;
const EXTENSIONS = 2;
/** What may stand beside the splats in a gzipped file; extensions take some hundred bytes. */
const MAX_EXTENSION_BYTES = 1 << 20;
/** Deflate unpacks no byte to more. */
const MOST_DEFLATED = 1032;
/** SPZ is right-up-back, the 3DGS PLY right-down-front: y and z change their signs. */
const FLIP = [1, -1, -1];
/** Signs of the harmonics under that half turn about x, without the constant one. */
const FLIP_SH = [-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1];
/** The record of Adobe's coordinate system: the axes of a file that are not right-up-back. */
const COORDINATES = 0xadbe0003;
/** By its number: where x, y and z point, left or right, up or down, front or back. */
const SYSTEMS = "RUB LDB RDB LUB RUB LDF RDF LUF RUF LBD RBD LBU RBU LFD RFD LFU RFU".split(" ");
/** In the PLY's axes. */
const POINTING: Record<string, readonly number[]> = {
  R: [1, 0, 0],
  L: [-1, 0, 0],
  D: [0, 1, 0],
  U: [0, -1, 0],
  F: [0, 0, 1],
  B: [0, 0, -1],
};

interface Header {
  version: number;
  count: number;
  degree: number;
  fractionalBits: number;
  flags: number;
}

function damaged(detail: string): SceneError {
  return new SceneError("damaged", "SPZ", detail);
}

/** Splats of an SPZ file (Niantic), versions 2 to 4. Throws `format` or `damaged`. */
export async function openSpz(bytes: Uint8Array<ArrayBuffer>): Promise<SplatSource> {
  const zipped = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const body = zipped ? await gunzip(bytes) : bytes;
  const header = parseHeader(body);
  const unpacked = unpackedBytes(header);
  if ((header.version === 4) === zipped) {
    throw new SceneError("version", "SPZ", `version ${header.version}`);
  }
  const streams = zipped ? splitStreams(body, header) : unpackStreams(body, header);
  const system = SYSTEMS[systemOf(recordsOf(body, header))]!;
  const turn = system === "RUB" ? undefined : turnFrom(system);
  const degree = Math.min(3, header.degree);
  return {
    count: header.count,
    degree,
    unpacked,
    antialiased: (header.flags & ANTIALIASED) !== 0,
    read: (rows, wanted) => {
      const data = readRows(header, streams, rows, Math.min(degree, wanted));
      turn?.(data);
      return data;
    },
  };
}

/** Extension records: behind the attributes of versions 2 and 3, before the table in version 4. */
function recordsOf(body: Uint8Array, header: Header): Uint8Array {
  if (!(header.flags & EXTENSIONS)) return new Uint8Array(0);
  if (header.version < 4) return body.subarray(HEADER_BYTES + unpackedBytes(header));
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  return body.subarray(2 * HEADER_BYTES, view.getUint32(16, true));
}

/** The number of the axes that records name, 0 where none does; others are passed over. */
function systemOf(records: Uint8Array): number {
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  for (let at = 0; at + 8 <= records.length; ) {
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size;
    if (end > records.length) break; // the first builds wrote records without their length
    if (view.getUint32(at, true) === COORDINATES) {
      const number = size === 4 ? view.getUint32(at + 8, true) : SYSTEMS.length;
      if (number >= SYSTEMS.length) throw damaged(`coordinate system ${number}`);
      return number;
    }
    at = end;
  }
  return 0;
}

/** Turns splats that were read as right-up-back into what `system` says they are, in place. */
function turnFrom(system: string): (data: SplatData) => void {
  const own = [...system].map((axis) => POINTING[axis]!);
  // own axes as columns, times the flip that reading has applied
  const m = [0, 1, 2].flatMap((r) => [0, 1, 2].map((c) => own[c]![r]! * FLIP[c]!));
  const mirrored = determinant(m) < 0;
  // A mirror is one through the origin, which turns no splat, and a turn.
  const turn = mirrored ? m.map((v) => -v) : m;
  const quat = quatOf(turn);
  return (data) => {
    const K3 = 3 * coefficients(data.degree);
    const harmonics = rotateHarmonics(turn, data.degree);
    for (let i = 0; i < data.count; i++) {
      const at = data.means.slice(3 * i, 3 * i + 3);
      for (let r = 0; r < 3; r++) {
        data.means[3 * i + r] =
          m[3 * r]! * at[0]! + m[3 * r + 1]! * at[1]! + m[3 * r + 2]! * at[2]!;
      }
      const q = data.quats.subarray(4 * i, 4 * i + 4);
      setQuat(data.quats, i, ...quatProduct(quat, q));
      if (mirrored) {
        for (let j = 3; j < K3; j++) {
          if (Math.floor(Math.sqrt(Math.floor(j / 3))) % 2 === 1) data.sh[K3 * i + j]! *= -1;
        }
      }
      harmonics(data.sh, K3 * i);
    }
  };
}

/**
 * The unpacked file. Its header, which comes first, says how long it may become: a few MB of zeros
 * would otherwise fill the memory. Throws `too-big` where it promises or holds more.
 */
async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.getReader();
  let out = new Uint8Array(HEADER_BYTES);
  let at = 0;
  let sized = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return out.subarray(0, at);
      for (let part = value; part.length > 0; ) {
        const taken = part.subarray(0, out.length - at);
        if (taken.length === 0) throw tooBig(`over ${at} bytes unpacked`);
        out.set(taken, at);
        at += taken.length;
        part = part.subarray(taken.length);
        if (sized || at < HEADER_BYTES) continue;
        sized = true;
        const grown = new Uint8Array(roomFor(parseHeader(out), bytes.length));
        grown.set(out);
        out = grown;
      }
    }
  } catch (error) {
    await reader.cancel().catch(() => {}); // a broken stream has ended already
    if (error instanceof SceneError) throw error;
    throw damaged(`its gzip stream cannot be read (${error})`);
  }
}

/** Bytes to unpack into, for a header from a gzip stream of `packed` bytes. */
function roomFor(header: Header, packed: number): number {
  const room = HEADER_BYTES + unpackedBytes(header);
  if (room > MOST_DEFLATED * packed) throw damaged("cut off");
  return room + MAX_EXTENSION_BYTES;
}

function tooBig(detail: string): SceneError {
  return new SceneError("too-big", "SPZ", detail);
}

/** Bytes of all splats. Throws `too-big` where one buffer may not hold them. */
function unpackedBytes(header: Header): number {
  const total = sizes(header).reduce((a, b) => a + b, 0);
  if (total > MAX_BUFFER_BYTES) throw tooBig(`${header.count} splats, ${total} bytes unpacked`);
  return total;
}

function parseHeader(bytes: Uint8Array): Header {
  if (bytes.length < HEADER_BYTES) throw damaged("the header is cut off");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new SceneError("format", "SPZ", "not an SPZ file");
  const header = {
    version: view.getUint32(4, true),
    count: view.getUint32(8, true),
    degree: bytes[12]!,
    fractionalBits: bytes[13]!,
    flags: bytes[14]!,
  };
  if (header.version < 2 || header.version > 4) {
    throw new SceneError("version", "SPZ", `version ${header.version}`);
  }
  if (header.degree > 4 || header.fractionalBits > 24) throw damaged("impossible header");
  return header;
}

/** Bytes of positions, opacities, colours, scales, rotations, harmonics. */
function sizes(h: Header): number[] {
  const each = [9, 1, 3, 3, h.version >= 3 ? 4 : 3, 3 * (coefficients(h.degree) - 1)];
  return each.map((bytes) => bytes * h.count);
}

function splitStreams(body: Uint8Array, header: Header): Uint8Array[] {
  const wanted = sizes(header);
  const total = unpackedBytes(header);
  if (body.length < HEADER_BYTES + total) throw damaged("cut off");
  let at = HEADER_BYTES;
  return wanted.map((size) => {
    at += size;
    return body.subarray(at - size, at);
  });
}

function unpackStreams(bytes: Uint8Array, header: Header): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 32) throw damaged("the header is cut off");
  const number = bytes[15]!;
  const table = view.getUint32(16, true);
  const wanted = sizes(header);
  const present = wanted.map((_, i) => i).filter((i) => number === wanted.length || wanted[i]! > 0);
  let at = table + 16 * number;
  if (present.length !== number || at > bytes.length)
    throw damaged("its table of streams does not fit");
  const streams = wanted.map(() => new Uint8Array(0));
  present.forEach((index, row) => {
    const packed = Number(view.getBigUint64(table + 16 * row, true));
    const size = Number(view.getBigUint64(table + 16 * row + 8, true));
    if (size !== wanted[index] || at + packed > bytes.length) throw damaged(`stream ${index}`);
    streams[index] = inflate(bytes.subarray(at, at + packed), size);
    at += packed;
  });
  return streams;
}

function inflate(packed: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  if (size === 0) return new Uint8Array(0);
  const out = new Uint8Array(size);
  try {
    const result = zstd(packed, out);
    if (result.length !== size) throw new Error(`${result.length} bytes instead of ${size}`);
  } catch (error) {
    throw damaged(`a zstd stream cannot be read (${error})`);
  }
  return out;
}

function readRows(h: Header, s: Uint8Array[], rows: Uint32Array, degree: number): SplatData {
  const out = allocateSplats(rows.length, degree);
  const [positions, opacities, colors, scales, rotations, harmonics] = s as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const K3 = 3 * coefficients(degree);
  const stored = 3 * (coefficients(h.degree) - 1);
  const unit = 2 ** -h.fractionalBits;
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    for (let a = 0; a < 3; a++) {
      const p = 9 * row + 3 * a;
      const fixed = (positions[p]! | (positions[p + 1]! << 8) | (positions[p + 2]! << 16)) << 8;
      out.means[3 * i + a] = (fixed >> 8) * unit * FLIP[a]!;
      out.scales[3 * i + a] = Math.exp(scales[3 * row + a]! / 16 - 10);
      out.sh[K3 * i + a] = (colors[3 * row + a]! / 255 - 0.5) / 0.15;
    }
    out.opacities[i] = opacities[row]! / 255;
    if (h.version >= 3) smallestThree(rotations, row, out.quats, i);
    else firstThree(rotations, row, out.quats, i);
    for (let j = 3; j < K3; j++) {
      const sign = FLIP_SH[Math.floor(j / 3) - 1]!;
      out.sh[K3 * i + j] = (sign * (harmonics[stored * row + j - 3]! - 128)) / 128;
    }
  }
  return out;
}

function smallestThree(bytes: Uint8Array, row: number, quats: Float32Array, i: number): void {
  const b = 4 * row;
  const code =
    (bytes[b]! | (bytes[b + 1]! << 8) | (bytes[b + 2]! << 16) | (bytes[b + 3]! << 24)) >>> 0;
  const others = [20, 10, 0].map((shift) => {
    const field = (code >>> shift) & 1023;
    return ((field & 512 ? -1 : 1) * (field & 511)) / (511 * Math.SQRT2);
  });
  const xyzw = [...others];
  xyzw.splice(
    code >>> 30,
    0,
    Math.sqrt(Math.max(0, 1 - others.reduce((sum, x) => sum + x * x, 0))),
  );
  setQuat(quats, i, xyzw[3]!, xyzw[0]!, -xyzw[1]!, -xyzw[2]!);
}

function firstThree(bytes: Uint8Array, row: number, quats: Float32Array, i: number): void {
  const [x, y, z] = [0, 1, 2].map((a) => bytes[3 * row + a]! / 127.5 - 1) as [
    number,
    number,
    number,
  ];
  setQuat(quats, i, Math.sqrt(Math.max(0, 1 - x * x - y * y - z * z)), x, -y, -z);
}
