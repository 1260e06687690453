import { type Field, type FieldShape, fieldLayers } from "../../src/decode/field/field";

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
    planes: [
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
  const planes = shape.planes.map(({ columns, rows }) =>
    filled(shape.slabs.length * columns * rows * shape.features, 2),
  );
  return { shape, layers, planes };
}
