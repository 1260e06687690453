import { damaged } from "./bytes";
import type { StageDecoder } from "./stages";

/** Outputs that are summed up together; weights are padded with zeros to a multiple of it. */
const LANES = 4;

/** One linear layer: x becomes W x + b. */
export class Layer {
  private constructor(
    /** [padded outputs / 4, inputs, 4]: the order in which they are used. */
    private readonly weights: Float64Array,
    private readonly bias: Float64Array,
    private readonly outputs: number,
    private readonly inputs: number,
  ) {}

  /** The arrays of layer `name`, of which the first `used` outputs are wanted. */
  static read(
    decoder: StageDecoder,
    name: string,
    [outputs, inputs]: [number, number],
    used = outputs,
  ): Layer {
    const column = (part: string, items: number) => {
      const { rows, columns, data } = decoder.fixed(`net_${name}_${part}`);
      return rows === items && columns === 1 ? data : null;
    };
    const weight = column("weight", outputs * inputs);
    const bias = column("bias", outputs);
    if (!weight || !bias) {
      throw damaged(`layer ${name} does not have ${outputs} x ${inputs} weights`);
    }
    const groups = Math.ceil(used / LANES);
    const weights = new Float64Array(groups * inputs * LANES);
    const padded = new Float64Array(groups * LANES);
    for (let o = 0; o < used; o++) {
      const group = Math.floor(o / LANES) * inputs * LANES + (o % LANES);
      for (let i = 0; i < inputs; i++) weights[group + LANES * i] = weight[o * inputs + i]!;
      padded[o] = bias[o]!;
    }
    return new Layer(weights, padded, used, inputs);
  }

  /** Rows `from` .. `to` - 1 of `x` to those of `out`; negative numbers become 0 with `relu`. */
  apply(x: Float64Array, from: number, to: number, out: Float64Array, relu: boolean): void {
    for (let row = from; row < to; row += 2) {
      // The last of an odd number of rows is computed twice.
      this.pair(x, row, Math.min(row + 1, to - 1), out, relu);
    }
  }

  /** Two rows by four outputs at a time: eight sums fill the registers. */
  private pair(x: Float64Array, r: number, q: number, out: Float64Array, relu: boolean): void {
    const { weights, bias, inputs, outputs } = this;
    const low = relu ? 0 : Number.NEGATIVE_INFINITY;
    const xr = r * inputs;
    const xq = q * inputs;
    let w = 0;
    for (let o = 0; o < outputs; o += LANES) {
      let a0 = bias[o]!;
      let a1 = bias[o + 1]!;
      let a2 = bias[o + 2]!;
      let a3 = bias[o + 3]!;
      let b0 = a0;
      let b1 = a1;
      let b2 = a2;
      let b3 = a3;
      for (let i = 0; i < inputs; i++, w += LANES) {
        const a = x[xr + i]!;
        const b = x[xq + i]!;
        const w0 = weights[w]!;
        const w1 = weights[w + 1]!;
        const w2 = weights[w + 2]!;
        const w3 = weights[w + 3]!;
        a0 += a * w0;
        a1 += a * w1;
        a2 += a * w2;
        a3 += a * w3;
        b0 += b * w0;
        b1 += b * w1;
        b2 += b * w2;
        b3 += b * w3;
      }
      const end = outputs - o;
      const or = r * outputs + o;
      const oq = q * outputs + o;
      out[or] = Math.max(low, a0);
      out[oq] = Math.max(low, b0);
      if (end > 1) {
        out[or + 1] = Math.max(low, a1);
        out[oq + 1] = Math.max(low, b1);
      }
      if (end > 2) {
        out[or + 2] = Math.max(low, a2);
        out[oq + 2] = Math.max(low, b2);
      }
      if (end > 3) {
        out[or + 3] = Math.max(low, a3);
        out[oq + 3] = Math.max(low, b3);
      }
    }
  }
}
