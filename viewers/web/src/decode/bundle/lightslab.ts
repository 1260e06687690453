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
import { decodedBytes, type StageDecoder } from "./stages";

/** A picture of 800 x 800 that takes more products than this would hold up a graphics card. */
const MAX_PRODUCTS = 2e11;

/** Kind `lightslab` (SPEC.md, section 8): planes of features, and a network that reads them. */
export const lightslabKind: FieldKind = {
  drawable: "field",
  check(manifest, size) {
    const shape = checkedShape(manifest);
    checkSize(manifest, shape, size);
  },
  shape: (manifest) => checkedShape(manifest),
  layers: (decoder) => readLayers(decoder, checkedShape(decoder.manifest)),
  planes: (decoder, stage) => readPlanes(decoder, checkedShape(decoder.manifest), stage),
};

/** The manifest's entry `lightslab` once it fits the rest. */
export function checkedShape(manifest: Manifest): FieldShape {
  const { lightslab: shape, count, sh_degree, positions, stages } = manifest;
  if (!shape) throw damaged("the manifest has no entry lightslab");
  if (count !== 0 || sh_degree !== 0 || positions || stages.some((s) => s.points !== 0)) {
    throw damaged("a bundle of light slabs has no points");
  }
  const number = shape.slabs[0]!.disparities.length;
  for (const { disparities, low, high } of shape.slabs) {
    if (disparities.length !== number || low.length !== number || high.length !== number) {
      throw damaged("slabs have different numbers of planes");
    }
    if (low.some((l, p) => l.some((v, a) => !(high[p]![a]! > v)))) {
      throw damaged("a slab has a range that is empty");
    }
  }
  let last = 0;
  for (const { axes, stage } of shape.planes) {
    if (axes.some((a) => a >= 2 * number)) throw damaged("a plane has axes that do not exist");
    if (stage < last || stage >= stages.length) {
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

/** Texels of plane `index`, all slabs together. */
function texelsOf(shape: FieldShape, index: number): number {
  const { columns, rows } = shape.planes[index]!;
  return shape.slabs.length * columns * rows;
}

function checkSize(manifest: Manifest, shape: FieldShape, size: number): void {
  const layers = Object.entries(fieldLayers(shape));
  const expected = new Map<string, number>();
  for (let i = 0; i < shape.planes.length; i++) expected.set(`plane_${i}`, texelsOf(shape, i));
  for (const [name, [outputs, inputs]] of layers) {
    expected.set(`net_${name}_weight`, outputs * inputs);
    expected.set(`net_${name}_bias`, outputs);
  }
  for (const [name, items] of expected) {
    const entry = manifest.arrays.find((a) => a.name === name);
    if (!entry) throw damaged(`array ${name} is missing`);
    if (entry.items !== items) {
      throw damaged(`array ${name} has ${entry.items} items, not ${items}`);
    }
    const plane = /^plane_(\d+)$/.exec(name);
    const stage = plane ? shape.planes[Number(plane[1])]!.stage : 0;
    if (entry.stage !== stage) throw damaged(`array ${name} is not in stage ${stage}`);
  }
  const texels = shape.planes.reduce((sum, _, i) => sum + texelsOf(shape, i), 0);
  // The worker's numbers, the page's copy, half floats and their texture.
  const bytes = size + decodedBytes(manifest) + texels * shape.features * (4 + 4 + 2 + 2);
  if (bytes > MAX_TOTAL_BYTES || 2 * texels * shape.features > MAX_BUFFER_BYTES) {
    throw new SceneError("too-big", "bundle", `planes need ${Math.round(bytes / 1e6)} MB`);
  }
  const products = productsOf(shape);
  if (products > MAX_PRODUCTS) {
    throw new SceneError("too-big", "bundle", `${Math.round(products / 1e9)} GMAC for a picture`);
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
  return shape.planes.flatMap((plane, index) =>
    plane.stage === stage
      ? [
          {
            index,
            values: values(decoder, `plane_${index}`, texelsOf(shape, index), shape.features),
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
