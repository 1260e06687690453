import { SceneError } from "../errors";
import {
  type Field,
  type FieldLayer,
  type FieldPlane,
  type FieldShape,
  fieldLayers,
  productsOf,
} from "../field/field";
import { MAX_TOTAL_BYTES } from "../sink";
import { MAX_BUFFER_BYTES } from "../splats";
import { damaged } from "./bytes";
import type { FieldKind } from "./kind";
import type { Manifest } from "./manifest.gen";
import { checkMpi, checkMpiArrays, mpiArrays, mpiMemory, readMpi } from "./mpi-texels";
import { decodedBytes, type StageDecoder } from "./stages";

/** A picture of 800 x 800 that takes more products than this would hold up a graphics card. */
const MAX_PRODUCTS = 2e11;
/** Values of one place of a plane. */
const MAX_WIDTH = 1024;
const ROTATION_TOLERANCE = 1e-3;

/** Kind `lightslab` (SPEC.md, section 8): planes of features, and a network that reads them. */
export const lightslabKind: FieldKind = {
  drawable: "field",
  check(manifest, size) {
    const shape = checkedShape(manifest);
    checkArrays(manifest, shape);
    checkMpiArrays(manifest, shape);
    checkSize(manifest, shape, size);
  },
  shape: (manifest) => checkedShape(manifest),
  layers: (decoder) => readLayers(decoder, checkedShape(decoder.manifest)),
  mpi: (decoder) => readMpi(decoder, checkedShape(decoder.manifest)),
  planes: (decoder, stage) => readPlanes(decoder, checkedShape(decoder.manifest), stage),
};

/** The manifest's entry `lightslab` once it fits the rest. */
export function checkedShape(manifest: Manifest): FieldShape {
  const { lightslab: shape, count, sh_degree, positions, stages } = manifest;
  if (!shape) throw damaged("the manifest has no entry lightslab");
  if (!("feature_planes" in shape)) {
    throw damaged("an earlier version of scene4d wrote this light field: export it again");
  }
  if (count !== 0 || sh_degree !== 0 || positions || stages.some((s) => s.points !== 0)) {
    throw damaged("a bundle of light slabs has no points");
  }
  const number = shape.slabs[0]!.disparities.length;
  if (widthOf(shape) > MAX_WIDTH) throw damaged(`a place has ${widthOf(shape)} values`);
  for (const { rotation, disparities, low, high } of shape.slabs) {
    if (!isRotation(rotation)) throw damaged("a slab's rotation is none");
    if (disparities.length !== number || low.length !== number || high.length !== number) {
      throw damaged("slabs have different numbers of planes");
    }
    if (disparities[0]! < 0 || disparities.some((d, p) => p > 0 && !(d > disparities[p - 1]!))) {
      throw damaged("a slab's disparities do not rise");
    }
    if (low.some((l, p) => l.some((v, a) => !(Math.fround(high[p]![a]!) > Math.fround(v))))) {
      throw damaged("a slab has a range that is empty");
    }
  }
  checkMpi(shape);
  let last = 0;
  for (const { axes, stage } of shape.feature_planes) {
    if (axes.some((a) => a >= 2 * number)) throw damaged("a plane has axes that do not exist");
    if (stage < last || stage >= stages.length || shape.feature_planes[0]!.stage !== 0) {
      throw damaged("the planes' stages do not rise, or do not exist");
    }
    last = stage;
  }
  const { samples, channels } = shape.decoder;
  if (!Number.isInteger(Math.log2(samples)) || samples > 2 ** channels.length) {
    throw damaged(`${samples} samples do not fit ${channels.length} doublings`);
  }
  return shape;
}

/** Rows of length 1, at right angles, not mirrored. */
function isRotation(rows: number[][]): boolean {
  const dot = (a: number, b: number) => rows[a]!.reduce((sum, v, i) => sum + v * rows[b]![i]!, 0);
  const even = [0, 1, 2].every((a) =>
    [0, 1, 2].every((b) => Math.abs(dot(a, b) - (a === b ? 1 : 0)) <= ROTATION_TOLERANCE),
  );
  const [x, y, z] = rows as [number[], number[], number[]];
  const cross = [0, 1, 2].map((a) => {
    const [b, c] = [(a + 1) % 3, (a + 2) % 3];
    return x[b]! * y[c]! - x[c]! * y[b]!;
  });
  return even && cross.reduce((sum, v, a) => sum + v * z[a]!, 0) > 0;
}

/** Values of one place of a plane: those of all slabs. */
function widthOf({ slabs, features }: FieldShape): number {
  return slabs.length * features;
}

/** Places of plane `index`. */
function placesOf(shape: FieldShape, index: number): number {
  const { columns, rows } = shape.feature_planes[index]!;
  return columns * rows;
}

/** Items, components and stage of every array. */
function expectedArrays(shape: FieldShape): Map<string, [number, number, number]> {
  const expected = new Map<string, [number, number, number]>();
  for (const [i, { stage }] of shape.feature_planes.entries()) {
    expected.set(`feature_plane_${i}`, [placesOf(shape, i), widthOf(shape), stage]);
  }
  for (const [name, [outputs, inputs]] of Object.entries(fieldLayers(shape))) {
    expected.set(`net_${name}_weight`, [outputs * inputs, 1, 0]);
    expected.set(`net_${name}_bias`, [outputs, 1, 0]);
  }
  for (const [name, sizes] of mpiArrays(shape)) expected.set(name, sizes);
  return expected;
}

function checkArrays({ arrays }: Manifest, shape: FieldShape): void {
  const entries = new Map(arrays.map((a) => [a.name, a]));
  for (const [name, [items, components, stage]] of expectedArrays(shape)) {
    const entry = entries.get(name);
    if (!entry) throw damaged(`array ${name} is missing`);
    if (entry.items !== items || entry.components !== components || entry.stage !== stage) {
      throw damaged(
        `array ${name} has ${entry.items} x ${entry.components} codes in stage ${entry.stage}, ` +
          `not ${items} x ${components} in ${stage}`,
      );
    }
    if (entry.quantiser?.type === "codebook" || entry.basis || entry.mean) {
      throw damaged(`array ${name} may not refer to another one`);
    }
  }
}

/** What a device could not draw. Throws `field-too-big`. */
function checkSize(manifest: Manifest, shape: FieldShape, size: number): void {
  const values = shape.feature_planes.reduce(
    (sum, _, i) => sum + placesOf(shape, i) * widthOf(shape),
    0,
  );
  // The worker's numbers, the page's copy, half floats and their texture.
  const bytes = size + decodedBytes(manifest) + values * (4 + 4 + 2 + 2) + mpiMemory(shape);
  if (bytes > MAX_TOTAL_BYTES || 2 * values > MAX_BUFFER_BYTES) {
    throw new SceneError("field-too-big", "bundle", `planes need ${Math.round(bytes / 1e6)} MB`);
  }
  const products = productsOf(shape);
  if (products > MAX_PRODUCTS) {
    throw new SceneError(
      "field-too-big",
      "bundle",
      `${Math.round(products / 1e9)} GMAC for a picture`,
    );
  }
}

function readLayers(decoder: StageDecoder, shape: FieldShape): Field["layers"] {
  const layers: Record<string, FieldLayer> = {};
  for (const [name, [outputs, inputs]] of Object.entries(fieldLayers(shape))) {
    const weight = column(decoder, `net_${name}_weight`, outputs * inputs);
    const bias = column(decoder, `net_${name}_bias`, outputs);
    layers[name] = { outputs, inputs, weight, bias };
  }
  return layers;
}

function column(decoder: StageDecoder, name: string, items: number): Float32Array {
  return values(decoder, name, items, 1);
}

function readPlanes(decoder: StageDecoder, shape: FieldShape, stage: number): FieldPlane[] {
  return shape.feature_planes.flatMap((plane, index) =>
    plane.stage === stage
      ? [
          {
            index,
            values: values(
              decoder,
              `feature_plane_${index}`,
              placesOf(shape, index),
              widthOf(shape),
            ),
          },
        ]
      : [],
  );
}

function values(decoder: StageDecoder, name: string, items: number, width: number): Float32Array {
  const { rows, columns, data } = decoder.fixed(name);
  if (rows !== items || columns !== width) {
    throw damaged(`array ${name} has ${rows} x ${columns} values, not ${items} x ${width}`);
  }
  let trouble = 0;
  for (let i = 0; i < data.length; i++) trouble += data[i]! - data[i]!;
  if (trouble !== 0) throw damaged(`array ${name} has values that are no finite numbers`);
  return data;
}
