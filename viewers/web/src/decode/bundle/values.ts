import { damaged } from "./bytes";
import type { Columns } from "./channels";
import type { Array as ArrayEntry } from "./manifest.gen";

const MAX_VALUES_PER_ITEM = 1024;

export interface Matrix {
  rows: number;
  columns: number;
  /** Rows one behind the other. */
  data: Float32Array;
}

/** Turns codes into numbers (SPEC.md, section 5); books, bases and means are turned once. */
export class Values {
  private readonly referred = new Map<string, Matrix>();

  constructor(
    private readonly entries: ReadonlyMap<string, ArrayEntry>,
    private readonly columnsOf: (name: string) => Int32Array[] | undefined,
  ) {}

  /** Values of items `from` .. `to` - 1 of an array whose codes are `codes`. */
  of(name: string, codes: Columns, from: number, to: number): Matrix {
    const entry = this.entries.get(name);
    const columns = codes.get(name);
    if (!entry || !columns) throw damaged(`array ${name} is missing`);
    return this.evaluate(entry, columns, from, to, 0);
  }

  /** Columns that an array's values have. */
  private referredTo(name: string, depth: number): Matrix {
    const found = this.referred.get(name);
    if (found) return found;
    const entry = this.entries.get(name);
    const columns = this.columnsOf(name);
    if (!entry || !columns) throw damaged(`array ${name} is missing`);
    if (depth > 4) throw damaged(`array ${name} refers to itself`);
    const matrix = this.evaluate(entry, columns, 0, columns[0]!.length, depth);
    this.referred.set(name, matrix);
    return matrix;
  }

  private evaluate(
    entry: ArrayEntry,
    columns: Int32Array[],
    from: number,
    to: number,
    depth: number,
  ): Matrix {
    let matrix = this.quantised(entry, columns, from, to, depth);
    if (entry.basis) matrix = multiply(matrix, this.referredTo(entry.basis, depth + 1), entry.name);
    if (entry.mean) addMean(matrix, this.referredTo(entry.mean, depth + 1), entry.name);
    return matrix;
  }

  private quantised(
    entry: ArrayEntry,
    columns: Int32Array[],
    from: number,
    to: number,
    depth: number,
  ): Matrix {
    const rows = to - from;
    const { quantiser } = entry;
    if (quantiser?.type === "codebook") {
      return fromBook(this.referredTo(quantiser.array, depth + 1), columns, from, rows, entry.name);
    }
    const width = columns.length;
    const data = new Float32Array(rows * width);
    for (const [c, codes] of columns.entries()) {
      const step = quantiser ? quantiser.step[c] : 1;
      const offset = quantiser ? quantiser.offset[c] : 0;
      if (step === undefined || offset === undefined) {
        throw damaged(`array ${entry.name} needs a step and an offset per component`);
      }
      for (let i = 0; i < rows; i++) data[i * width + c] = offset + step * codes[from + i]!;
    }
    if (!data.every(Number.isFinite))
      throw damaged(`array ${entry.name} has values beyond float32`);
    return { rows, columns: width, data };
  }
}

function fromBook(
  book: Matrix,
  columns: Int32Array[],
  from: number,
  rows: number,
  name: string,
): Matrix {
  const width = columns.length * book.columns;
  if (width > MAX_VALUES_PER_ITEM) throw damaged(`array ${name} has ${width} values per item`);
  const data = new Float32Array(rows * width);
  for (const [c, codes] of columns.entries()) {
    for (let i = 0; i < rows; i++) {
      const code = codes[from + i]!;
      if (code < 0 || code >= book.rows) throw damaged(`array ${name} has a code outside its book`);
      for (let k = 0; k < book.columns; k++) {
        data[i * width + c * book.columns + k] = book.data[code * book.columns + k]!;
      }
    }
  }
  return { rows, columns: width, data };
}

function multiply(a: Matrix, b: Matrix, name: string): Matrix {
  if (a.columns !== b.rows) throw damaged(`array ${name} does not fit its basis`);
  const out = new Float32Array(a.rows * b.columns);
  const row = new Float64Array(b.columns);
  for (let i = 0; i < a.rows; i++) {
    row.fill(0);
    for (let k = 0; k < a.columns; k++) {
      const x = a.data[i * a.columns + k]!;
      // Most coefficients are quantised to zero.
      if (x === 0) continue;
      for (let j = 0; j < b.columns; j++) row[j]! += x * b.data[k * b.columns + j]!;
    }
    out.set(row, i * b.columns);
  }
  return { rows: a.rows, columns: b.columns, data: out };
}

function addMean(matrix: Matrix, mean: Matrix, name: string): void {
  if (mean.rows !== 1 || mean.columns !== matrix.columns)
    throw damaged(`array ${name} does not fit its mean`);
  for (let i = 0; i < matrix.data.length; i++) matrix.data[i]! += mean.data[i % mean.columns]!;
}
