import type { Lightslab } from "../bundle/manifest.gen";
import type { FieldMpi } from "./mpi";

/** Sizes, slabs and planes of a light field, as the manifest has them (SPEC.md, section 8). */
export type FieldShape = Lightslab;

/** One layer of the network: x becomes W x + b; a convolution's inputs are input, row, column. */
export interface FieldLayer {
  readonly outputs: number;
  readonly inputs: number;
  /** [outputs, inputs] */
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** Texels of one plane: [rows, columns, slabs, features]. */
export interface FieldPlane {
  readonly index: number;
  readonly values: Float32Array;
}

/** A light field as plain arrays, no engine, no DOM. */
export interface Field {
  readonly shape: FieldShape;
  readonly layers: Readonly<Record<string, FieldLayer>>;
  /** Those that have not arrived are null and count as zeros. */
  readonly planes: (Float32Array | null)[];
  /** Null where the picture is the network's alone. */
  readonly mpi: FieldMpi | null;
}

/** Features of a ray: those of all planes. */
export function inputsOf({ feature_planes: planes, features }: FieldShape): number {
  return planes.length * features;
}

/** Pixels along an axis for one ray of the bundle. */
export function upsamplingOf({ decoder }: FieldShape): number {
  return 2 ** (decoder.channels.length + 1);
}

/** The convolution that also sees the samples; -1: none. */
export function skipOf({ decoder }: FieldShape): number {
  return Math.log2(decoder.samples) - 1;
}

/** r, g, b, a, z. */
export const MAPS = 5;

/** Outputs and inputs of every layer by name, in the order in which they are used. */
export function fieldLayers(shape: FieldShape): Record<string, [number, number]> {
  const { samples: k, encoded: E, width: W, blocks, channels } = shape.decoder;
  const layers: Record<string, [number, number]> = {
    encode: [E, inputsOf(shape)],
    first: [W, k * k * E],
  };
  for (let i = 0; i < blocks; i++) {
    layers[`block_${i}_0`] = [W, W];
    layers[`block_${i}_1`] = [W, W];
  }
  layers.last = [4 * channels[0]!, W];
  for (let j = 0; j < channels.length; j++) {
    const into = channels[j]! + (j === skipOf(shape) ? E : 0);
    layers[`sharpen_${j}`] = [4 * (channels[j + 1] ?? MAPS), 9 * into];
  }
  return layers;
}

/** Products for a picture of 800 x 800 pixels, look-ups left out. */
export function productsOf(shape: FieldShape): number {
  const step = upsamplingOf(shape);
  let sum = 0;
  for (const [name, [outputs, inputs]] of Object.entries(fieldLayers(shape))) {
    const finer = name.startsWith("sharpen_") ? 2 ** (1 + Number(name.slice(8))) : 1;
    const across = name === "encode" ? shape.decoder.samples : finer;
    sum += outputs * inputs * ((800 / step) * across) ** 2;
  }
  return sum;
}
