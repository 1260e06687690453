import { damaged } from "./bytes";
import { PRECISION, type Tables, TOTAL } from "./tables";

const LANES = 4;
const HEADER = 4 * LANES;
const LOW = 65536;
/** Bits of which a state has at least one. */
const HIGH = -65536;

/** Decodes one stream, pass by pass, in unsigned 32-bit integers (SPEC.md, section 3). */
export class RansDecoder {
  private readonly states = new Uint32Array(LANES);
  private readonly words: Uint16Array;
  private at = 0;

  constructor(
    bytes: Uint8Array,
    private readonly tables: Tables,
  ) {
    if (bytes.length < HEADER || bytes.length % 2) throw damaged("a coded stream is cut off");
    // A copy starts at an even address whatever the stream's offset.
    const aligned = bytes.slice();
    this.states.set(new Uint32Array(aligned.buffer, 0, LANES));
    this.words = new Uint16Array(aligned.buffer, HEADER);
    if (this.states.some((x) => x < LOW))
      throw damaged("a coded stream starts in an impossible state");
  }

  /** Symbols by one table, or by table + rows[i]; `low` is added to each. */
  symbols(count: number, table: number, rows: Uint8Array | null = null, low = 0): Int32Array {
    const { symbols, steps, first } = this.tables;
    const { states, words } = this;
    const out = new Int32Array(count);
    let at = this.at;
    // x is the state of the next item's lane; the others follow in turn. As signed integers.
    let x = states[0]! | 0;
    let x1 = states[1]! | 0;
    let x2 = states[2]! | 0;
    let x3 = states[3]! | 0;
    for (let i = 0; i < count; i++) {
      const t = rows ? table + rows[i]! : table;
      const slot = x & (TOTAL - 1);
      const symbol = symbols[t * TOTAL + slot]!;
      const step = steps[first[t]! + symbol]!;
      out[i] = (symbol + low) | 0;
      let next = (Math.imul(step & 8191, x >>> PRECISION) + slot - (step >>> 13)) | 0;
      if ((next & HIGH) === 0) next = (next << 16) | words[at++]!;
      x = x1;
      x1 = x2;
      x2 = x3;
      x3 = next;
    }
    this.advance(at, count, [x, x1, x2, x3]);
    return out;
  }

  /**
   * Symbols whose table also depends on the symbol before: table + rows[i] * P + the number of
   * `edges` that are <= it, P being one more than there are edges. `low` is added to each.
   */
  chained(
    count: number,
    table: number,
    rows: Uint8Array | null,
    edges: readonly number[],
    low = 0,
  ): Int32Array {
    const { symbols, steps, first } = this.tables;
    const { states, words } = this;
    const classes = new Uint8Array(TOTAL);
    for (const edge of edges) for (let s = edge; s < TOTAL; s++) classes[s]!++;
    const P = edges.length + 1;
    const out = new Int32Array(count);
    let at = this.at;
    let previous = 0;
    let x = states[0]! | 0;
    let x1 = states[1]! | 0;
    let x2 = states[2]! | 0;
    let x3 = states[3]! | 0;
    for (let i = 0; i < count; i++) {
      const t = table + (rows ? rows[i]! * P : 0) + previous;
      const slot = x & (TOTAL - 1);
      const symbol = symbols[t * TOTAL + slot]!;
      const step = steps[first[t]! + symbol]!;
      out[i] = (symbol + low) | 0;
      previous = classes[symbol]!;
      let next = (Math.imul(step & 8191, x >>> PRECISION) + slot - (step >>> 13)) | 0;
      if ((next & HIGH) === 0) next = (next << 16) | words[at++]!;
      x = x1;
      x1 = x2;
      x2 = x3;
      x3 = next;
    }
    this.advance(at, count, [x, x1, x2, x3]);
    return out;
  }

  /** Values of `width` plain bits. */
  bits(count: number, width: number): Uint16Array {
    const { states, words } = this;
    const out = new Uint16Array(count);
    const shift = PRECISION - width;
    const rest = (1 << shift) - 1;
    let at = this.at;
    let x = states[0]! | 0;
    let x1 = states[1]! | 0;
    let x2 = states[2]! | 0;
    let x3 = states[3]! | 0;
    for (let i = 0; i < count; i++) {
      out[i] = (x & (TOTAL - 1)) >>> shift;
      let next = (((x >>> PRECISION) << shift) + (x & rest)) | 0;
      if ((next & HIGH) === 0) next = (next << 16) | words[at++]!;
      x = x1;
      x1 = x2;
      x2 = x3;
      x3 = next;
    }
    this.advance(at, count, [x, x1, x2, x3]);
    return out;
  }

  /** Ends a pass of `count` items; `lanes` begin with the one whose turn is next. */
  private advance(at: number, count: number, lanes: readonly number[]): void {
    if (at > this.words.length) throw damaged("a coded stream ends before its last symbol");
    this.at = at;
    for (let j = 0; j < LANES; j++) this.states[(count + j) % LANES] = lanes[j]!;
  }

  /** Throws unless the stream ends exactly here. */
  finish(): void {
    if (this.at !== this.words.length || this.states.some((x) => x !== LOW)) {
      throw damaged("a coded stream does not end where its symbols end");
    }
  }
}
