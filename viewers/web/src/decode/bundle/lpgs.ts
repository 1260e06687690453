import { allocateSplats, CHUNK_SPLATS, type SplatData, sigmoid } from "../splats";
import { damaged } from "./bytes";
import { FamilyNetwork } from "./family";
import type { KindReader, SplatKind } from "./kind";
import { checkedStructure, type Structure } from "./lpgs-structure";
import { readStored } from "./plain";
import type { DecodedStage, StageDecoder } from "./stages";
import { type Range, rangeSize } from "./values";

/** Kind `lpgs` (SPEC.md, section 7): parents, and a network that corrects and adds to them. */
export const lpgsKind: SplatKind = {
  drawable: "splats",
  check(manifest) {
    checkedStructure(manifest);
    const points = manifest.stages.reduce((sum, s) => sum + s.points, 0);
    if (points > manifest.count) {
      throw damaged(`count is ${manifest.count}, the stages have ${points} parents`);
    }
  },
  open: (decoder, degree) => new Families(decoder, degree),
};

class Families implements KindReader {
  readonly pointsPerPiece: number;
  private readonly structure: Structure;
  private network: FamilyNetwork | null = null;

  constructor(
    private readonly decoder: StageDecoder,
    private readonly degree: number,
  ) {
    this.structure = checkedStructure(decoder.manifest);
    this.pointsPerPiece = Math.floor(CHUNK_SPLATS / (1 + this.structure.num_children));
  }

  size(stage: DecodedStage): number {
    const masks = this.masks(stage);
    if (!masks) return stage.points;
    return stage.points + this.living(masks, { from: 0, to: stage.points, stride: 1 });
  }

  /** Parents in `range`, then their living children by parent. */
  read(stage: DecodedStage, range: Range): SplatData {
    const masks = this.masks(stage);
    const parents = rangeSize(range);
    const born = masks ? this.living(masks, range) : 0;
    const data = allocateSplats(parents + born, this.degree);
    readStored(this.decoder, stage, range, data);
    uncontract(data.means, parents, this.structure);
    const { grid, num_children } = this.structure;
    if (grid || num_children > 0) {
      this.network ??= new FamilyNetwork(this.structure, this.decoder, this.degree);
      this.network.run(data, parents, masks ? kept(masks, range) : null);
      checkFinite(data);
    }
    activate(data);
    return data;
  }

  private masks(stage: DecodedStage): Int32Array | null {
    if (this.structure.num_children === 0 || stage.points === 0) return null;
    const columns = stage.codes.get("children");
    if (!columns) throw damaged("array children is missing");
    if (columns.length !== 1) throw damaged(`array children has ${columns.length} columns`);
    return columns[0]!;
  }

  /** Children of the parents in `range`. */
  private living(masks: Int32Array, { from, to, stride }: Range): number {
    const K = this.structure.num_children;
    let count = 0;
    let beyond = 0;
    for (let i = from; i < to; i += stride) {
      beyond |= masks[i]! >> K;
      for (let bits = masks[i]!; bits !== 0; bits &= bits - 1) count++;
    }
    if (beyond !== 0) throw damaged(`array children has bits beyond its ${K} children`);
    return count;
  }
}

function kept(masks: Int32Array, { from, to, stride }: Range): Int32Array {
  return stride === 1
    ? masks.subarray(from, to)
    : masks.slice(from, to).filter((_, i) => i % stride === 0);
}

/** Points of the unit cube become places of the scene (Mip-NeRF 360, equation 10, inverted). */
function uncontract(points: Float32Array, count: number, { centre, radius }: Structure): void {
  const [cx, cy, cz] = centre;
  let farthest = 0;
  for (let i = 0; i < 3 * count; i += 3) {
    const x = 4 * (points[i]! - 0.5);
    const y = 4 * (points[i + 1]! - 0.5);
    const z = 4 * (points[i + 2]! - 0.5);
    const n = Math.max(1, Math.sqrt(x * x + y * y + z * z));
    farthest = Math.max(farthest, n);
    const s = radius / (n * (2 - n));
    points[i] = cx + s * x;
    points[i + 1] = cy + s * y;
    points[i + 2] = cz + s * z;
  }
  if (!(farthest < 2)) throw damaged("a position lies outside the contracted space");
}

/** What a network computes may leave the numbers; stored values were checked before. */
function checkFinite({ means, quats, scales, opacities, sh }: SplatData): void {
  for (const values of [means, quats, scales, opacities, sh]) {
    // Stays 0 unless a number is not finite.
    let trouble = 0;
    for (let i = 0; i < values.length; i++) trouble += values[i]! - values[i]!;
    if (trouble !== 0) throw damaged("an attribute is not a finite number");
  }
}

/** Logits, logarithms and rotations (1, v) become what is drawn. */
function activate({ count, quats, scales, opacities }: SplatData): void {
  for (let i = 0; i < count; i++) {
    const x = quats[4 * i + 1]!;
    const y = quats[4 * i + 2]!;
    const z = quats[4 * i + 3]!;
    const s = 1 / Math.sqrt(1 + x * x + y * y + z * z);
    quats[4 * i] = s;
    quats[4 * i + 1] = s * x;
    quats[4 * i + 2] = s * y;
    quats[4 * i + 3] = s * z;
    opacities[i] = sigmoid(opacities[i]!);
  }
  for (let i = 0; i < 3 * count; i++) scales[i] = Math.exp(scales[i]!);
}
