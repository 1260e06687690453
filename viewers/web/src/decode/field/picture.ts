import { type Field, type FieldLayer, inputsOf, MAPS, skipOf, upsamplingOf } from "./field";
import { mpiTexelAt } from "./mpi";
import { slabsOf } from "./rays";

/** A pinhole camera, OpenGL axes, rows first; pixels from the top left corner. */
export interface FieldCamera {
  c2w: ArrayLike<number>;
  K: ArrayLike<number>;
  width: number;
  height: number;
}

/** What a field says of a picture; all maps are [height, width]. */
export interface FieldPicture {
  width: number;
  height: number;
  /** The network's r, g, b, a, z, before sigmoids. */
  maps: Float64Array[];
  coverage: Float64Array;
  /** What the MPIs add. */
  mpi: MpiPicture | null;
}

/** MPIs laid over each other; all maps are [height, width]. */
export interface MpiPicture {
  /** r, g, b (times alpha), a. */
  maps: Float64Array[];
  /** Sums of distances along the rays times alpha. */
  distance: Float64Array;
}

/** [height, width, channels] */
interface Grid {
  width: number;
  height: number;
  channels: number;
  data: Float64Array;
}

/** Rays of the bundle beyond each edge of the picture. */
export const HALO = 1;
/** Pixels beyond each edge before every convolution, and cut from the last one's result. */
export const RING = 2;

/**
 * The picture as SPEC.md, section 8, defines it, in double precision and plain loops: slow, for
 * tests and for single pixels.
 */
export function fieldPicture(field: Field, camera: FieldCamera): FieldPicture {
  const { shape, layers } = field;
  const { samples: k, blocks, channels } = shape.decoder;
  const step = upsamplingOf(shape);
  const across = Math.ceil(camera.width / step) + 2 * HALO;
  const down = Math.ceil(camera.height / step) + 2 * HALO;
  const { features, coverage } = sampled(field, camera, across * k, down * k, step / k);
  const encoded = relu(linear(features, layers.encode!));
  let x = linear(tiled(encoded, k), layers.first!);
  for (let i = 0; i < blocks; i++) {
    const inner = linear(relu(x), layers[`block_${i}_0`]!);
    const change = linear(relu(inner), layers[`block_${i}_1`]!);
    x = { ...x, data: x.data.map((v, n) => v + change.data[n]!) };
  }
  x = shuffled(linear(relu(x), layers.last!));
  for (let j = 0; j < channels.length; j++) {
    x = relu(x);
    if (j === skipOf(shape)) x = joined(x, cut(encoded, k * HALO - RING));
    x = shuffled(convolved(x, layers[`sharpen_${j}`]!));
  }
  const { width, height } = camera;
  const maps = Array.from({ length: MAPS }, (_, c) =>
    filled(width, height, (u, v) => x.data[((v + RING) * x.width + u + RING) * MAPS + c]!),
  );
  const own = field.mpi && mpiPicture(field, camera);
  return {
    width,
    height,
    maps,
    coverage: own?.coverage ?? enlarged(coverage, camera, step / k, step * HALO),
    mpi: own,
  };
}

/** Colour times alpha, and alpha, of pixel `n` of a picture. */
export function pixelOf({ maps, coverage, mpi }: FieldPicture, n: number): number[] {
  const covered = coverage[n]!;
  const raw = [0, 1, 2, 3].map((c) => maps[c]![n]!);
  if (mpi) {
    return raw.map((v, c) => covered * Math.max(0, Math.min(1, mpi.maps[c]![n]! + v)));
  }
  const [r, g, b, a] = raw.map((v) => 1 / (1 + Math.exp(-v))) as [number, number, number, number];
  return [...[r, g, b].map((v) => v * a * covered), a * covered];
}

/** The MPIs of every pixel's ray, and how far the ray itself is covered. */
function mpiPicture(field: Field, camera: FieldCamera): MpiPicture & { coverage: Float64Array } {
  const count = camera.width * camera.height;
  const empty = () => new Float64Array(count);
  const maps = Array.from({ length: 4 }, empty);
  const [distance, coverage] = [empty(), empty()];
  const origin = [camera.c2w[3]!, camera.c2w[7]!, camera.c2w[11]!];
  for (let n = 0; n < count; n++) {
    const u = (n % camera.width) + 0.5;
    const direction = directionOf(camera, u, Math.floor(n / camera.width) + 0.5);
    for (const { slab, weight, ray } of slabsOf(field.shape, origin, direction)) {
      const { colour, inverse } = composite(field, slab, ray.coordinates);
      for (const [c, map] of maps.entries()) map[n]! += weight * colour[c]!;
      distance[n]! += (weight * (inverse - colour[3]! * ray.originZ)) / ray.directionZ;
      coverage[n]! += weight * ray.inside;
    }
  }
  return { maps, distance, coverage };
}

/** A slab's MPIs laid over each other along a ray, and the sum of alphas over disparities. */
function composite(
  { shape, mpi }: Field,
  slab: number,
  coordinates: readonly number[],
): { colour: number[]; inverse: number } {
  const { columns, rows } = shape.mpi!;
  const { disparities } = shape.slabs[slab]!;
  const colour = [0, 0, 0, 0];
  let inverse = 0;
  let through = 1;
  for (let p = disparities.length - 1; p >= 0; p--) {
    const place = (c: number, size: number) =>
      Math.max(0, Math.min(size - 1, ((c + 1) / 2) * (size - 1)));
    const x = place(coordinates[2 * p]!, columns);
    const y = place(coordinates[2 * p + 1]!, rows);
    const texel = mpiTexelAt(shape, mpi!, slab, p, x, y);
    if (!texel) continue;
    for (const [c, v] of texel.entries()) colour[c]! += through * v;
    inverse += (through * texel[3]!) / disparities[p]!;
    through *= 1 - texel[3]!;
    if (through < LEAST_LEFT) break;
  }
  return { colour, inverse };
}

/** The direction through a pixel, of length 1. */
function directionOf({ c2w, K }: FieldCamera, u: number, v: number): number[] {
  const a = (u - K[2]!) / K[0]!;
  const b = -(v - K[5]!) / K[4]!;
  const n = Math.hypot(a, b, 1);
  return [0, 4, 8].map((r) => (c2w[r]! * a + c2w[r + 1]! * b - c2w[r + 2]!) / n);
}

function sampled(
  field: Field,
  camera: FieldCamera,
  width: number,
  height: number,
  size: number,
): { features: Grid; coverage: Grid } {
  const channels = inputsOf(field.shape);
  const features = { width, height, channels, data: new Float64Array(width * height * channels) };
  const coverage = { width, height, channels: 1, data: new Float64Array(width * height) };
  const ring = field.shape.decoder.samples * HALO;
  const origin = [camera.c2w[3]!, camera.c2w[7]!, camera.c2w[11]!];
  for (let n = 0; n < width * height; n++) {
    const u = ((n % width) - ring + 0.5) * size;
    const v = (Math.floor(n / width) - ring + 0.5) * size;
    const direction = directionOf(camera, u, v);
    for (const { slab, weight, ray } of slabsOf(field.shape, origin, direction)) {
      coverage.data[n]! += weight * ray.inside;
      addFeatures(field, slab, ray.coordinates, weight, features.data, n * channels);
    }
  }
  return { features, coverage };
}

/** Cell and fraction of a coordinate among `size` texels. */
function cell(coordinate: number, size: number): [number, number] {
  const place = Math.max(0, Math.min(size - 1, ((coordinate + 1) / 2) * (size - 1)));
  const low = Math.min(Math.floor(place), Math.max(0, size - 2));
  return [low, place - low];
}

function addFeatures(
  { shape, planes }: Field,
  s: number,
  coordinates: readonly number[],
  weight: number,
  out: Float64Array,
  at: number,
): void {
  const F = shape.features;
  const slabs = shape.slabs.length;
  for (const [p, { axes, columns, rows }] of shape.feature_planes.entries()) {
    const values = planes[p];
    if (!values) continue;
    const [x, fx] = cell(coordinates[axes[0]!]!, columns);
    const [y, fy] = cell(coordinates[axes[1]!]!, rows);
    const right = columns > 1 ? slabs : 0;
    const below = rows > 1 ? columns * slabs : 0;
    const here = (y * columns + x) * slabs + s;
    for (let f = 0; f < F; f++) {
      const texel = (offset: number) => values[(here + offset) * F + f]!;
      const upper = (1 - fx) * texel(0) + fx * texel(right);
      const lower = (1 - fx) * texel(below) + fx * texel(below + right);
      out[at + p * F + f]! += weight * ((1 - fy) * upper + fy * lower);
    }
  }
}

function relu(x: Grid): Grid {
  return { ...x, data: x.data.map((v) => Math.max(0, v)) };
}

function linear(x: Grid, layer: FieldLayer): Grid {
  const { outputs, inputs, weight, bias } = layer;
  const count = x.width * x.height;
  const data = new Float64Array(count * outputs);
  for (let n = 0; n < count; n++) {
    for (let o = 0; o < outputs; o++) {
      let sum = bias[o]!;
      for (let i = 0; i < inputs; i++) sum += weight[o * inputs + i]! * x.data[n * inputs + i]!;
      data[n * outputs + o] = sum;
    }
  }
  return { ...x, channels: outputs, data };
}

/** The k x k samples of each ray, row by row, as channels of it. */
function tiled(x: Grid, k: number): Grid {
  const [width, height, channels] = [x.width / k, x.height / k, x.channels * k * k];
  const data = new Float64Array(x.data.length);
  for (let v = 0; v < x.height; v++) {
    for (let u = 0; u < x.width; u++) {
      const ray = Math.floor(v / k) * width + Math.floor(u / k);
      const place = (v % k) * k + (u % k);
      const from = (v * x.width + u) * x.channels;
      data.set(x.data.subarray(from, from + x.channels), ray * channels + place * x.channels);
    }
  }
  return { width, height, channels, data };
}

/** Channel 4 c + 2 y + x becomes channel c of the pixel (y, x) of 2 x 2. */
function shuffled(x: Grid): Grid {
  const [width, height, channels] = [2 * x.width, 2 * x.height, x.channels / 4];
  const data = new Float64Array(x.data.length);
  for (let v = 0; v < height; v++) {
    for (let u = 0; u < width; u++) {
      const from = ((v >> 1) * x.width + (u >> 1)) * x.channels + 2 * (v & 1) + (u & 1);
      for (let c = 0; c < channels; c++) {
        data[(v * width + u) * channels + c] = x.data[from + 4 * c]!;
      }
    }
  }
  return { width, height, channels, data };
}

function convolved(x: Grid, { outputs, inputs, weight, bias }: FieldLayer): Grid {
  const [width, height] = [x.width - 2, x.height - 2];
  const data = new Float64Array(width * height * outputs);
  for (let v = 0; v < height; v++) {
    for (let u = 0; u < width; u++) {
      for (let o = 0; o < outputs; o++) {
        let sum = bias[o]!;
        for (let t = 0; t < 9; t++) {
          const from = ((v + Math.floor(t / 3)) * x.width + u + (t % 3)) * x.channels;
          for (let i = 0; i < x.channels; i++) {
            sum += weight[o * inputs + 9 * i + t]! * x.data[from + i]!;
          }
        }
        data[(v * width + u) * outputs + o] = sum;
      }
    }
  }
  return { width, height, channels: outputs, data };
}

function cut(x: Grid, ring: number): Grid {
  const [width, height] = [x.width - 2 * ring, x.height - 2 * ring];
  const data = new Float64Array(width * height * x.channels);
  for (let v = 0; v < height; v++) {
    const from = ((v + ring) * x.width + ring) * x.channels;
    data.set(x.data.subarray(from, from + width * x.channels), v * width * x.channels);
  }
  return { ...x, width, height, data };
}

function joined(a: Grid, b: Grid): Grid {
  const channels = a.channels + b.channels;
  const data = new Float64Array(a.width * a.height * channels);
  for (let n = 0; n < a.width * a.height; n++) {
    data.set(a.data.subarray(n * a.channels, (n + 1) * a.channels), n * channels);
    data.set(b.data.subarray(n * b.channels, (n + 1) * b.channels), n * channels + a.channels);
  }
  return { ...a, channels, data };
}

function filled(width: number, height: number, of: (u: number, v: number) => number) {
  const data = new Float64Array(width * height);
  for (let n = 0; n < data.length; n++) data[n] = of(n % width, Math.floor(n / width));
  return data;
}

/** `times` times larger, bilinearly, with the middles of samples at those of their squares. */
function enlarged(x: Grid, camera: FieldCamera, times: number, ring: number): Float64Array {
  const place = (pixel: number, size: number): [number, number] => {
    const at = Math.max(0, Math.min(size - 1, (pixel + ring + 0.5) / times - 0.5));
    const low = Math.min(Math.floor(at), size - 2);
    return [low, at - low];
  };
  return filled(camera.width, camera.height, (u, v) => {
    const [a, fa] = place(u, x.width);
    const [b, fb] = place(v, x.height);
    const row = (r: number) =>
      (1 - fa) * x.data[(b + r) * x.width + a]! + fa * x.data[(b + r) * x.width + a + 1]!;
    return (1 - fb) * row(0) + fb * row(1);
  });
}

/** What is left of a ray when MPIs behind are not looked at any more. */
export const LEAST_LEFT = 1 / 1024;
const MAX_SINH = 6;

/** Distance from the camera along the ray through a pixel of what the picture shows there. Not a
 * number where the MPIs, if there are any, show nothing. */
export function fieldDistance(
  { shape }: Field,
  camera: FieldCamera,
  picture: FieldPicture,
  u: number,
  v: number,
): number {
  if (picture.mpi) {
    const n = v * picture.width + u;
    return picture.mpi.distance[n]! / picture.mpi.maps[3]![n]!;
  }
  const direction = directionOf(camera, u + 0.5, v + 0.5);
  const { centre, radius } = shape.content;
  const z = picture.maps[4]![v * picture.width + u]!;
  const nearest = direction.reduce(
    (sum, d, a) => sum + d * (centre[a]! - camera.c2w[4 * a + 3]!),
    0,
  );
  return nearest + Math.sinh(Math.max(-MAX_SINH, Math.min(MAX_SINH, z))) * radius;
}
