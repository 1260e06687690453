import { damaged } from "./bytes";
import { type Columns, decodeArray } from "./channels";
import type { Bundle } from "./container";
import { checkLimits, columns } from "./limits";
import type { Array as ArrayEntry, Manifest, Stage } from "./manifest.gen";
import { decodePositions } from "./positions";
import { RansDecoder } from "./rans";
import { Tables } from "./tables";
import { type Matrix, type Range, Values } from "./values";

/** One decoded stage: grid points and codes in coding order. */
export interface DecodedStage {
  number: number;
  points: number;
  /** Grid coordinates x, y, z; null when the stage has no points. */
  grid: [Uint32Array, Uint32Array, Uint32Array] | null;
  codes: Columns;
}

/** Decodes a bundle stage by stage; what every kind shares. */
export class StageDecoder {
  readonly values: Values;
  private readonly entries: Map<string, ArrayEntry>;
  /** Codes of arrays that belong to a stage as a whole. */
  private readonly whole: Columns = new Map();

  private constructor(
    readonly bundle: Bundle,
    private readonly tables: Tables,
  ) {
    this.entries = new Map(bundle.manifest.arrays.map((a) => [a.name, a]));
    this.values = new Values(this.entries, (name) => this.whole.get(name));
  }

  static async open(bundle: Bundle): Promise<StageDecoder> {
    checkDeclared(bundle);
    return new StageDecoder(bundle, await Tables.parse(await bundle.read(bundle.manifest.tables)));
  }

  get manifest(): Manifest {
    return this.bundle.manifest;
  }

  /** Decodes one stage from its member's bytes; stages in order. */
  decode(number: number, member: Uint8Array): DecodedStage {
    const stage = this.manifest.stages[number]!;
    this.checkComplete(number, stage);
    const codes: Columns = new Map();
    let grid: DecodedStage["grid"] = null;
    for (const stream of stage.streams) {
      if (stream.offset + stream.length > member.length)
        throw damaged("a stream reaches beyond its member");
      const bytes = member.subarray(stream.offset, stream.offset + stream.length);
      if (stream.positions) {
        grid = decodePositions(
          bytes,
          this.manifest.positions!,
          this.tables,
          stage.points,
          stream.depth ?? 0,
        );
        continue;
      }
      const decoder = new RansDecoder(bytes, this.tables);
      for (const name of stream.arrays ?? []) {
        const entry = this.entries.get(name)!;
        decodeArray(decoder, entry, entry.items ?? stage.points, this.tables, codes);
      }
      decoder.finish();
    }
    for (const [name, columns] of codes) {
      if (this.entries.get(name)!.stage !== undefined) this.whole.set(name, columns);
    }
    return { number, points: stage.points, grid, codes };
  }

  /** A stage codes every array that belongs to it once, and its positions once. */
  private checkComplete(number: number, stage: Stage): void {
    const expected = [...this.entries.values()]
      .filter((a) => (a.stage === undefined ? stage.points > 0 : a.stage === number))
      .map((a) => a.name);
    const coded = stage.streams.flatMap((s) => (s.positions ? [] : (s.arrays ?? [])));
    if (expected.sort().join() !== coded.sort().join()) {
      throw damaged(
        `stage ${number} codes the arrays ${coded.join(", ") || "none"}, not ${expected.join(", ")}`,
      );
    }
    const wanted = this.manifest.positions && stage.points > 0 ? 1 : 0;
    if (stage.streams.filter((s) => s.positions).length !== wanted) {
      throw damaged(`stage ${number} does not code its positions once`);
    }
  }

  /** Values of an array that belongs to a stage as a whole, once that stage is decoded. */
  fixed(name: string): Matrix {
    const items = this.whole.get(name)?.[0]?.length ?? 0;
    return this.values.of(name, this.whole, { from: 0, to: items, stride: 1 });
  }

  /** Codes of such an array as they are, column by column, which are forgotten then. */
  take(name: string): Int32Array[] {
    const columns = this.whole.get(name);
    if (!columns) throw damaged(`array ${name} is missing`);
    this.whole.delete(name);
    return columns;
  }

  /** Writes float32 positions of the items in `range` to `out`, [n, 3]. */
  positions(stage: DecodedStage, { from, to, stride }: Range, out: Float32Array): void {
    if (!stage.grid) throw damaged("a scene of points has no positions");
    const { origin, step } = this.manifest.positions!;
    for (let a = 0; a < 3; a++) {
      const column = stage.grid[a]!;
      const start = origin[a]!;
      for (let i = from, o = a; i < to; i += stride, o += 3) out[o] = start + step * column[i]!;
    }
  }
}

/**
 * Bytes that are in memory at once while the largest stage is decoded: members that were fetched
 * and the streams' own copies; codes, plain bits and sums of contexts; nodes and places of points;
 * values of what belongs to a stage as a whole, besides its codes.
 */
export function decodedBytes({ stages, arrays, members }: Manifest): number {
  const points = Math.max(...stages.map((s) => s.points));
  const coded = new Set(stages.map((s) => s.member));
  const fetched = members.reduce((sum, m) => sum + (coded.has(m.name) ? m.length : 0), 0);
  const most = arrays.reduce((n, a) => Math.max(n, a.items ?? points), points);
  let sum = 2 * fetched + (2 + 8 + 1 + 1) * most + (2 * 14 + 12 + 12) * points;
  const entries = new Map(arrays.map((a) => [a.name, a]));
  for (const a of arrays) {
    sum += 4 * a.components * (a.items ?? points);
    if (a.items !== undefined) sum += 4 * a.items * columns(a, entries);
  }
  return sum;
}

/** Refuses what cannot be or is beyond the bounds of the format. */
export function checkDeclared(bundle: Bundle): void {
  const { stages, arrays } = bundle.manifest;
  if (new Set(arrays.map((a) => a.name)).size !== arrays.length)
    throw damaged("an array is listed twice");
  for (const a of arrays) {
    if ((a.items === undefined) !== (a.stage === undefined) || (a.stage ?? 0) >= stages.length) {
      throw damaged(`array ${a.name} needs both items and a stage that exists, or neither`);
    }
  }
  checkLimits(bundle.manifest);
}
