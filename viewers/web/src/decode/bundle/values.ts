import { damaged } from "./bytes";
import type { Columns } from "./channels";
import type { Array as ArrayEntry } from "./manifest.gen";

const MAX_VALUES_PER_ITEM = 1024;
const ROWS = 512;

/** Items `from`, `from` + `stride` ... below `to`. */
export interface Range {
  from: number;
  to: number;
  stride: number;
}

export function rangeSize({ from, to, stride }: Range): number {
  return Math.max(0, Math.ceil((to - from) / stride));
}

/** Where values go: rows of `width` numbers, each item's from column `at` to the row's end. */
export interface Target {
  data: Float32Array;
  width: number;
  at: number;
  /** Values that an item must have; those beyond the row's end are left out. */
  of: number;
}

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

  /** Values of the items in `range` of an array whose codes are `codes`. */
  of(name: string, codes: Columns, range: Range): Matrix {
    const { entry, columns } = this.coded(name, codes);
    return this.evaluate(entry, columns, range, 0);
  }

  /** Writes such values where `target` says. */
  into(name: string, codes: Columns, range: Range, target: Target): void {
    const { entry, columns } = this.coded(name, codes);
    const { data, width, at, of } = target;
    if (entry.quantiser?.type !== "codebook" && !entry.basis && !entry.mean) {
      checkColumns(name, columns.length, of);
      const { from, to, stride } = range;
      // Some rows at a time, all their columns while they are in the processor's cache.
      for (let i = from, o = at; i < to; i += ROWS * stride, o += ROWS * width) {
        const part = { from: i, to: Math.min(to, i + ROWS * stride), stride };
        for (let c = 0; c < Math.min(of, width - at); c++) {
          unquantise(entry, c, columns[c]!, part, data, width, o + c);
        }
      }
      return;
    }
    const matrix = this.evaluate(entry, columns, range, 0);
    checkColumns(name, matrix.columns, of);
    for (let i = 0; i < matrix.rows; i++) {
      for (let c = 0; c < Math.min(of, width - at); c++) {
        data[i * width + at + c] = matrix.data[i * of + c]!;
      }
    }
  }

  private coded(name: string, codes: Columns): { entry: ArrayEntry; columns: Int32Array[] } {
    const entry = this.entries.get(name);
    const columns = codes.get(name);
    if (!entry || !columns) throw damaged(`array ${name} is missing`);
    return { entry, columns };
  }

  /** Values of an array that another one refers to. */
  private referredTo(name: string, depth: number): Matrix {
    const found = this.referred.get(name);
    if (found) return found;
    const entry = this.entries.get(name);
    const columns = this.columnsOf(name);
    if (!entry || !columns) throw damaged(`array ${name} is missing`);
    if (depth > 4) throw damaged(`array ${name} refers to itself`);
    const range = { from: 0, to: columns[0]!.length, stride: 1 };
    const matrix = this.evaluate(entry, columns, range, depth);
    this.referred.set(name, matrix);
    return matrix;
  }

  private evaluate(entry: ArrayEntry, columns: Int32Array[], range: Range, depth: number): Matrix {
    let matrix = this.quantised(entry, columns, range, depth);
    if (entry.basis) matrix = multiply(matrix, this.referredTo(entry.basis, depth + 1), entry.name);
    if (entry.mean) addMean(matrix, this.referredTo(entry.mean, depth + 1), entry.name);
    return matrix;
  }

  private quantised(entry: ArrayEntry, columns: Int32Array[], range: Range, depth: number): Matrix {
    const { quantiser } = entry;
    if (quantiser?.type === "codebook") {
      return fromBook(this.referredTo(quantiser.array, depth + 1), columns, range, entry.name);
    }
    const [rows, width] = [rangeSize(range), columns.length];
    const data = new Float32Array(rows * width);
    for (const [c, codes] of columns.entries()) {
      unquantise(entry, c, codes, range, data, width, c);
    }
    return { rows, columns: width, data };
  }
}

function checkColumns(name: string, found: number, wanted: number): void {
  if (found !== wanted) throw damaged(`array ${name} has ${found} columns, not ${wanted}`);
}

/** One component's values to column `at` of rows of `width`. */
function unquantise(
  { name, quantiser }: ArrayEntry,
  component: number,
  codes: Int32Array,
  { from, to, stride }: Range,
  out: Float32Array,
  width: number,
  at: number,
): void {
  const uniform = quantiser?.type === "uniform" ? quantiser : null;
  const step = uniform ? uniform.step[component] : 1;
  const offset = uniform ? uniform.offset[component] : 0;
  if (step === undefined || offset === undefined) {
    throw damaged(`array ${name} needs a step and an offset per component`);
  }
  // Stays 0 unless a number is not finite.
  let trouble = 0;
  for (let i = from, o = at; i < to; i += stride, o += width) {
    const value = Math.fround(offset + step * codes[i]!);
    trouble += value - value;
    out[o] = value;
  }
  if (trouble !== 0) throw damaged(`array ${name} has values beyond float32`);
}

function fromBook(book: Matrix, columns: Int32Array[], range: Range, name: string): Matrix {
  const rows = rangeSize(range);
  const width = columns.length * book.columns;
  if (width > MAX_VALUES_PER_ITEM) throw damaged(`array ${name} has ${width} values per item`);
  const data = new Float32Array(rows * width);
  for (const [c, codes] of columns.entries()) {
    for (let i = 0; i < rows; i++) {
      const code = codes[range.from + i * range.stride]!;
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
