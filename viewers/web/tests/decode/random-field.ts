import { type Field, type FieldShape, fieldLayers } from "../../src/decode/field/field";
import { BLOCK, blockPlaces, makeMpi } from "../../src/decode/field/mpi";

/** Numbers between -1 and 1 that are the same in every run (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2147483648 - 1;
  };
}

const AXES = {
  z: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  x: [
    [0, 1, 0],
    [0, 0, 1],
    [1, 0, 0],
  ],
  y: [
    [0, 0, 1],
    [1, 0, 0],
    [0, 1, 0],
  ],
};

/** Sizes of a small field whose slabs look along the given axes from the origin. */
export function smallShape(
  axes: readonly (keyof typeof AXES)[] = ["z"],
  decoder: Partial<FieldShape["decoder"]> = {},
): FieldShape {
  const square = (v: number) => [
    [v, v],
    [v, v],
    [v, v],
  ];
  return {
    slabs: axes.map((a) => ({
      rotation: AXES[a],
      viewpoint: [0.1, -0.2, -2],
      disparities: [0, 0.25, 0.5],
      low: square(-1.4),
      high: square(1.5),
    })),
    overlap: 0.5,
    features: 4,
    feature_planes: [
      { axes: [0, 1], columns: 7, rows: 5, stage: 0 },
      { axes: [4, 5], columns: 6, rows: 9, stage: 0 },
      { axes: [0, 5], columns: 12, rows: 1, stage: 0 },
    ],
    decoder: { samples: 2, encoded: 8, width: 16, blocks: 2, channels: [8, 8], ...decoder },
    content: { centre: [0, 0, 0], radius: 1 },
    focal: 60,
  };
}

/** A field of that shape with weights of He's variance. */
export function randomField(shape: FieldShape, seed = 1): Field {
  const random = randomNumbers(seed);
  const filled = (size: number, scale: number) =>
    Float32Array.from({ length: size }, () => scale * random());
  const layers = Object.fromEntries(
    Object.entries(fieldLayers(shape)).map(([name, [outputs, inputs]]) => {
      const weight = filled(outputs * inputs, Math.sqrt(6 / inputs));
      return [name, { outputs, inputs, weight, bias: filled(outputs, 0.1) }];
    }),
  );
  const planes = shape.feature_planes.map(({ columns, rows }) =>
    filled(shape.slabs.length * columns * rows * shape.features, 2),
  );
  return { shape, layers, planes, mpi: null };
}

/** MPIs of which about a `share` of the blocks is stored, and the shape that goes with them. */
export function randomMpi(
  plain: FieldShape,
  { columns = 24, rows = 16, share = 0.5, seed = 2 } = {},
): { shape: FieldShape; index: Uint32Array<ArrayBuffer>; texels: Uint8Array<ArrayBuffer> } {
  const random = randomNumbers(seed);
  const below = (most: number) => Math.floor((most * (random() + 1)) / 2);
  const slabs = plain.slabs.map((slab) => ({ ...slab, disparities: [0.05, 0.25, 0.5] }));
  const shape = {
    ...plain,
    slabs,
    mpi: { columns, rows, blocks: 0, steps: [[1], [1], [1], [1]] },
  };
  const index = new Uint32Array(blockPlaces(shape));
  for (const i of index.keys()) if (random() < 2 * share - 1) index[i] = ++shape.mpi.blocks;
  const texels = new Uint8Array(4 * BLOCK * BLOCK * shape.mpi.blocks);
  for (let i = 0; i < texels.length; i += 4) {
    const alpha = below(256);
    texels.set([below(alpha + 1), below(alpha + 1), below(alpha + 1), alpha], i);
  }
  return { shape, index, texels };
}

/** A random field with such MPIs; its network adds a little to them. */
export function randomFieldWithMpi(plain: FieldShape, options = {}): Field {
  const { shape, index, texels } = randomMpi(plain, options);
  const field = randomField(shape);
  const last = field.layers[`sharpen_${shape.decoder.channels.length - 1}`]!;
  for (let i = 0; i < last.weight.length; i++) last.weight[i]! *= 0.02;
  return { ...field, mpi: makeMpi(shape, index, texels) };
}
