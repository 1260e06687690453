import { SceneError } from "../errors";
import {
  bad,
  bytesOf,
  column,
  type Glb,
  natural,
  openChunks,
  type Primitive,
  primitivesOf,
} from "../gltf";
import { pictureSize } from "../picture-size";
import type { PictureDecoder } from "../sog";
import { guardMesh, type MeshData, type Texels, withLevels } from "./mesh";

const SPLATS = "KHR_gaussian_splatting";
const READ = new Set([
  "KHR_mesh_quantization",
  "KHR_materials_unlit",
  "EXT_texture_webp",
  "EXT_meshopt_compression",
]);
const TRIANGLES = 4;
/** Places in a texture that are beyond it by less are rounded ones. */
const ROUNDED = 1e-3;
const PLAIN = 8;

/** Whether a GLB is triangles: without splats, that is. */
export function isMeshGlb(bytes: Uint8Array): boolean {
  const { json } = openChunks(bytes);
  const meshes = json.meshes ?? [];
  return (
    meshes.length > 0 && !meshes.some((m) => m?.primitives?.some((p) => p?.extensions?.[SPLATS]))
  );
}

/**
 * The triangles of a GLB with one material, in the axes of the 3DGS PLY. Throws `format` for what
 * `scene4d view` makes a bundle of: several materials, textures that repeat; `damaged`,
 * `mesh-too-big`.
 */
export async function openMeshGlb(
  bytes: Uint8Array,
  decodePicture: PictureDecoder,
): Promise<MeshData> {
  const glb = openChunks(bytes);
  const unread = (glb.json.extensionsRequired ?? []).filter((name) => !READ.has(name));
  if (unread.length > 0) throw bad(`needs ${unread.join(", ")}`);
  const parts = primitivesOf(glb)
    .filter(({ primitive }) => (primitive.mode ?? TRIANGLES) === TRIANGLES)
    .map(({ primitive, matrix }) => readPart(glb, primitive, matrix));
  if (parts.length === 0) throw bad("no triangles in it");
  if (new Set(parts.map((p) => p.material)).size > 1) throw bad("several materials");
  const positions = joined(
    Float32Array,
    parts.map((p) => p.positions),
  );
  const uv = joined(
    Float32Array,
    parts.map((p) => p.uv),
  );
  let first = 0;
  for (const part of parts) {
    for (let i = 0; i < part.triangles.length; i++) part.triangles[i]! += first;
    first += part.positions.length / 3;
  }
  const triangles = joined(
    Uint32Array,
    parts.map((p) => p.triangles),
  );
  const counts = { bytes: bytes.length, corners: first, triangles: triangles.length / 3 };
  const texture = await readTexture(glb, parts[0]!.material, decodePicture, (width, height) =>
    guardMesh({ ...counts, texels: width * height }, "GLB"),
  );
  return { vertices: first, positions, uv, triangles, texture };
}

function joined<T extends Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>(
  Kind: new (length: number) => T,
  arrays: T[],
): T {
  const out = new Kind(arrays.reduce((sum, a) => sum + a.length, 0));
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}

interface MeshPart {
  positions: Float32Array<ArrayBuffer>;
  uv: Float32Array<ArrayBuffer>;
  triangles: Uint32Array<ArrayBuffer>;
  material: number | undefined;
}

function readPart(glb: Glb, primitive: Primitive, m: number[]): MeshPart {
  const { attributes, indices, material } = primitive;
  const countOf = (index: number | undefined) => {
    const count = glb.json.accessors?.[index ?? -1]?.count ?? 0;
    if (!natural(count)) throw new SceneError("damaged", "GLB", `${count} rows`);
    return count;
  };
  const count = countOf(attributes.POSITION);
  const place = column(glb, attributes.POSITION, "POSITION", count);
  const textured = attributes.TEXCOORD_0 !== undefined;
  const at = textured ? column(glb, attributes.TEXCOORD_0, "TEXCOORD_0", count) : () => 0;
  const corner = indices === undefined ? null : column(glb, indices, "indices", countOf(indices));
  const corners = corner ? countOf(indices) : count;
  guardMesh({ bytes: 0, corners: count, triangles: corners / 3, texels: 0 }, "GLB");
  const positions = new Float32Array(3 * count);
  const uv = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    const [x, y, z] = [place(i, 0), place(i, 1), place(i, 2)];
    for (let a = 0; a < 3; a++) {
      positions[3 * i + a] = m[4 * a]! * x + m[4 * a + 1]! * y + m[4 * a + 2]! * z + m[4 * a + 3]!;
    }
    for (let a = 0; a < 2; a++) {
      const value = at(i, a);
      if (!(value >= -ROUNDED && value <= 1 + ROUNDED)) throw bad("its texture repeats");
      uv[2 * i + a] = value;
    }
  }
  if (!positions.every(Number.isFinite)) {
    throw new SceneError("damaged", "GLB", "a vertex lies nowhere");
  }
  const triangles = new Uint32Array(3 * Math.floor(corners / 3));
  for (let i = 0; i < triangles.length; i++) {
    const vertex = corner ? corner(i, 0) : i;
    if (!(vertex < count)) throw new SceneError("damaged", "GLB", "a triangle of no vertex");
    triangles[i] = vertex;
  }
  return { positions, uv, triangles, material };
}

/** The base colours of a material, by glTF white where there is none. */
async function readTexture(
  glb: Glb,
  material: number | undefined,
  decodePicture: PictureDecoder,
  guard: (width: number, height: number) => void,
): Promise<Texels> {
  const { json } = glb;
  const found = json.materials?.[material ?? -1]?.pbrMetallicRoughness ?? {};
  const { baseColorTexture: named, baseColorFactor: factor = [1, 1, 1, 1] } = found;
  if (named?.texCoord || named?.extensions?.KHR_texture_transform) {
    throw bad("its texture is placed in a way that is not read");
  }
  const shares = factor.slice(0, 3).map(shownOf);
  if (!named) {
    const grey = new Uint8Array(4 * PLAIN ** 2).fill(255);
    return withLevels(PLAIN, PLAIN, tinted(grey, shares));
  }
  const texture = json.textures?.[named.index];
  const source = texture?.extensions?.EXT_texture_webp?.source ?? texture?.source;
  const bytes = bytesOf(glb, json.images?.[source ?? -1]?.bufferView);
  const told = pictureSize(bytes);
  if (!told) throw bad("its texture is neither WebP, JPEG nor PNG");
  guard(told.width, told.height);
  const { width, height, data } = await decodePicture(bytes);
  return withLevels(width, height, tinted(data as Uint8Array<ArrayBuffer>, shares));
}

/** A linear share of light as pictures have it (sRGB). */
function shownOf(share: number): number {
  const s = Math.max(0, Math.min(1, share));
  return s <= 0.0031308 ? 12.92 * s : 1.055 * s ** (1 / 2.4) - 0.055;
}

function tinted(data: Uint8Array<ArrayBuffer>, shares: number[]): Uint8Array<ArrayBuffer> {
  if (shares.every((share) => share === 1)) return data;
  return data.map((v, i) => (i % 4 < 3 ? Math.round(v * shares[i % 4]!) : v));
}
