import { guardMesh, type MeshData, withLevels } from "../mesh/mesh";
import { pictureSize } from "../picture-size";
import type { PictureDecoder } from "../sog";
import { damaged } from "./bytes";
import type { MeshKind } from "./kind";
import type { Manifest } from "./manifest.gen";
import { type DecodedStage, decodedBytes, type StageDecoder } from "./stages";

type Entry = NonNullable<Manifest["mesh"]>;

const ARRAYS = ["corners", "triangles"];

/** Kind `mesh` (SPEC.md, section 10): triangles, and the picture that lies on them. */
export const meshKind: MeshKind = {
  drawable: "mesh",
  check(manifest, size) {
    const { texture } = checkedEntry(manifest);
    const { count, sh_degree, positions, stages, arrays, members } = manifest;
    if (count !== 0 || sh_degree !== 0) throw damaged("a mesh has no splats");
    if (!positions || stages.length !== 1) throw damaged("a mesh has positions, in one stage");
    const names = arrays.map((a) => a.name).sort();
    if (names.join() !== ARRAYS.join()) {
      throw damaged(`a mesh has the arrays ${ARRAYS.join(" and ")}, and no others`);
    }
    for (const { name, components, items, quantiser, basis, mean } of arrays) {
      if (components !== 3 || items === undefined || quantiser || basis || mean) {
        throw damaged(`array ${name} is to have items of 3 codes that are their values`);
      }
    }
    if (itemsOf(manifest, "triangles") === 0) throw damaged("a mesh without triangles");
    if (!members.some((m) => m.name === texture.member)) {
      throw damaged(`there is no member ${texture.member}, which is the texture`);
    }
    checkSize(manifest, size);
  },
  read: readMesh,
};

function checkedEntry(manifest: Manifest): Entry {
  if (!manifest.mesh) throw damaged("the manifest has no entry mesh");
  return manifest.mesh;
}

function itemsOf({ arrays }: Manifest, name: string): number {
  return arrays.find((a) => a.name === name)!.items!;
}

/** What a device could not hold. Throws `mesh-too-big`. */
function checkSize(manifest: Manifest, size: number): void {
  const { width, height } = checkedEntry(manifest).texture;
  const counts = {
    bytes: size + decodedBytes(manifest),
    texels: width * height,
    corners: itemsOf(manifest, "corners"),
    triangles: itemsOf(manifest, "triangles"),
  };
  guardMesh(counts, "bundle");
}

async function readMesh(
  decoder: StageDecoder,
  stage: DecodedStage,
  decodePicture: PictureDecoder,
): Promise<MeshData> {
  const entry = checkedEntry(decoder.manifest);
  const geometry = meshGeometry(decoder, stage);
  const { member, width, height } = entry.texture;
  const bytes = await decoder.bundle.read(member);
  const told = pictureSize(bytes);
  if (!told) throw damaged(`the texture ${member} is neither WebP, JPEG nor PNG`);
  if (told.width !== width || told.height !== height) {
    throw damaged(`the texture is ${told.width} x ${told.height}, not ${width} x ${height}`);
  }
  const picture = await decodePicture(bytes);
  if (picture.width !== width || picture.height !== height) {
    throw damaged(`the texture holds ${picture.width} x ${picture.height} texels`);
  }
  return { ...geometry, texture: withLevels(width, height, picture.data) };
}

/** Places and triangles of the decoded stage. */
export function meshGeometry(
  decoder: StageDecoder,
  stage: DecodedStage,
): Omit<MeshData, "texture"> {
  const scale = 2 ** checkedEntry(decoder.manifest).uv_bits - 1;
  const [steps, us, vs] = threeOf(decoder, "corners");
  const vertices = new Float32Array(3 * stage.points);
  decoder.positions(stage, { from: 0, to: stage.points, stride: 1 }, vertices);
  if (!vertices.every(Number.isFinite)) throw damaged("a vertex lies beyond float32");
  const count = steps.length;
  const positions = new Float32Array(3 * count);
  const uv = new Float32Array(2 * count);
  for (let i = 0, vertex = 0; i < count; i++) {
    vertex += steps[i]!;
    const [u, v] = [us[i]!, vs[i]!];
    if (!(vertex >= 0 && vertex < stage.points))
      throw damaged("a corner is of a vertex that is not there");
    if (!(u >= 0 && u <= scale && v >= 0 && v <= scale)) {
      throw damaged("a corner lies outside the texture");
    }
    for (let a = 0; a < 3; a++) positions[3 * i + a] = vertices[3 * vertex + a]!;
    uv[2 * i] = u / scale;
    uv[2 * i + 1] = v / scale;
  }
  return { vertices: stage.points, positions, uv, triangles: readTriangles(decoder, count) };
}

/** [T, 3] rows of `corners` corners. */
function readTriangles(decoder: StageDecoder, corners: number): Uint32Array<ArrayBuffer> {
  const [steps, seconds, thirds] = threeOf(decoder, "triangles");
  const out = new Uint32Array(3 * steps.length);
  for (let t = 0, first = 0; t < steps.length; t++) {
    first += steps[t]!;
    const [second, third] = [first + seconds[t]!, first + thirds[t]!];
    const [low, high] = [Math.min(first, second, third), Math.max(first, second, third)];
    if (!(low >= 0 && high < corners)) throw damaged("a triangle is of corners that are not there");
    out[3 * t] = first;
    out[3 * t + 1] = second;
    out[3 * t + 2] = third;
  }
  return out;
}

function threeOf(decoder: StageDecoder, name: string) {
  return decoder.take(name) as [Int32Array, Int32Array, Int32Array];
}
