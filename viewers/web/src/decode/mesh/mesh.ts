import { SceneError } from "../errors";
import { MAX_TOTAL_BYTES } from "../sink";

/** Triangles with a texture as plain arrays (SPEC.md, section 10); no engine, no DOM. */
export interface MeshData {
  /** Of the file; one may have several corners, which differ in their place in the texture. */
  readonly vertices: number;
  /** [C, 3] places of corners, scene units. */
  readonly positions: Float32Array<ArrayBuffer>;
  /** [C, 2] their places in the texture, 0 to 1, from its upper left corner. */
  readonly uv: Float32Array<ArrayBuffer>;
  /** [T, 3] corners, counter-clockwise as seen from outside. */
  readonly triangles: Uint32Array<ArrayBuffer>;
  readonly texture: Texels;
}

/** A picture and smaller ones of it. */
export interface Texels {
  readonly width: number;
  readonly height: number;
  /** RGBA, 8 bits, top row first: the picture, then each of half the size, down to one texel. */
  readonly levels: Uint8Array<ArrayBuffer>[];
}

/** Of a texel: the picture that the browser decodes, its pixels, and the pyramid here and on the
 * graphics card. */
const TEXEL_BYTES = 4 + 4 + 2 * (4 + 4 / 3);
/** Of a corner and of a triangle: for clicks, on the page and on the graphics card. */
const CORNER_BYTES = 4 * (3 + 5 + 5);
const TRIANGLE_BYTES = 4 * (3 + 3 + 3);

/** Refuses what a device could not hold; `bytes` of the file and of what it unpacks to. */
export function guardMesh(
  counts: { bytes: number; texels: number; corners: number; triangles: number },
  where: string,
): void {
  const bytes =
    counts.bytes +
    TEXEL_BYTES * counts.texels +
    CORNER_BYTES * counts.corners +
    TRIANGLE_BYTES * counts.triangles;
  if (!(bytes <= MAX_TOTAL_BYTES)) {
    throw new SceneError("mesh-too-big", where, `a mesh of ${Math.round(bytes / 1e6)} MB`);
  }
}

/** Coarser levels are not read: they would mix what lies apart in an atlas. */
const READ_LEVELS = 6;

/** The coarsest level that is read. */
export function lastLevel({ width, height }: Texels): number {
  return Math.min(READ_LEVELS - 1, Math.floor(Math.log2(Math.min(width, height))));
}

/** Width and height of a level. */
export function levelSize({ width, height }: Omit<Texels, "levels">, level: number) {
  const half = (side: number) => Math.max(1, Math.floor(side / 2 ** level));
  return { width: half(width), height: half(height) };
}

/** Every level is the means of 2 x 2 texels of the one before; an odd last row or column is left
 * out, as it is where the mesh was trained. */
export function withLevels(width: number, height: number, data: Uint8Array<ArrayBuffer>): Texels {
  const levels = [data];
  for (let level = 1; 2 ** level <= Math.max(width, height); level++) {
    const before = levelSize({ width, height }, level - 1);
    levels.push(halved(levels[level - 1]!, before.width, before.height));
  }
  return { width, height, levels };
}

function halved(data: Uint8Array, width: number, height: number): Uint8Array<ArrayBuffer> {
  const size = levelSize({ width, height }, 1);
  const out = new Uint8Array(4 * size.width * size.height);
  // To the next column and row; none where there is only one.
  const right = width > 1 ? 4 : 0;
  const below = height > 1 ? 4 * width : 0;
  for (let row = 0, o = 0; row < size.height; row++) {
    for (let column = 0; column < size.width; column++) {
      const at = 4 * (2 * row * width + 2 * column);
      for (let i = at; i < at + 4; i++, o++) {
        out[o] =
          (data[i]! + data[i + right]! + data[i + below]! + data[i + right + below]! + 2) >> 2;
      }
    }
  }
  return out;
}

/** Bytes of its arrays. */
export function meshBytes({ positions, uv, triangles, texture }: MeshData): number {
  return [positions, uv, triangles, ...texture.levels].reduce((sum, a) => sum + a.byteLength, 0);
}
