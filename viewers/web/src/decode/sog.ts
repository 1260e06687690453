import { SceneError } from "./errors";
import { pictureSize } from "./picture-size";
import { MAX_TOTAL_BYTES } from "./sink";
import {
  allocateSplats,
  coefficients,
  MAX_BUFFER_BYTES,
  type SplatData,
  type SplatSource,
  setQuat,
} from "./splats";
import { readZip } from "./zip";

export interface Picture {
  width: number;
  height: number;
  /** RGBA, not premultiplied, no colour conversion. */
  data: Uint8Array<ArrayBuffer>;
}
export type PictureDecoder = (bytes: Uint8Array<ArrayBuffer>) => Promise<Picture>;
export type MemberReader = (name: string) => Promise<Uint8Array<ArrayBuffer>>;

interface Part {
  files: string[];
  codebook?: number[];
  mins?: number[] | number;
  maxs?: number[] | number;
  bands?: number;
}
interface Meta {
  version: number;
  count: number;
  antialias?: boolean;
  means: Part & { mins: number[]; maxs: number[] };
  scales: Part;
  quats: Part;
  sh0: Part;
  shN?: Part;
}

const ROW = 64;
const FIRST_TAG = 252;
/** Pixels of a picture for each splat: writers that take powers of two need less than 4. */
const MOST_PIXELS = 4;
/** Centroids have at most 960 x 1024 pixels, however few splats there are. */
const ALWAYS_ALLOWED = 1 << 20;

/** Splats of a SOG file (a ZIP) or of an unpacked one through `read`; version 2 only. */
export async function openSog(
  bytes: Uint8Array<ArrayBuffer>,
  decode: PictureDecoder,
  read?: MemberReader,
): Promise<SplatSource> {
  const zipped = bytes[0] === 0x50;
  const members = zipped ? readZip(bytes) : null;
  const metaBytes = members ? members.get("meta.json") : bytes;
  if (!metaBytes) throw new SceneError("format", "SOG", "no meta.json in it");
  const meta = parseMeta(metaBytes);
  let unpacked = 0;
  let beside = 0;
  const load = async (name: string): Promise<Uint8Array<ArrayBuffer>> => {
    const data = members ? members.get(name) : await read?.(name);
    if (!data) throw new SceneError("damaged", "SOG", `${name} is missing`);
    if (!members) beside += data.length;
    unpacked += checkedPixels(name, data, meta.count) * 4;
    return data;
  };
  const parts = [meta.means, meta.scales, meta.quats, meta.sh0, meta.shN];
  const packed = await Promise.all(parts.map((p) => Promise.all((p?.files ?? []).map(load))));
  // Before any is decoded: one colour on 16,383 x 16,383 pixels is a file of a few bytes.
  if (unpacked > MAX_TOTAL_BYTES) throw tooBig(`pictures of ${unpacked} bytes`);
  const pictures = await Promise.all(packed.map((files) => Promise.all(files.map(decode))));
  for (const picture of [...pictures.slice(0, 4).flat(), ...pictures[4]!.slice(1)]) {
    if (picture.width * picture.height < meta.count) {
      throw new SceneError("damaged", "SOG", "a picture is smaller than the scene");
    }
  }
  const degree = meta.shN ? (meta.shN.bands ?? bandsOf(pictures[4]![0]!)) : 0;
  return {
    count: meta.count,
    degree,
    unpacked,
    beside,
    antialiased: meta.antialias === true,
    read: (rows, wanted) => readRows(meta, pictures, rows, degree, Math.min(degree, wanted)),
  };
}

function tooBig(detail: string): SceneError {
  return new SceneError("too-big", "SOG", detail);
}

/** Pixels that the picture declares. Throws `too-big` for more than `count` splats can need. */
function checkedPixels(name: string, data: Uint8Array, count: number): number {
  const size = pictureSize(data);
  if (!size) throw new SceneError("format", "SOG", `${name} is no WebP or PNG`);
  const pixels = size.width * size.height;
  if (pixels > Math.max(ALWAYS_ALLOWED, MOST_PIXELS * count) || 4 * pixels > MAX_BUFFER_BYTES)
    throw tooBig(`${name} has ${size.width} x ${size.height} pixels for ${count} splats`);
  return pixels;
}

function parseMeta(bytes: Uint8Array): Meta {
  let meta: Meta;
  try {
    meta = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new SceneError("damaged", "SOG", `meta.json: ${error}`);
  }
  if (meta?.version !== 2 || !meta.means?.files) {
    throw new SceneError("version", "SOG", `version ${meta?.version}, 2 can be shown`);
  }
  if (!Number.isSafeInteger(meta.count) || meta.count < 0)
    throw new SceneError("damaged", "SOG", `${meta.count} splats`);
  return meta;
}

function bandsOf(centroids: Picture): number {
  return { 192: 1, 512: 2, 960: 3 }[centroids.width] ?? 0;
}

function readRows(
  meta: Meta,
  pictures: Picture[][],
  rows: Uint32Array,
  stored: number,
  degree: number,
): SplatData {
  const out = allocateSplats(rows.length, degree);
  const [means, scales, quats, sh0, shN] = pictures.map((p) => p.map((x) => x.data));
  const { mins, maxs } = meta.means;
  const K3 = 3 * coefficients(degree);
  const higher = coefficients(stored) - 1;
  for (let i = 0; i < rows.length; i++) {
    const at = 4 * rows[i]!;
    for (let a = 0; a < 3; a++) {
      const code = (means![1]![at + a]! << 8) | means![0]![at + a]!;
      const log = mins[a]! + (maxs[a]! - mins[a]!) * (code / 65535);
      out.means[3 * i + a] = Math.sign(log) * Math.expm1(Math.abs(log));
      out.scales[3 * i + a] = Math.exp(meta.scales.codebook![scales![0]![at + a]!]!);
      out.sh[K3 * i + a] = meta.sh0.codebook![sh0![0]![at + a]!]!;
    }
    out.opacities[i] = sh0![0]![at + 3]! / 255;
    unpackQuat(quats![0]!, at, out.quats, i);
    if (degree > 0) {
      const label = shN![1]![at]! | (shN![1]![at + 1]! << 8);
      const u = (label % ROW) * higher + Math.floor(label / ROW) * pictures[4]![0]!.width;
      for (let j = 3; j < K3; j++) {
        const k = Math.floor(j / 3) - 1;
        out.sh[K3 * i + j] = meta.shN!.codebook![shN![0]![4 * (u + k) + (j % 3)]!]!;
      }
    }
  }
  return out;
}

function unpackQuat(pixels: Uint8Array, at: number, quats: Float32Array, i: number): void {
  const others = [0, 1, 2].map((a) => (pixels[at + a]! / 255 - 0.5) * Math.SQRT2);
  const largest = Math.sqrt(Math.max(0, 1 - others.reduce((sum, x) => sum + x * x, 0)));
  // Stored wxyz without the largest, whose number the alpha channel names.
  const wxyz = [...others];
  wxyz.splice(pixels[at + 3]! - FIRST_TAG, 0, largest);
  setQuat(quats, i, wxyz[0]!, wxyz[1]!, wxyz[2]!, wxyz[3]!);
}
