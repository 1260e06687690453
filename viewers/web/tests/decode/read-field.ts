import { openFile } from "../../src/decode/bundle/container";
import { lightslabKind } from "../../src/decode/bundle/lightslab";
import { StageDecoder } from "../../src/decode/bundle/stages";
import type { Field } from "../../src/decode/field/field";
import { MemorySource } from "../../src/decode/remote";
import { readBytes } from "../browser/harness";

export interface ReadField {
  field: Field;
  cameras: { c2w: number[]; K: number[]; width: number; height: number }[];
}

/** The field in a bundle of kind lightslab, with the planes of its first stages. */
export async function readField(path: string, stages = 64): Promise<ReadField> {
  const bundle = await openFile(new MemorySource(readBytes(path) as never));
  const { manifest } = bundle;
  lightslabKind.check(manifest, bundle.size);
  const decoder = await StageDecoder.open(bundle);
  const shape = lightslabKind.shape(manifest);
  const planes: Field["planes"] = shape.feature_planes.map(() => null);
  for (const [number, stage] of manifest.stages.entries()) {
    if (number >= stages) break;
    decoder.decode(number, await bundle.read(stage.member));
    for (const { index, values } of lightslabKind.planes(decoder, number)) planes[index] = values;
  }
  const cameras = manifest.cameras.map((c) => ({
    c2w: c.c2w.flat(),
    K: [c.fx, 0, c.cx, 0, c.fy, c.cy, 0, 0, 1],
    width: c.width,
    height: c.height,
  }));
  const [layers, mpi] = [lightslabKind.layers(decoder), lightslabKind.mpi(decoder)];
  return { field: { shape, layers, planes, mpi }, cameras };
}
