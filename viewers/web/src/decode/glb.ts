import { SceneError } from "./errors";
import {
  bad,
  type Column,
  column,
  type Glb,
  natural,
  openChunks,
  type Primitive,
  primitivesOf,
} from "./gltf";
import { rotateHarmonics } from "./harmonics";
import { quatOf, quatProduct } from "./rotation";
import { allocateSplats, coefficients, type SplatData, type SplatSource, setQuat } from "./splats";

const NAME = "KHR_gaussian_splatting";

interface Part {
  count: number;
  degree: number;
  columns: Record<"position" | "rotation" | "scale" | "opacity", Column>;
  sh: Column[];
  /** Rotation (row-major 3 x 3), uniform scale and translation into the axes of the 3DGS PLY. */
  rotation: number[];
  size: number;
  translation: number[];
}

/** Splats of a GLB with KHR_gaussian_splatting, in the axes of the 3DGS PLY. */
export function openGlb(bytes: Uint8Array): SplatSource {
  const glb = openChunks(bytes);
  const parts: Part[] = [];
  for (const { primitive, matrix } of primitivesOf(glb)) {
    const extension = primitive.extensions?.[NAME];
    if (!extension) continue;
    if ((extension.kernel ?? "ellipse") !== "ellipse" || extension.extensions) {
      throw bad("splats of another kernel, or compressed ones");
    }
    parts.push(openPart(glb, primitive, matrix));
  }
  if (parts.length === 0) throw bad("no Gaussian splats (KHR_gaussian_splatting) in it");
  const degree = Math.max(...parts.map((p) => p.degree));
  const starts = [0];
  for (const part of parts) starts.push(starts.at(-1)! + part.count);
  return {
    count: starts.at(-1)!,
    degree,
    read: (rows, wanted) => readRows(parts, starts, rows, Math.min(degree, wanted)),
  };
}

function openPart(glb: Glb, primitive: Primitive, m: number[]): Part {
  const count = glb.json.accessors?.[primitive.attributes.POSITION!]?.count ?? 0;
  if (!natural(count)) throw new SceneError("damaged", "GLB", `${count} splats`);
  const get = (name: string) => column(glb, primitive.attributes[name], name, count);
  const sh: Column[] = [];
  let degree = 0;
  for (let l = 0; l <= 3; l++) {
    if (primitive.attributes[`${NAME}:SH_DEGREE_${l}_COEF_0`] === undefined) break;
    for (let n = 0; n < 2 * l + 1; n++) sh.push(get(`${NAME}:SH_DEGREE_${l}_COEF_${n}`));
    degree = l;
  }
  if (sh.length === 0) throw bad("no colours");
  const size = Math.cbrt(determinant(m));
  if (!(size > 0)) throw bad("a node mirrors its splats");
  return {
    count,
    degree,
    columns: {
      position: get("POSITION"),
      rotation: get(`${NAME}:ROTATION`),
      scale: get(`${NAME}:SCALE`),
      opacity: get(`${NAME}:OPACITY`),
    },
    sh,
    rotation: [0, 1, 2, 4, 5, 6, 8, 9, 10].map((i) => m[i]! / size),
    size,
    translation: [m[3]!, m[7]!, m[11]!],
  };
}

function determinant(m: number[]): number {
  const [a, b, c, , d, e, f, , g, h, i] = m as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

function readRows(parts: Part[], starts: number[], rows: Uint32Array, degree: number): SplatData {
  const out = allocateSplats(rows.length, degree);
  const K3 = 3 * coefficients(degree);
  const turns = parts.map((p) => rotateHarmonics(p.rotation, degree));
  const quats = parts.map((p) => quatOf(p.rotation));
  for (let i = 0; i < rows.length; i++) {
    let p = 0;
    while (rows[i]! >= starts[p + 1]!) p++;
    const part = parts[p]!;
    const row = rows[i]! - starts[p]!;
    const { position, rotation, scale, opacity } = part.columns;
    const at = [0, 1, 2].map((a) => position(row, a));
    for (let a = 0; a < 3; a++) {
      const r = part.rotation;
      out.means[3 * i + a] =
        part.size * (r[3 * a]! * at[0]! + r[3 * a + 1]! * at[1]! + r[3 * a + 2]! * at[2]!) +
        part.translation[a]!;
      out.scales[3 * i + a] = part.size * scale(row, a);
    }
    out.opacities[i] = opacity(row, 0);
    const [x, y, z, w] = [0, 1, 2, 3].map((c) => rotation(row, c)) as [
      number,
      number,
      number,
      number,
    ];
    setQuat(out.quats, i, ...quatProduct(quats[p]!, [w, x, y, z]));
    for (let j = 0; j < K3; j++) out.sh[K3 * i + j] = part.sh[Math.floor(j / 3)]?.(row, j % 3) ?? 0;
    turns[p]!(out.sh, K3 * i);
  }
  return out;
}
