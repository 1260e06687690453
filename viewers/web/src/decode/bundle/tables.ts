import { damaged, inflate } from "./bytes";

export const PRECISION = 12;
export const TOTAL = 4096;
const MAX_TABLES = 4096;
const MAX_INFLATED = 2_105_344;

/** All frequency tables of a bundle, spread out for decoding (SPEC.md, section 3). */
export class Tables {
  /** [tables * 4096] the symbol of every slot. */
  readonly symbols: Uint16Array;
  /** Frequency of each symbol, and its start shifted by 13; tables one behind the other. */
  readonly steps: Uint32Array;
  /** Where the steps of each table begin. */
  readonly first: Uint32Array;

  constructor(
    readonly count: number,
    frequencies: readonly Uint16Array[],
  ) {
    this.symbols = new Uint16Array(count * TOTAL);
    this.steps = new Uint32Array(frequencies.reduce((sum, table) => sum + table.length, 0));
    this.first = new Uint32Array(count);
    let at = 0;
    for (const [t, table] of frequencies.entries()) {
      this.first[t] = at;
      let start = 0;
      for (let s = 0; s < table.length; s++) {
        const frequency = table[s]!;
        this.steps[at++] = frequency | (start << 13);
        this.symbols.fill(s, t * TOTAL + start, t * TOTAL + start + frequency);
        start += frequency;
      }
    }
  }

  /** Reads the member. Throws `damaged` on anything that is not sound tables. */
  static async parse(member: Uint8Array<ArrayBuffer>): Promise<Tables> {
    const values = varints(await inflate("the frequency tables", member, MAX_INFLATED));
    const tables: Uint16Array[] = [];
    for (let at = 0; at < values.length; ) {
      const size = values[at]!;
      const table = values.subarray(at + 1, at + 1 + size);
      const sum = table.reduce((a, b) => a + b, 0);
      if (size === 0 || size > TOTAL || table.length !== size || sum !== TOTAL) {
        throw damaged(`frequency table ${tables.length} is cut off or does not sum to ${TOTAL}`);
      }
      tables.push(table);
      at += 1 + size;
      if (tables.length > MAX_TABLES) throw damaged(`more than ${MAX_TABLES} frequency tables`);
    }
    return new Tables(tables.length, tables);
  }
}

/** Numbers of one or two bytes, 7 bits each, low bits first. */
function varints(bytes: Uint8Array): Uint16Array {
  const out = new Uint16Array(bytes.length);
  let count = 0;
  for (let at = 0; at < bytes.length; count++) {
    const low = bytes[at++]!;
    if (low < 128) out[count] = low;
    else if (at < bytes.length && bytes[at]! < 128) out[count] = (low & 127) | (bytes[at++]! << 7);
    else throw damaged("the frequency tables contain a number longer than two bytes");
  }
  return out.subarray(0, count);
}
