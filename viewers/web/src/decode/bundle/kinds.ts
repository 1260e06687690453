import { CHUNK_SPLATS, coefficients, type SplatData } from "../splats";
import { damaged } from "./bytes";
import type { DecodedStage, StageDecoder } from "./stages";
import type { Matrix } from "./values";

/**
 * How one kind of bundle becomes something to draw. Kinds that need another drawable than splats
 * (light slabs, meshes, fields in time) get one beside `splats`, and the timeline its times.
 */
export interface Kind {
  /** Pieces of one stage; `stride` > 1 takes only every so manieth. */
  splats(
    decoder: StageDecoder,
    stage: DecodedStage,
    degree: number,
    stride: number,
  ): Generator<SplatData>;
}

/** Every kind that the player can draw. */
export const kinds: Readonly<Record<string, Kind>> = { splats: { splats: plainSplats } };

function* plainSplats(
  decoder: StageDecoder,
  stage: DecodedStage,
  degree: number,
  stride: number,
): Generator<SplatData> {
  const size = CHUNK_SPLATS * stride;
  for (let from = 0; from < stage.points; from += size) {
    const data = splatRange(decoder, stage, from, Math.min(stage.points, from + size), degree);
    yield stride === 1 ? data : thinned(data, stride);
  }
}

/** Splats of items `from` .. `to` - 1 of a stage (SPEC.md, section 6). */
export function splatRange(
  decoder: StageDecoder,
  stage: DecodedStage,
  from: number,
  to: number,
  degree: number,
): SplatData {
  const count = to - from;
  const stored = decoder.manifest.sh_degree;
  const read = (name: string, columns: number): Matrix => {
    const matrix = decoder.values.of(name, stage.codes, from, to);
    if (matrix.columns !== columns)
      throw damaged(`array ${name} has ${matrix.columns} columns, not ${columns}`);
    return matrix;
  };
  const opacities = read("opacity", 1).data.map((a) => Math.max(0, Math.min(1, a)));
  const scales = read("log_scales", 3).data.map(Math.exp);
  const quats = quaternions(read("rotation", 3).data);
  const dc = read("dc", 3).data;
  const K3 = 3 * coefficients(degree);
  const sh = new Float32Array(K3 * count);
  for (let i = 0; i < count; i++) for (let c = 0; c < 3; c++) sh[K3 * i + c] = dc[3 * i + c]!;
  if (degree > 0) {
    const rest = read("sh", 3 * (coefficients(stored) - 1));
    for (let i = 0; i < count; i++) {
      const row = rest.columns * i;
      for (let k = 0; k < K3 - 3; k++) sh[K3 * i + 3 + k] = rest.data[row + k]!;
    }
  }
  return { count, degree, means: decoder.positions(stage, from, to), quats, scales, opacities, sh };
}

function quaternions(xyz: Float32Array): Float32Array {
  const count = xyz.length / 3;
  const quats = new Float32Array(4 * count);
  for (let i = 0; i < count; i++) {
    const [x, y, z] = [xyz[3 * i]!, xyz[3 * i + 1]!, xyz[3 * i + 2]!];
    const squares = x * x + y * y + z * z;
    const s = squares > 1 ? 1 / Math.sqrt(squares) : 1;
    quats[4 * i] = Math.sqrt(Math.max(0, 1 - squares));
    quats[4 * i + 1] = s * x;
    quats[4 * i + 2] = s * y;
    quats[4 * i + 3] = s * z;
  }
  return quats;
}

/** Every `stride`-th splat. */
function thinned(data: SplatData, stride: number): SplatData {
  const count = Math.ceil(data.count / stride);
  const pick = (values: Float32Array, width: number) => {
    const out = new Float32Array(count * width);
    for (let i = 0; i < count; i++)
      out.set(values.subarray(i * stride * width, (i * stride + 1) * width), i * width);
    return out;
  };
  return {
    count,
    degree: data.degree,
    means: pick(data.means, 3),
    quats: pick(data.quats, 4),
    scales: pick(data.scales, 3),
    opacities: pick(data.opacities, 1),
    sh: pick(data.sh, 3 * coefficients(data.degree)),
  };
}
