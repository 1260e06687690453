import { coefficients, type SplatData } from "../splats";
import { damaged } from "./bytes";
import { HashGrid } from "./hash-grid";
import { Layer } from "./layer";
import { BASE, gridFeatures, layerShapes, type Structure } from "./lpgs-structure";
import type { StageDecoder } from "./stages";

/** Parents that go through the network together: their numbers stay in the processor's cache. */
const BLOCK = 64;
/** Places further away, in radii, are refused. */
const MAX_REACH = 1e15;

/** The family network (SPEC.md, section 7): corrects parents and makes their children. */
export class FamilyNetwork {
  private readonly grid: HashGrid | null;
  private readonly token: Layer;
  private readonly inner: Layer;
  private readonly parentHead: Layer;
  private readonly childHead: Layer | null = null;
  private readonly place: Layer | null = null;
  private readonly attend: Layer | null = null;
  private readonly outputs: number;
  private readonly inputs: number;
  private readonly logRadius: number;
  // Rows of one block: a parent or a living child each.
  private readonly features: Float64Array;
  private readonly tokens: Float64Array;
  private readonly hidden: Float64Array;
  private readonly heads: Float64Array;
  private readonly offsets: Float64Array;
  private readonly attended: Float64Array;
  private readonly scores = new Float64Array(9);

  constructor(
    private readonly structure: Structure,
    decoder: StageDecoder,
    degree: number,
  ) {
    const { hidden: H, num_children: K } = structure;
    const table = structure.grid ? decoder.fixed("grid") : null;
    this.grid = table && new HashGrid(structure, table.data, table.columns);
    this.inputs = BASE + gridFeatures(structure);
    this.outputs = BASE + 3 * (coefficients(degree) - 1);
    const shapes = layerShapes(structure);
    const layer = (name: string, used?: number) => Layer.read(decoder, name, shapes[name]!, used);
    this.token = layer("token");
    this.inner = layer("inner");
    this.parentHead = layer("parent_head", this.outputs);
    if (K > 0) {
      this.childHead = layer("child_head", this.outputs);
      this.place = layer("place");
      if (structure.attention) this.attend = layer("attend");
    }
    this.logRadius = Math.fround(Math.log(structure.radius));
    const rows = BLOCK * (1 + K);
    this.features = new Float64Array(rows * this.inputs);
    this.tokens = new Float64Array(rows * H);
    this.hidden = new Float64Array(rows * H);
    this.heads = new Float64Array(rows * this.outputs);
    this.offsets = new Float64Array(BLOCK * 3 * K);
    this.attended = new Float64Array(this.attend ? rows * 3 * H : 0);
  }

  /**
   * `data` holds the stored attributes of `parents` in its first rows (places of the scene,
   * logarithms of scales, logits, x, y, z of the rotation). They are corrected in place, and the
   * other rows become the children that `masks` lets live.
   */
  run(data: SplatData, parents: number, masks: Int32Array | null): void {
    // Row of the first child of each parent, and where the last one's end.
    const first = new Uint32Array(parents + 1);
    first[0] = parents;
    for (let p = 0; p < parents; p++) {
      let born = 0;
      for (let bits = masks?.[p] ?? 0; bits !== 0; bits &= bits - 1) born++;
      first[p + 1] = first[p]! + born;
    }
    if (first[parents] !== data.count) throw damaged("children do not fit their masks");
    for (let from = 0; from < parents; from += BLOCK) {
      this.block(data, from, Math.min(parents, from + BLOCK), first, masks);
    }
  }

  private block(
    data: SplatData,
    from: number,
    to: number,
    first: Uint32Array,
    masks: Int32Array | null,
  ): void {
    const count = to - from;
    const born = first[to]! - first[from]!;
    const { hidden: H } = this.structure;
    for (let i = 0; i < count; i++) this.describe(data, from + i, from + i, i);
    this.token.apply(this.features, 0, count, this.tokens, true);
    if (born > 0) {
      this.place!.apply(this.tokens, 0, count, this.offsets, false);
      this.bear(data, from, to, first, masks!);
      this.token.apply(this.features, count, count + born, this.tokens, true);
    }
    if (this.attend) {
      this.attend.apply(this.tokens, 0, count + born, this.attended, false);
      for (let i = 0; i < count; i++) {
        const start = count + first[from + i]! - first[from]!;
        this.attention(i, start, first[from + i + 1]! - first[from + i]!, H);
      }
    }
    this.inner.apply(this.tokens, 0, count + born, this.hidden, true);
    this.parentHead.apply(this.hidden, 0, count, this.heads, false);
    if (born > 0) this.childHead!.apply(this.hidden, count, count + born, this.heads, false);
    // Children first: they start from what their parents were before.
    for (let p = from; p < to; p++) {
      for (let c = first[p]!; c < first[p + 1]!; c++) {
        this.correct(data, p, c, count + c - first[from]!);
      }
    }
    for (let i = 0; i < count; i++) this.correct(data, from + i, from + i, i);
  }

  /** Inputs of the token of the Gaussian in row `at`, with the attributes of `parent`. */
  private describe(data: SplatData, parent: number, at: number, row: number): void {
    const { scales, quats, opacities, sh, means } = data;
    const { features } = this;
    const K3 = 3 * coefficients(data.degree);
    const o = row * this.inputs;
    for (let a = 0; a < 3; a++) {
      features[o + a] = scales[3 * parent + a]! - this.logRadius + 4;
      features[o + 3 + a] = quats[4 * parent + 1 + a]!;
      features[o + 7 + a] = sh[K3 * parent + a]!;
    }
    features[o + 6] = 0.3 * opacities[parent]!;
    if (this.grid) this.checkReach(means, at);
    this.grid?.look(means[3 * at]!, means[3 * at + 1]!, means[3 * at + 2]!, features, o + BASE);
  }

  private checkReach(means: Float32Array, at: number): void {
    const { centre, radius } = this.structure;
    for (let a = 0; a < 3; a++) {
      if (!(Math.abs(means[3 * at + a]! - centre[a]!) <= MAX_REACH * radius)) {
        throw damaged("a child lies too far away");
      }
    }
  }

  /** Places the living children, and describes them. */
  private bear(
    data: SplatData,
    from: number,
    to: number,
    first: Uint32Array,
    masks: Int32Array,
  ): void {
    const K = this.structure.num_children;
    for (let p = from; p < to; p++) {
      let child = first[p]!;
      for (let k = 0; k < K; k++) {
        if (!((masks[p]! >> k) & 1)) continue;
        this.putChild(data, p, child, 3 * (K * (p - from) + k));
        this.describe(data, p, child, to - from + child - first[from]!);
        child++;
      }
    }
  }

  /** Offsets are in standard deviations along the parent's axes. */
  private putChild({ means, quats, scales }: SplatData, p: number, child: number, at: number) {
    const lx = this.offsets[at]! * Math.exp(scales[3 * p]!);
    const ly = this.offsets[at + 1]! * Math.exp(scales[3 * p + 1]!);
    const lz = this.offsets[at + 2]! * Math.exp(scales[3 * p + 2]!);
    const vx = quats[4 * p + 1]!;
    const vy = quats[4 * p + 2]!;
    const vz = quats[4 * p + 3]!;
    const twice = 2 / (1 + vx * vx + vy * vy + vz * vz);
    const cx = vy * lz - vz * ly;
    const cy = vz * lx - vx * lz;
    const cz = vx * ly - vy * lx;
    means[3 * child] = means[3 * p]! + lx + twice * (cx + vy * cz - vz * cy);
    means[3 * child + 1] = means[3 * p + 1]! + ly + twice * (cy + vz * cx - vx * cz);
    means[3 * child + 2] = means[3 * p + 2]! + lz + twice * (cz + vx * cy - vy * cx);
  }

  /** Self-attention of one family: row `parent`, and `born` rows from `start` on. */
  private attention(parent: number, start: number, born: number, H: number): void {
    const { attended, tokens, scores } = this;
    for (let i = 0; i <= born; i++) {
      const row = i === 0 ? parent : start + i - 1;
      let largest = Number.NEGATIVE_INFINITY;
      for (let j = 0; j <= born; j++) {
        const key = (j === 0 ? parent : start + j - 1) * 3 * H + H;
        let dot = 0;
        for (let h = 0; h < H; h++) dot += attended[row * 3 * H + h]! * attended[key + h]!;
        scores[j] = dot / Math.sqrt(H);
        largest = Math.max(largest, scores[j]!);
      }
      let sum = 0;
      for (let j = 0; j <= born; j++) {
        scores[j] = Math.exp(scores[j]! - largest);
        sum += scores[j]!;
      }
      for (let j = 0; j <= born; j++) {
        const value = (j === 0 ? parent : start + j - 1) * 3 * H + 2 * H;
        const weight = scores[j]! / sum;
        for (let h = 0; h < H; h++) tokens[row * H + h]! += weight * attended[value + h]!;
      }
    }
  }

  /** Gaussian `at` becomes Gaussian `parent` plus the head's row. */
  private correct(data: SplatData, parent: number, at: number, row: number): void {
    const { scales, quats, opacities, sh } = data;
    const { heads } = this;
    const K3 = 3 * coefficients(data.degree);
    const o = row * this.outputs;
    for (let a = 0; a < 3; a++) {
      scales[3 * at + a] = scales[3 * parent + a]! + heads[o + a]!;
      quats[4 * at + 1 + a] = quats[4 * parent + 1 + a]! + heads[o + 3 + a]!;
    }
    opacities[at] = opacities[parent]! + heads[o + 6]!;
    for (let k = 0; k < K3; k++) sh[K3 * at + k] = sh[K3 * parent + k]! + heads[o + 7 + k]!;
  }
}
