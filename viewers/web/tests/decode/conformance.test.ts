import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Chunks } from "../../src/decode/bundle/chunks";
import { type Bundle, openFile, openFolder } from "../../src/decode/bundle/container";
import { kindOf } from "../../src/decode/bundle/kinds";
import { meshGeometry } from "../../src/decode/bundle/mesh";
import { StageDecoder } from "../../src/decode/bundle/stages";
import { SceneError } from "../../src/decode/errors";
import { openScene } from "../../src/decode/open";
import { MemorySource } from "../../src/decode/remote";
import type { Sink } from "../../src/decode/sink";
import type { SplatData } from "../../src/decode/splats";
import { readBytes, serve } from "../browser/harness";
import { type Arrangement, arrangementOf } from "./arrangement";

const root = join(import.meta.dirname, "../../../../mobile_export/conformance");
const [good, bad] = [join(root, "good"), join(root, "bad")];

interface Expected {
  codes: Record<string, number[][]>;
  splats: Record<"means" | "quats" | "log_scales" | "opacity" | "sh", unknown[]>;
  /** Corners of all triangles, one after the other. */
  mesh?: { places: number[]; uv: number[] };
  /** Of what moves: the arrangement at times. */
  at?: ({ time: number } & Record<"means" | "quats" | "opacity", unknown[]>)[];
}

type Found = Record<keyof Expected["splats"], number[]>;

const none = (): Found => ({ means: [], quats: [], log_scales: [], opacity: [], sh: [] });

/** SPEC.md, section 10: places as float32, places in the texture as far as the files say them. */
function compareMesh(
  { positions, uv, triangles }: ReturnType<typeof meshGeometry>,
  wanted: NonNullable<Expected["mesh"]>,
): void {
  const found = (values: Float32Array, width: number) =>
    [...triangles].flatMap((c) => [...values.subarray(width * c, width * (c + 1))]);
  expect(found(positions, 3)).toEqual(wanted.places.map(Math.fround));
  for (const [i, place] of found(uv, 2).entries()) expect(place).toBeCloseTo(wanted.uv[i]!, 6);
}

/** Codes of all arrays, and splats: those of points before those that points bring along. */
async function decodeAll(
  bundle: Bundle,
  expected: Expected,
): Promise<Expected & { splats: Found }> {
  const decoder = await StageDecoder.open(bundle);
  const kind = kindOf(bundle.manifest)!;
  const reader = kind.drawable === "splats" ? kind.open(decoder, bundle.manifest.sh_degree) : null;
  const codes: Record<string, number[][]> = {};
  const [own, brought] = [none(), none()];
  for (const name of bundle.manifest.arrays.map((a) => a.name)) codes[name] = [];
  for (const [number, stage] of bundle.manifest.stages.entries()) {
    const decoded = decoder.decode(number, await bundle.read(stage.member));
    for (const [name, columns] of decoded.codes) {
      for (let i = 0; i < columns[0]!.length; i++) codes[name]!.push(columns.map((c) => c[i]!));
    }
    if (kind.drawable === "mesh") compareMesh(meshGeometry(decoder, decoded), expected.mesh!);
    if (stage.points === 0 || !reader) continue;
    const data = reader.read(decoded, { from: 0, to: stage.points, stride: 1 });
    expect(data.count).toBe(reader.size(decoded));
    const parts = {
      means: data.means,
      quats: data.quats,
      log_scales: data.scales.map(Math.log),
      opacity: data.opacities,
      sh: data.sh,
    };
    for (const [name, values] of Object.entries(parts)) {
      const split = (values.length / data.count) * stage.points;
      own[name as keyof Found].push(...values.subarray(0, split));
      brought[name as keyof Found].push(...values.subarray(split));
    }
  }
  const splats = none();
  for (const name of Object.keys(own) as (keyof Found)[]) {
    splats[name] = [...own[name], ...brought[name]];
  }
  return { codes, splats };
}

function joined(parts: SplatData[]): Pick<Found, "means" | "quats" | "opacity"> {
  return {
    means: parts.flatMap((p) => [...p.means]),
    quats: parts.flatMap((p) => [...p.quats]),
    opacity: parts.flatMap((p) => [...p.opacities]),
  };
}

/** Quaternions with the sign that makes w positive: both mean the same turn. */
function upright(quats: number[]): number[] {
  return quats.map((x, i) => (quats[i - (i % 4)]! < 0 ? -x : x));
}

/** SPEC.md, section 9: positions to 1e-4 of the box of all of them, others to 1e-4 of their range. */
/** The files hold what a logit can say. */
const logitRange = (x: number) => Math.max(1 / 4096, Math.min(1 - 1 / 4096, x));

function compareMoving(arrangement: Arrangement, at: NonNullable<Expected["at"]>): void {
  expect(at.length).toBeGreaterThan(0);
  for (const { time, ...parts } of at) {
    const found = joined(arrangement(time));
    for (const [key, values] of Object.entries(parts)) {
      const name = key as keyof typeof parts;
      const wanted = (values as number[]).flat(3);
      const [a, b] =
        name === "quats" ? [upright(wanted), upright(found.quats)] : [wanted, found[name]];
      expect(b.length).toBe(a.length);
      const range = Math.max(...a) - Math.min(...a) || 1;
      const stored = name === "opacity" ? logitRange : (x: number) => x;
      const worst = a.reduce(
        (most, x, i) => Math.max(most, Math.abs(stored(x) - stored(b[i]!))),
        0,
      );
      expect(worst, `${name} at ${time}`).toBeLessThanOrEqual(1e-4 * range);
    }
  }
}

async function compare(bundle: Bundle, expected: Expected): Promise<void> {
  const { codes, splats } = await decodeAll(bundle, expected);
  expect(codes).toEqual(expected.codes);
  const { kind } = bundle.manifest;
  if (expected.at) {
    const arrangement = await arrangementOf(bundle);
    compareMoving(arrangement, expected.at);
    Object.assign(splats, joined(arrangement(bundle.manifest.splats4d!.start)));
  }
  for (const [key, values] of Object.entries(expected.splats ?? {})) {
    const name = key as keyof Found;
    const wanted = (values as number[]).flat(3);
    expect(splats[name].length).toBe(wanted.length);
    if (wanted.length === 0) continue;
    // SPEC.md, section 6: positions equal (the file has 7 to 9 digits of them), others 1e-4 of
    // their range; section 7: all of them 1e-3. Ranges that are nothing leave float32's rounding.
    const exactly = kind === "splats" && name === "means";
    const range = Math.max(...wanted) - Math.min(...wanted) || 1;
    const tolerance = exactly ? 0 : (kind.startsWith("splats") ? 1e-4 : 1e-3) * range;
    const stored = (x: number) => {
      if (exactly) return Math.fround(x);
      return name === "opacity" ? logitRange(x) : x;
    };
    const worst = wanted.reduce(
      (most, x, i) => Math.max(most, Math.abs(stored(x) - stored(splats[name][i]!))),
      0,
    );
    expect(worst, name).toBeLessThanOrEqual(tolerance);
  }
}

const nowhere: Sink = {
  info: () => {},
  poster: () => {},
  extent: () => {},
  piece: () => {},
  field: () => {},
  planes: () => {},
  mesh: () => {},
  progress: () => {},
  motion: () => {},
  knots: () => {},
  chunks: () => {},
  fail: () => {},
  references: () => {},
  breathe: () => Promise.resolve(),
};

/** What comes later may be damaged, too. */
async function everyChunk(chunks: Chunks | null): Promise<void> {
  for (const i of chunks?.splines.shape.chunks.keys() ?? []) await chunks!.load(i);
}

const names = (folder: string) =>
  existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".s4d")) : [];

describe("conformance", () => {
  it("finds the bundles", () => {
    expect(names(good).length).toBeGreaterThan(5);
    expect(names(bad).length).toBeGreaterThan(50);
  });

  for (const name of names(good)) {
    it(`reads ${name}`, async () => {
      const expected = JSON.parse(readFileSync(join(good, name.replace(".s4d", ".json")), "utf8"));
      await compare(
        await openFile(new MemorySource(readBytes(join(good, name)) as never)),
        expected,
      );
    });
  }

  it("reads an unpacked bundle from a server without Range", async () => {
    const server = await serve({ "/": good }, { range: false });
    const expected = JSON.parse(readFileSync(join(good, "unpacked.json"), "utf8"));
    await compare(await openFolder(`${server.url}/unpacked/manifest.json`, () => {}), expected);
    await server.close();
  });

  for (const name of names(bad)) {
    it(`refuses ${name}`, async () => {
      const bytes = readBytes(join(bad, name)).slice().buffer;
      const request = { type: "open", id: 1, bytes, name, budget: 1e9, degree: 3 } as const;
      let error: unknown = null;
      let chunks: Chunks | null = null;
      const sink: Sink = {
        ...nowhere,
        chunks: (found) => {
          chunks = found;
        },
      };
      try {
        await openScene(request, sink, () => Promise.reject(new Error("no pictures here")));
        await everyChunk(chunks);
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(SceneError);
      expect((error as SceneError).detail.length).toBeGreaterThan(5);
    });
  }
});
