import { allocateSplats, CHUNK_SPLATS, coefficients, type SplatData } from "../splats";
import { damaged } from "./bytes";
import type { SplatKind } from "./kind";
import type { DecodedStage, StageDecoder } from "./stages";
import { type Range, rangeSize } from "./values";

/** Kind `splats` (SPEC.md, section 6): every point is a Gaussian. */
export const splatsKind: SplatKind = {
  drawable: "splats",
  check(manifest) {
    const points = manifest.stages.reduce((sum, s) => sum + s.points, 0);
    if (points !== manifest.count) {
      throw damaged(`count is ${manifest.count}, the stages have ${points} points`);
    }
  },
  open: (decoder, degree) => ({
    size: (stage) => stage.points,
    pointsPerPiece: CHUNK_SPLATS,
    read: (stage, range) => plainSplats(decoder, stage, range, degree),
  }),
};

function plainSplats(
  decoder: StageDecoder,
  stage: DecodedStage,
  range: Range,
  degree: number,
): SplatData {
  const data = allocateSplats(rangeSize(range), degree);
  readStored(decoder, stage, range, data);
  const { count, opacities, scales } = data;
  for (let i = 0; i < count; i++) opacities[i] = Math.max(0, Math.min(1, opacities[i]!));
  for (let i = 0; i < 3 * count; i++) scales[i] = Math.exp(scales[i]!);
  completeQuats(data.quats, count);
  return data;
}

/**
 * Writes what is stored of the points in `range` into the first rows of `data`: positions as
 * the grid has them, logarithms of scales, opacities as stored, x, y, z of the rotation.
 */
export function readStored(
  decoder: StageDecoder,
  stage: DecodedStage,
  range: Range,
  data: SplatData,
): void {
  const rest = 3 * (coefficients(decoder.manifest.sh_degree) - 1);
  const width = 3 * coefficients(data.degree);
  const { codes } = stage;
  const { values } = decoder;
  values.into("opacity", codes, range, { data: data.opacities, width: 1, at: 0, of: 1 });
  values.into("log_scales", codes, range, { data: data.scales, width: 3, at: 0, of: 3 });
  values.into("rotation", codes, range, { data: data.quats, width: 4, at: 1, of: 3 });
  values.into("dc", codes, range, { data: data.sh, width, at: 0, of: 3 });
  if (data.degree > 0) values.into("sh", codes, range, { data: data.sh, width, at: 3, of: rest });
  decoder.positions(stage, range, data.means);
}

/** w of unit quaternions from x, y, z. */
function completeQuats(quats: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) {
    const x = quats[4 * i + 1]!;
    const y = quats[4 * i + 2]!;
    const z = quats[4 * i + 3]!;
    const squares = x * x + y * y + z * z;
    quats[4 * i] = Math.sqrt(Math.max(0, 1 - squares));
    if (squares > 1) {
      const s = 1 / Math.sqrt(squares);
      quats[4 * i + 1] = s * x;
      quats[4 * i + 2] = s * y;
      quats[4 * i + 3] = s * z;
    }
  }
}
