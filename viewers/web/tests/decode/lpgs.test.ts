import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Bundle, openFile } from "../../src/decode/bundle/container";
import { chunks } from "../../src/decode/bundle/kind";
import { kinds } from "../../src/decode/bundle/kinds";
import { checkedStructure } from "../../src/decode/bundle/lpgs-structure";
import type { Manifest } from "../../src/decode/bundle/manifest.gen";
import { type DecodedStage, StageDecoder } from "../../src/decode/bundle/stages";
import { openScene } from "../../src/decode/open";
import { MemorySource } from "../../src/decode/remote";
import { CHUNK_SPLATS } from "../../src/decode/splats";
import { readBytes } from "../browser/harness";

const file = readBytes(
  join(import.meta.dirname, "../fixtures/families.s4d"),
) as Uint8Array<ArrayBuffer>;
const open = () => openFile(new MemorySource(file));

async function stages(bundle: Bundle): Promise<{ decoder: StageDecoder; decoded: DecodedStage[] }> {
  const decoder = await StageDecoder.open(bundle);
  const decoded: DecodedStage[] = [];
  for (const [number, stage] of bundle.manifest.stages.entries()) {
    decoded.push(decoder.decode(number, await bundle.read(stage.member)));
  }
  return { decoder, decoded };
}

const everything = (stage: DecodedStage) => ({ from: 0, to: stage.points, stride: 1 });

/** How many children parent i of a stage has. */
function born(stage: DecodedStage): number[] {
  return Array.from(stage.codes.get("children")![0]!, (m) => (m & 1) + ((m >> 1) & 1));
}

describe("kind lpgs", () => {
  it("has a network, two stages and children", async () => {
    const { manifest } = await open();
    expect(manifest.lpgs!.grid).not.toBeNull();
    expect(manifest.stages).toHaveLength(2);
    expect(manifest.count).toBeGreaterThan(5000);
  });

  it("gives the same splats in small pieces as at once", async () => {
    const { decoder, decoded } = await stages(await open());
    const reader = kinds.lpgs!.open(decoder, 3);
    const stage = decoded[1]!;
    const whole = reader.read(stage, everything(stage));
    const counts = born(stage);
    let [parent, child] = [0, stage.points];
    for (const range of chunks(stage.points, 77, 1)) {
      const piece = reader.read(stage, range);
      const own = range.to - range.from;
      expect(piece.means.subarray(0, 3 * own)).toEqual(
        whole.means.subarray(3 * parent, 3 * (parent + own)),
      );
      expect(piece.sh.subarray(48 * own)).toEqual(
        whole.sh.subarray(48 * child, 48 * (child + piece.count - own)),
      );
      parent += own;
      child += piece.count - own;
    }
    expect(child).toBe(whole.count);
    expect(counts.reduce((a, b) => a + b, stage.points)).toBe(whole.count);
  });

  it("thins by families: every third parent with its children, the same as in the whole", async () => {
    const { decoder, decoded } = await stages(await open());
    const reader = kinds.lpgs!.open(decoder, 3);
    const stage = decoded[1]!;
    const whole = reader.read(stage, everything(stage));
    const thin = reader.read(stage, { ...everything(stage), stride: 3 });
    const counts = born(stage);
    const parents = Math.ceil(stage.points / 3);
    let [at, next] = [parents, stage.points];
    for (let p = 0; p < stage.points; p++) {
      if (p % 3 === 0) {
        expect(thin.scales[p]).toBe(whole.scales[3 * p]);
        for (let c = 0; c < counts[p]!; c++, at++) {
          expect(thin.opacities[at]).toBe(whole.opacities[next + c]);
        }
      }
      next += counts[p]!;
    }
    expect(thin.count).toBe(at);
  });

  it("has the same low harmonics when fewer are wanted", async () => {
    const { decoder, decoded } = await stages(await open());
    const full = kinds.lpgs!.open(decoder, 3).read(decoded[0]!, everything(decoded[0]!));
    const low = kinds.lpgs!.open(decoder, 1).read(decoded[0]!, everything(decoded[0]!));
    expect(low.means).toEqual(full.means);
    for (const i of [0, 5, full.count - 1]) {
      expect(low.sh.subarray(12 * i, 12 * (i + 1))).toEqual(full.sh.subarray(48 * i, 48 * i + 12));
    }
  });

  it("draws about as many as the budget allows, in pieces of bounded size", async () => {
    for (const budget of [100, 1000, 1e9]) {
      let drawn = 0;
      const bytes = file.slice().buffer;
      const sink = {
        info: () => {},
        poster: () => {},
        extent: () => {},
        motion: () => {},
        knots: () => {},
        chunks: () => {},
        fail: () => {},
        references: () => {},
        progress: () => {},
        field: () => {},
        planes: () => {},
        mesh: () => {},
        breathe: () => Promise.resolve(),
        piece: ({ count }: { count: number }) => {
          expect(count).toBeLessThanOrEqual(CHUNK_SPLATS);
          drawn += count;
        },
      };
      const request = { type: "open", id: 1, bytes, name: "x", budget, degree: 2 } as const;
      await openScene(request, sink, () => Promise.reject(new Error("no pictures here")));
      const wanted = Math.min(budget, (await open()).manifest.count);
      // Families are of one to three: the sample's mean differs from the stage's.
      expect(drawn).toBeGreaterThan(0.5 * wanted);
      expect(drawn).toBeLessThanOrEqual(Math.max(wanted, 1.2 * wanted));
    }
  });

  it("refuses an entry that does not fit the rest, or asks for endless work", async () => {
    const { manifest } = await open();
    const refusal = (change: Partial<NonNullable<Manifest["lpgs"]>>, count = manifest.count) => {
      const entry = { ...manifest.lpgs!, ...change };
      return () => checkedStructure({ ...manifest, count, lpgs: entry });
    };
    expect(refusal({})).not.toThrow();
    expect(refusal({ sh_degree: 1 })).toThrow(/sh_degree/);
    expect(refusal({ position_bits: 9 })).toThrow(/position_bits/);
    expect(refusal({ hidden: 0 })).toThrow(/hidden/);
    const grid = manifest.lpgs!.grid!;
    expect(refusal({ grid: { ...grid, rows: [1] } })).toThrow(/rows/);
    expect(refusal({ grid: { ...grid, features: 65 } })).toThrow(/features/);
    expect(refusal({ hidden: 256, num_children: 8 }, 700_000)).toThrow(/products/);
    expect(refusal({}, 1e9)).toThrow(/products/);
  });
});
