import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { blockTexels } from "../../src/decode/bundle/block-transform";
import { openFile } from "../../src/decode/bundle/container";
import { lightslabKind } from "../../src/decode/bundle/lightslab";
import type { Array as ArrayEntry, Manifest } from "../../src/decode/bundle/manifest.gen";
import { mpiMemory } from "../../src/decode/bundle/mpi-texels";
import { decodedBytes } from "../../src/decode/bundle/stages";
import { atlasCells, CELL, makeMpi, mpiBytes, mpiTexelAt } from "../../src/decode/field/mpi";
import { MemorySource } from "../../src/decode/remote";
import { readBytes } from "../browser/harness";
import { randomNumbers, smallShape } from "./random-field";

const good = join(import.meta.dirname, "../../../../mobile_export/conformance/good");

/** (down, across) in stored order, as SPEC.md says it: by u + v, then by u. */
const ORDER = Array.from({ length: 64 }, (_, i) => [i >> 3, i & 7] as const).sort(
  (a, b) => a[0] + a[1] - b[0] - b[1] || a[0] - b[0],
);

/** SPEC.md's matrix. */
const D = [
  [64, 64, 64, 64, 64, 64, 64, 64],
  [89, 75, 50, 18, -18, -50, -75, -89],
  [83, 36, -36, -83, -83, -36, 36, 83],
  [75, -18, -89, -50, 50, 89, 18, -75],
  [64, -64, -64, 64, 64, -64, -64, 64],
  [50, -89, 18, 75, -75, -18, 89, -50],
  [36, -83, 83, -36, -36, 83, -83, 36],
  [18, -50, 75, -89, 89, -75, 50, -18],
];

const same = (steps: number[]) => [steps, steps, steps, steps];
const ones = (count: number) => same(Array.from({ length: count }, () => 1));
const columnsOf = (items: number[][]) =>
  items[0]!.map((_, i) => Int32Array.from(items, (item) => item[i]!));

/** SPEC.md word by word, in integers of any size. */
function specTexels(item: number[], level: number, steps: number[][]): number[] {
  const channel = (j: number, y: number, x: number) => {
    let sum = 0n;
    for (const [k, step] of steps[j]!.entries()) {
      const [u, v] = ORDER[k]!;
      sum += BigInt(D[u]![y]! * D[v]![x]!) * BigInt(item[4 * k + j]! * step * 2 ** level);
    }
    return Number((sum + 131072n) >> 18n);
  };
  return Array.from({ length: 64 }, (_, i) => {
    const [a, l, p, q] = [0, 1, 2, 3].map((j) => channel(j, i >> 3, i & 7)) as [
      number,
      number,
      number,
      number,
    ];
    const m = l - Math.floor(q / 2);
    const b = m - Math.floor(p / 2);
    return [b + p, m + q, b, a].map((c) => Math.max(0, Math.min(255, c)));
  }).flat();
}

describe("texels of blocks", () => {
  it("are those of SPEC.md's example", () => {
    const columns = [510, 136, -10, 20].map((code) => Int32Array.of(code));
    const texels = blockTexels(columns, Int32Array.of(1), same([8]));
    expect([...texels]).toEqual(Array.from({ length: 64 }, () => [31, 37, 33, 128]).flat());
  });

  it("are what SPEC.md says, to the last bit, whatever the frequencies", () => {
    const random = randomNumbers(11);
    const below = (most: number) => Math.floor((most * (random() + 1)) / 2);
    for (const K of [1, 2, 3, 5, 10, 36, 64]) {
      const steps = [0, 1, 2, 3].map(() => Array.from({ length: K }, () => 1 + below(60)));
      const levels = Int32Array.from({ length: 70 }, () => below(8));
      const items = Array.from(levels, (level, t) =>
        Array.from({ length: 4 * K }, (_, i) => {
          // From none at all to all of them, and from small ones to the largest allowed.
          if (below(10) >= t % 11) return 0;
          const step = steps[i % 4]![i >> 2]! * 2 ** level;
          const most = t % 5 === 0 ? 2 ** 20 : 2000;
          return Math.trunc((most * random()) / step);
        }),
      );
      const found = blockTexels(columnsOf(items), levels, steps);
      const wanted = items.flatMap((item, t) => specTexels(item, levels[t]!, steps));
      expect([...found]).toEqual(wanted);
    }
    // The largest sums there are: all frequencies of one sign, at a corner.
    for (const sign of [1, -1]) {
      const item = Array.from({ length: 256 }, () => sign);
      const texels = blockTexels(columnsOf([item]), Int32Array.of(5), same(Array(64).fill(32767)));
      expect([...texels]).toEqual(specTexels(item, 5, same(Array(64).fill(32767))));
    }
  });

  /** Frequencies of a block, and what they are, for the rows of a matrix. */
  const there = (plain: number[], row: (u: number, x: number) => number) =>
    ORDER.map(([u, v]) =>
      Math.round(8 * plain.reduce((sum, c, i) => sum + c * row(u, i >> 3) * row(v, i & 7), 0)),
    );
  const cosine = (u: number, x: number) =>
    Math.sqrt((u === 0 ? 1 : 2) / 8) * Math.cos((Math.PI * (2 * x + 1) * u) / 16);
  /** Alpha, and as much luma. */
  const decoded = (frequencies: number[]) =>
    blockTexels(columnsOf([frequencies.flatMap((f) => [f, f, 0, 0])]), Int32Array.of(0), ones(64));

  it("are those of a cosine transform to within 1 of 255", () => {
    const random = randomNumbers(12);
    for (let n = 0; n < 20; n++) {
      const mean = 32 + 95 * (random() + 1);
      const frequencies = there(
        Array.from({ length: 64 }, () => mean + 16 * random()),
        cosine,
      );
      const texels = decoded(frequencies);
      for (let i = 0; i < 64; i++) {
        const exact = frequencies.reduce((sum, f, k) => {
          const [u, v] = ORDER[k]!;
          return sum + (f / 8) * cosine(u, i >> 3) * cosine(v, i & 7);
        }, 0);
        // Half of it is rounding. The matrix is off by 1.4 of 90 at most (36 for 34.6), which
        // makes 4 of noise of 8 times as much.
        for (const c of [0, 1, 2, 3]) expect(Math.abs(texels[4 * i + c]! - exact)).toBeLessThan(1);
      }
    }
  });

  it("are what they were before the matrix was applied to them, to within 1 of 255", () => {
    const random = randomNumbers(14);
    for (let n = 0; n < 20; n++) {
      const plain = Array.from({ length: 64 }, () => Math.floor(128 * (random() + 1)));
      // Rows at right angles, of the same length but for 0.1 %.
      const texels = decoded(there(plain, (u, x) => D[u]![x]! / 2 ** 7.5));
      const wanted = plain.flatMap((c) => [c, c, c, c]);
      const off = Math.max(...wanted.map((c, i) => Math.abs(c - texels[i]!)));
      expect(off).toBeLessThanOrEqual(1);
    }
  });

  it("have every colour, exactly, where blocks have one colour", () => {
    const random = randomNumbers(13);
    const colours = Array.from({ length: 500 }, () =>
      [0, 1, 2, 3].map(() => Math.floor(128 * (random() + 1))),
    );
    // The way there: YCoCg-R. A frequency of 64 is 1 everywhere.
    const items = colours.map(([r, g, b, a]) => {
      const p = r! - b!;
      const m = b! + (p >> 1);
      const q = g! - m;
      return [a!, m + (q >> 1), p, q];
    });
    const texels = blockTexels(columnsOf(items), new Int32Array(500), same([64]));
    const wanted = colours.flatMap((rgba) => Array.from({ length: 64 }, () => rgba).flat());
    expect([...texels]).toEqual(wanted);
  });

  it("are none without blocks", () => {
    expect(
      blockTexels(
        [0, 1, 2, 3].map(() => new Int32Array()),
        new Int32Array(),
        ones(1),
      ),
    ).toEqual(new Uint8Array());
  });

  it("are refused where a level or a frequency is beyond what is allowed", () => {
    const texels = (code: number, level: number, step: number) =>
      blockTexels(columnsOf([[0, 0, code, 0]]), Int32Array.of(level), same([step]));
    const damaged = expect.objectContaining({ kind: "damaged" });
    expect(() => texels(1, 8, 1)).toThrow(damaged);
    expect(() => texels(1, -1, 1)).toThrow(damaged);
    expect(() => texels(0, 8, 1)).toThrow(damaged);
    texels(2 ** 20, 0, 1);
    texels(-(2 ** 13), 7, 1);
    expect(() => texels(2 ** 20 + 1, 0, 1)).toThrow(damaged);
    expect(() => texels(-(2 ** 13) - 1, 7, 1)).toThrow(damaged);
    expect(() => texels(-(2 ** 31), 7, 32767)).toThrow(damaged);
  });
});

/** A real bundle's manifest with one slab, MPIs, and the arrays that they need. */
async function manifestWith(blocks: number, frequencies: number): Promise<Manifest> {
  const path = join(good, "lightslab_one.s4d");
  const { manifest } = await openFile(new MemorySource(readBytes(path) as never));
  const changed = structuredClone(manifest);
  const shape = changed.lightslab!;
  for (const { disparities } of shape.slabs) {
    for (const p of disparities.keys()) disparities[p] = 0.1 * (p + 1);
  }
  const [columns, rows] = [4096, 2048];
  shape.mpi = { columns, rows, blocks, steps: ones(frequencies) };
  const places = (columns * rows * shape.slabs.length * shape.slabs[0]!.disparities.length) / 64;
  const of = (name: string, items: number, components: number): ArrayEntry => {
    const zeros = Array.from({ length: components }, () => 0);
    return { name, items, components, stage: 0, low: zeros, tables: zeros };
  };
  changed.arrays.push(
    of("mpi_blocks", places, 1),
    of("mpi_levels", blocks, 1),
    of("mpi_frequencies", blocks, 4 * frequencies),
  );
  return changed;
}

const SIZE = 1e6;

describe("the entry of MPIs", () => {
  it("is refused where it does not fit the arrays", async () => {
    const refused = async (change: (manifest: Manifest, arrays: ArrayEntry[]) => void) => {
      const manifest = await manifestWith(100, 6);
      change(manifest, manifest.arrays.slice(-3));
      expect(() => lightslabKind.check(manifest, SIZE)).toThrow(
        expect.objectContaining({ kind: "damaged" }),
      );
    };
    lightslabKind.check(await manifestWith(100, 6), SIZE);
    lightslabKind.check(await manifestWith(0, 1), SIZE);
    for (const array of [0, 1, 2]) {
      await refused((manifest) => manifest.arrays.splice(manifest.arrays.length - 1 - array, 1));
      await refused((_, arrays) => arrays[array]!.items!--);
      await refused((_, arrays) => arrays[array]!.components++);
      await refused((_, arrays) => {
        arrays[array]!.stage = 1;
      });
      await refused((_, arrays) => {
        arrays[array]!.quantiser = { type: "uniform", step: [1], offset: [0] };
      });
      await refused((_, arrays) => {
        arrays[array]!.mean = "plane_0";
      });
    }
    await refused(({ lightslab }) => lightslab!.mpi!.steps[2]!.push(1));
    await refused(({ lightslab }) => lightslab!.mpi!.steps[3]!.pop());
    await refused(({ lightslab }) => {
      lightslab!.mpi!.columns += 4;
    });
    await refused(({ lightslab }) => {
      lightslab!.slabs[0]!.disparities[0] = 9e-16;
    });
  });

  it("fits a phone's memory with 131,072 blocks of 36 frequencies", async () => {
    const manifest = await manifestWith(131_072, 36);
    // As many bytes of codes as so many texels need at least.
    manifest.stages[0]!.streams[0]!.length += 2 ** 19;
    lightslabKind.check(manifest, SIZE);
    const bytes = decodedBytes(manifest) + mpiMemory(manifest.lightslab!);
    // Codes 76 MB, texels 34 MB, three atlases of 43 MB; with places of blocks and what decoding
    // needs beside them 322 MB. A phone's browser gives a page about twice as much.
    expect(bytes).toBeLessThan(3.3e8);
    expect(bytes).toBeGreaterThan(4 * 144 * 131_072 + (256 + 3 * 4 * CELL * CELL) * 131_072);
  });

  it("fits a texture of 4096 x 4096 whatever the number of its blocks", () => {
    for (const blocks of [0, 1, 455, 456, 131_072, 200_000]) {
      const { across, down } = atlasCells(blocks);
      expect(across * down).toBeGreaterThanOrEqual(Math.max(1, blocks));
      expect(Math.max(across, down) * CELL).toBeLessThanOrEqual(4096);
    }
  });
});

describe("MPIs of more than 65,535 blocks", () => {
  it("know every one of them", () => {
    const plain = smallShape();
    const blocks = 66_000;
    const mpi = { columns: 2048, rows: 1024, blocks, steps: ones(1) };
    const shape = { ...plain, mpi };
    // Every place is taken until there are no more: the third plane's blocks are beyond 65,535.
    const index = new Uint32Array(3 * 256 * 128);
    for (let i = 0; i < blocks; i++) index[i] = i + 1;
    const texels = new Uint8Array(256 * blocks);
    for (let i = 0; i < texels.length; i += 4) {
      const block = i >> 8;
      texels.set([block & 255, (block >> 8) & 255, block >> 16, 255], i);
    }
    const made = makeMpi(shape, index, texels);
    expect(mpiBytes(made)).toBe(4 * index.length + 4 * made.width * made.height);
    for (const block of [0, 32_767, 32_768, 65_534, 65_535, 65_536, 65_537, blocks - 1, blocks]) {
      const [plane, row, column] = [block >> 15, (block >> 8) & 127, block & 255];
      const found = mpiTexelAt(shape, made, 0, plane, 8 * column + 3.5, 8 * row + 2.5);
      const wanted = [block & 255, (block >> 8) & 255, block >> 16, 255].map((c) => c / 255);
      expect(found).toEqual(block < blocks ? wanted.map((c) => expect.closeTo(c, 9)) : null);
    }
  });
});
