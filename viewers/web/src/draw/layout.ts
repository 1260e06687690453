import type { PinholeCamera } from "../camera/projection";
import { type FieldShape, skipOf, upsamplingOf } from "../decode/field/field";
import { HALO, RING } from "../decode/field/picture";
import { MAX_SLABS } from "../decode/field/rays";

/** Scales that differ from the trained one by less are taken as they are. */
const SAME_SCALE = 1.05;
/** Pictures are decoded at most this many times larger than they are shown. */
const MAX_SHRINK = 4;
/** Pixels that are decoded at most for one picture. */
const MAX_PIXELS = 4e6;

/**
 * The camera at the only scale that the network knows; its picture is scaled to what is shown.
 * With a share below 1 it has so much fewer pixels along each axis, and a coarser picture.
 */
export function decodedCamera(
  view: PinholeCamera,
  focal: number,
  share = 1,
  most = MAX_PIXELS,
): PinholeCamera {
  let ratio = Math.min(focal / view.K[0]!, MAX_SHRINK);
  if (Math.abs(Math.log(ratio)) < Math.log(SAME_SCALE)) ratio = 1;
  ratio = Math.min(ratio, Math.sqrt(Math.min(most, MAX_PIXELS) / (view.width * view.height)));
  ratio *= share;
  const width = Math.max(1, Math.round(view.width * ratio));
  const height = Math.max(1, Math.round(view.height * ratio));
  const [sx, sy] = [width / view.width, height / view.height];
  const { K } = view;
  return {
    c2w: view.c2w,
    K: [K[0]! * sx, 0, K[2]! * sx, 0, K[4]! * sy, K[5]! * sy, 0, 0, 1],
    width,
    height,
  };
}

/** Channels in fours, as texels hold them. */
export function fours(channels: number): number {
  return Math.ceil(channels / 4);
}

/** Width, height and texels behind each other of one intermediate result. */
export interface GridSize {
  width: number;
  height: number;
  layers: number;
}

/** Everything that drawing a field needs to know of sizes; all in texels of four channels. */
export interface FieldLayout {
  /** Samples along an axis for one ray. */
  k: number;
  /** Pixels along an axis for one ray. */
  step: number;
  skip: number;
  blocks: number;
  /** Texels of one plane's place, of a sample (its coverage comes behind), of the trunk. */
  features: number;
  encoded: number;
  width: number;
  /** Texels of one pixel before each convolution, and of the result. */
  pixels: number[];
}

export function layoutOf(shape: FieldShape): FieldLayout {
  const { samples, encoded, width, blocks, channels } = shape.decoder;
  return {
    k: samples,
    step: upsamplingOf(shape),
    skip: skipOf(shape),
    blocks,
    features: fours(shape.features),
    encoded: fours(encoded),
    width: fours(width),
    // Depth is not drawn: red, green, blue and alpha are one texel.
    pixels: [...channels.map(fours), 1],
  };
}

/** Sizes of the intermediate results for a picture. */
export interface PictureSizes {
  /** Encoded samples, and their coverage in the last layer. */
  samples: GridSize;
  trunk: GridSize;
  /** What the pixel shuffles take apart: before each convolution, and the result. */
  shuffled: GridSize[];
}

export function sizesOf(layout: FieldLayout, width: number, height: number): PictureSizes {
  const { k, step, pixels } = layout;
  let across = Math.ceil(width / step) + 2 * HALO;
  let down = Math.ceil(height / step) + 2 * HALO;
  const samples = { width: across * k, height: down * k, layers: layout.encoded + 1 };
  const trunk = { width: across, height: down, layers: layout.width };
  const shuffled = pixels.map((texels) => {
    const size = { width: across, height: down, layers: 4 * texels };
    [across, down] = [2 * across - 2, 2 * down - 2];
    return size;
  });
  return { samples, trunk, shuffled };
}

/** Pixels of the result beyond each edge of the picture; also before every convolution. */
export const MARGIN = RING;
/** Samples to leave out at each edge where a convolution takes them beside its pixels. */
export function skipOffset(layout: FieldLayout): number {
  return layout.k * HALO - RING;
}
/** Samples beyond each edge of the picture. */
export function sampleRing(layout: FieldLayout): number {
  return layout.k * HALO;
}

/** A number as GLSL and WGSL read it. */
export const float = (x: number) => (Number.isInteger(x) ? `${x}.0` : `${x}`);

/** Slabs that one ray has at most. */
export const slabsOfRay = ({ slabs }: FieldShape) => Math.min(MAX_SLABS, slabs.length);

/** Places of blocks in a row of the texture that says where they are. */
export const INDEX_ROW = 2048;

/** A slab's numbers for the shaders: so many texels of four. */
export function slabTexels(shape: FieldShape): number {
  return SLAB_ROWS + shape.slabs[0]!.disparities.length;
}

/** Texels of a slab before those of its planes. */
export const SLAB_ROWS = 3;

/**
 * What rays of `camera` need of each slab. Three texels: a row of the matrix that turns the
 * camera's directions into the slab's, and the camera's place in the slab, from its viewpoint, as
 * far as it moves what the ray meets between the first and the last plane. Then one for each
 * plane: tangent * (z, w) + (x, y) are the coordinates.
 */
export function slabNumbers(shape: FieldShape, { c2w }: PinholeCamera): Float32Array<ArrayBuffer> {
  const out = new Float32Array(4 * slabTexels(shape) * shape.slabs.length);
  let at = 0;
  for (const { rotation, viewpoint, disparities, low, high } of shape.slabs) {
    const column = (c: number) => [c2w[c]!, c2w[4 + c]!, c2w[8 + c]!];
    const turned = (v: number[]) =>
      rotation.map((row) => row.reduce((sum, r, a) => sum + r * v[a]!, 0));
    const axes = [0, 1, 2].map((c) => turned(column(c)));
    const origin = turned(column(3).map((v, a) => v - viewpoint[a]!));
    const spread = disparities.at(-1)! - disparities[0]!;
    for (let r = 0; r < SLAB_ROWS; r++, at += 4) {
      out.set([...axes.map((axis) => axis[r]!), spread * origin[r]!], at);
    }
    for (const [p, disparity] of disparities.entries()) {
      for (let a = 0; a < 2; a++) {
        const scale = 2 / (high[p]![a]! - low[p]![a]!);
        out[at + a] = (disparity * origin[a]! - low[p]![a]!) * scale - 1;
        out[at + 2 + a] = (1 - disparity * origin[2]!) * scale;
      }
      at += 4;
    }
  }
  return out;
}
