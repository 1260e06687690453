import type { FieldLayer, FieldShape } from "../decode/field/field";
import { type FieldLayout, fours } from "./layout";

/** Texels of outputs that one pass makes: `first` .. `first` + `count` - 1. */
export interface Outputs {
  first: number;
  count: number;
}

/** A layer's outputs in parts of at most `most` texels. */
export function partsOf({ outputs }: LayerOrder, most: number): Outputs[] {
  const parts: Outputs[] = [];
  for (let first = 0; first < outputs.length / 4; first += most) {
    parts.push({ first, count: Math.min(most, outputs.length / 4 - first) });
  }
  return parts;
}

/** Which of a layer's inputs and outputs stand where in texels of four; -1: nothing, zero. */
export interface LayerOrder {
  inputs: number[];
  outputs: number[];
}

/** 0 .. count - 1, filled up to whole texels, each number passed through `of`. */
function texels(count: number, of: (i: number) => number): number[] {
  return Array.from({ length: 4 * fours(count) }, (_, i) => (i < count ? of(i) : -1));
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** For a pixel shuffle: the four pixels one after the other, each with its channels in fours. */
function shuffledOutputs(channels: number): number[] {
  return range(4).flatMap((pixel) => texels(channels, (c) => 4 * c + pixel));
}

/** The order of every layer by name. */
export function layerOrders(shape: FieldShape, layout: FieldLayout): Record<string, LayerOrder> {
  const { encoded: E, width: W, blocks, channels } = shape.decoder;
  const same = texels(W, (i) => i);
  const { k, skip } = layout;
  const orders: Record<string, LayerOrder> = {
    encode: {
      inputs: range(shape.feature_planes.length).flatMap((p) =>
        texels(shape.features, (f) => p * shape.features + f),
      ),
      outputs: texels(E, (i) => i),
    },
    first: { inputs: range(k * k).flatMap((s) => texels(E, (i) => s * E + i)), outputs: same },
    last: { inputs: same, outputs: shuffledOutputs(channels[0]!) },
  };
  for (const i of range(blocks)) {
    for (const half of [0, 1]) orders[`block_${i}_${half}`] = { inputs: same, outputs: same };
  }
  for (const [j, count] of channels.entries()) {
    const inputs = range(9).flatMap((tap) => [
      ...texels(count, (c) => 9 * c + tap),
      ...(j === skip ? texels(E, (c) => 9 * (count + c) + tap) : []),
    ]);
    // The result's depth is left out: four channels remain.
    orders[`sharpen_${j}`] = { inputs, outputs: shuffledOutputs(channels[j + 1] ?? 4) };
  }
  return orders;
}

/** The layer `encode` with a texel behind it for the coverage, which has no weights. */
export function withCoverage({ inputs, outputs }: LayerOrder): LayerOrder {
  return { inputs, outputs: [...outputs, -1, -1, -1, -1] };
}

/** Those of a part's outputs that have weights, biases before matrices; null: none has. */
export function partWeights(
  layer: FieldLayer,
  order: LayerOrder,
  { first, count }: Outputs,
): Float32Array | null {
  let end = first + count;
  if (order.outputs[4 * end - 4]! < 0) end--;
  if (end === first) return null;
  const { bias, matrices } = packWeights(layer, order, first, end);
  const data = new Float32Array(bias.length + matrices.length);
  data.set(bias);
  data.set(matrices, bias.length);
  return data;
}

/** Weights of the outputs `from` .. `to` - 1 (in texels), ready for a shader. */
export interface PackedWeights {
  /** Texels of inputs. */
  inputs: number;
  /** A texel for each output. */
  bias: Float32Array;
  /** For each texel of inputs, for each of outputs: 4 x 4, columns first. */
  matrices: Float32Array;
}

export function packWeights(
  { inputs: stride, weight, bias }: FieldLayer,
  { inputs, outputs }: LayerOrder,
  from = 0,
  to = outputs.length / 4,
): PackedWeights {
  const count = to - from;
  const groups = inputs.length / 4;
  const matrices = new Float32Array(16 * groups * count);
  let at = 0;
  for (let i = 0; i < groups; i++) {
    for (let o = from; o < to; o++) {
      for (let column = 0; column < 4; column++) {
        const input = inputs[4 * i + column]!;
        for (let row = 0; row < 4; row++, at++) {
          const output = outputs[4 * o + row]!;
          if (input >= 0 && output >= 0) matrices[at] = weight[output * stride + input]!;
        }
      }
    }
  }
  const biases = outputs.slice(4 * from, 4 * to).map((o) => (o < 0 ? 0 : bias[o]!));
  return { inputs: groups, bias: Float32Array.from(biases), matrices };
}
