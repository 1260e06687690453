import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { SceneError } from "../../src/decode/errors";
import { shBasis } from "../../src/decode/harmonics";
import { openPly } from "../../src/decode/ply";
import { openSplat } from "../../src/decode/splat";
import { rowRange, type SplatData, type SplatSource } from "../../src/decode/splats";
import { openSpz } from "../../src/decode/spz";
import { readBytes } from "../browser/harness";

/** Files of other trainers and programs, made here from the small PLY of the fixtures. */

const file = (name: string) =>
  readBytes(join(import.meta.dirname, "../fixtures", name)) as Uint8Array<ArrayBuffer>;
const all = (source: SplatSource): SplatData =>
  source.read(rowRange(0, source.count), source.degree);

type Row = Record<string, number>;

/** Rows of the fixture as numbers by property. */
function rowsOf(bytes: Uint8Array, count: number): Row[] {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, 4096));
  const names = [...head.matchAll(/^property float (\S+)$/gm)].map((m) => m[1]!);
  const start = head.indexOf("end_header\n") + 11;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start);
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(names.map((n, j) => [n, view.getFloat32(4 * (i * names.length + j), true)])),
  );
}

interface Layout {
  form?: string;
  type?: "float" | "double";
  comments?: string[];
}

function plyOf(rows: Row[], { form, type, comments }: Layout = {}): Uint8Array<ArrayBuffer> {
  const [format, kind] = [form ?? "binary_little_endian", type ?? "float"];
  const names = Object.keys(rows[0]!);
  const head = [
    "ply",
    `format ${format} 1.0`,
    ...(comments ?? []).map((c) => `comment ${c}`),
    `element vertex ${rows.length}`,
    ...names.map((n) => `property ${kind} ${n}`),
    "end_header\n",
  ].join("\n");
  if (format === "ascii") {
    const text = rows.map((r) => names.map((n) => r[n]).join(" ")).join("\n");
    return new TextEncoder().encode(`${head}${text}\n`) as Uint8Array<ArrayBuffer>;
  }
  const width = kind === "float" ? 4 : 8;
  const out = new Uint8Array(head.length + rows.length * names.length * width);
  out.set(new TextEncoder().encode(head));
  const view = new DataView(out.buffer, head.length);
  const little = format.includes("little");
  rows.forEach((row, i) => {
    names.forEach((name, j) => {
      const at = width * (i * names.length + j);
      if (kind === "float") view.setFloat32(at, row[name]!, little);
      else view.setFloat64(at, row[name]!, little);
    });
  });
  return out;
}

const COUNT = 40;
const rows = rowsOf(file("small.ply"), COUNT);
const plain = all(openPly(plyOf(rows)));

function same(a: SplatData, b: SplatData): void {
  for (const name of ["means", "quats", "scales", "opacities", "sh"] as const) {
    expect([...a[name]], name).toEqual([...b[name]]);
  }
}

function kindOf(open: () => unknown): string {
  try {
    open();
  } catch (error) {
    return error instanceof SceneError ? error.kind : `${error}`;
  }
  return "none";
}

describe("PLYs of other programs", () => {
  it("reads every encoding and both types of numbers alike", () => {
    for (const form of ["binary_little_endian", "binary_big_endian", "ascii"]) {
      for (const type of ["float", "double"] as const) {
        same(all(openPly(plyOf(rows, { form, type }))), plain);
      }
    }
  });

  it("tells a text that is cut off, or holds no numbers", () => {
    const text = plyOf(rows, { form: "ascii" });
    expect(kindOf(() => openPly(text.slice(0, text.length * 0.8)))).toBe("damaged");
    const spoilt = new TextDecoder().decode(text).replace(/(end_header\n)\S+/, "$1seven");
    expect(kindOf(() => openPly(new TextEncoder().encode(spoilt)))).toBe("damaged");
    const promised = new TextDecoder().decode(text).replace("vertex 40", "vertex 400000000");
    expect(kindOf(() => openPly(new TextEncoder().encode(promised)))).toBe("damaged");
  });

  it("reads two sizes as flat splats", () => {
    const flat = rows.map(({ scale_2: _, ...row }) => row);
    const data = all(openPly(plyOf(flat)));
    for (let i = 0; i < COUNT; i++) {
      const [a, b, c] = data.scales.subarray(3 * i, 3 * i + 3);
      expect(a).toBe(plain.scales[3 * i]);
      expect(c!).toBeLessThan(2e-3 * Math.min(a!, b!));
    }
  });

  it("leaves out harmonics above degree 3", () => {
    const wide = rows.map((row) => {
      const out: Row = {};
      for (const [name, value] of Object.entries(row)) {
        if (!name.startsWith("f_rest_")) out[name] = value;
      }
      for (let j = 0; j < 72; j++) {
        const [c, k] = [Math.floor(j / 24), j % 24];
        out[`f_rest_${j}`] = k < 15 ? row[`f_rest_${15 * c + k}`]! : 9;
      }
      return out;
    });
    const source = openPly(plyOf(wide));
    expect(source.degree).toBe(3);
    same(all(source), plain);
  });

  it("applies a smoothing filter: sizes add in squares, the integral stays", () => {
    const width = 0.3;
    const filtered = openPly(plyOf(rows.map((row) => ({ ...row, filter_3D: width }))));
    expect(filtered.antialiased).toBe(true);
    const data = all(filtered);
    for (let i = 0; i < COUNT; i++) {
      let [before, after] = [plain.opacities[i]!, data.opacities[i]!];
      for (let a = 0; a < 3; a++) {
        const [s, t] = [plain.scales[3 * i + a]!, data.scales[3 * i + a]!];
        expect(t).toBeCloseTo(Math.hypot(s, width), 6);
        before *= s / 0.3;
        after *= t / 0.3;
      }
      expect(after / before).toBeCloseTo(1, 4); // float32 sizes and opacities
    }
  });

  it("is drawn as its comments say", () => {
    const said = (...comments: string[]) => openPly(plyOf(rows, { comments })).antialiased;
    expect(said()).toBe(false);
    expect(said("Exported from Brush", "SplatRenderMode: mip")).toBe(true);
    expect(said("SplatRenderMode: mip", "splatrendermode: DEFAULT")).toBe(false);
    expect(said("antialiased 1")).toBe(true);
    expect(said("antialiased 0")).toBe(false);
    expect(said("train_flags antialiasing")).toBe(true);
  });

  it("draws sizes of 0, and does not draw what is no number", () => {
    const odd = rows.map((row) => ({ ...row }));
    odd[3]!.scale_0 = Number.NEGATIVE_INFINITY;
    odd[5]!.x = Number.NaN;
    const data = all(openPly(plyOf(odd)));
    expect(data.scales[9]).toBe(0);
    expect(data.opacities[3]).toBe(plain.opacities[3]);
    expect(data.opacities[5]).toBe(0);
    expect([...data.means].every(Number.isFinite)).toBe(true);
  });
});

describe(".splat", () => {
  it("reads 32 bytes a splat", () => {
    const bytes = new Uint8Array(64);
    const view = new DataView(bytes.buffer);
    [1, 2, 3, 0.1, 0.2, 0.3].forEach((v, i) => {
      view.setFloat32(32 + 4 * i, v, true);
    });
    bytes.set([255, 128, 0, 64, 128 + 127, 128, 128, 128], 56);
    const data = openSplat(bytes).read(Uint32Array.of(1), 0);
    expect([...data.means]).toEqual([1, 2, 3]);
    expect(data.scales[2]).toBeCloseTo(0.3, 6);
    expect(data.opacities[0]).toBeCloseTo(64 / 255, 6);
    expect(0.5 + 0.28209479177387814 * data.sh[0]!).toBeCloseTo(1, 5);
    expect([...data.quats]).toEqual([1, 0, 0, 0]);
  });

  it("tells a file of another length", () => {
    expect(kindOf(() => openSplat(new Uint8Array(33)))).toBe("damaged");
    expect(kindOf(() => openSplat(new Uint8Array(0)))).toBe("damaged");
  });
});

/** A gzipped SPZ of version 3 with records behind the attributes, or of version 4 before them. */
function spzWith(version: 3 | 4, records: number[]): Uint8Array<ArrayBuffer> {
  const four = file("small.spz");
  if (version === 4) {
    const out = new Uint8Array(four.length + records.length);
    out.set(four.subarray(0, 32));
    out.set(records, 32);
    out.set(four.subarray(32), 32 + records.length);
    out[14]! |= 2;
    new DataView(out.buffer).setUint32(16, 32 + records.length, true);
    return out;
  }
  const count = 16;
  const body = new Uint8Array(16 + count * (9 + 1 + 3 + 3 + 4 + 9) + records.length);
  const view = new DataView(body.buffer);
  view.setUint32(0, 0x5053474e, true);
  view.setUint32(4, 3, true);
  view.setUint32(8, count, true);
  body.set([1, 12, 2, 0], 12);
  for (let i = 16; i < body.length - records.length; i++) body[i] = (i * 37) % 251;
  body.set(records, body.length - records.length);
  return new Uint8Array(gzipSync(body));
}

const number = (value: number) => [...new Uint8Array(Uint32Array.of(value).buffer)];
const ORBIT = [...number(0xadbe0002), ...number(12), ...new Array<number>(12).fill(7)];
const axes = (value: number) => [...number(0xadbe0003), ...number(4), ...number(value)];

describe("extension records of SPZ", () => {
  for (const version of [3, 4] as const) {
    it(`version ${version}: records of other kinds change nothing`, async () => {
      const bare = all(await openSpz(spzWith(version, [])));
      same(all(await openSpz(spzWith(version, ORBIT))), bare);
      const unknown = [...number(0x12340001), ...number(3), 1, 2, 3];
      same(all(await openSpz(spzWith(version, [...unknown, ...ORBIT]))), bare);
    });

    it(`version ${version}: a record of axes turns the scene, mirrors included`, async () => {
      const bare = all(await openSpz(spzWith(version, [])));
      const systems: [number, number[][]][] = [
        // stored x, y, z in right-down-front
        [
          6,
          [
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
          ],
        ], // RDF
        [
          3,
          [
            [-1, 0, 0],
            [0, -1, 0],
            [0, 0, -1],
          ],
        ], // LUB, a mirror of RUB
        [
          12,
          [
            [1, 0, 0],
            [0, 0, -1],
            [0, -1, 0],
          ],
        ], // RBU
        [
          16,
          [
            [1, 0, 0],
            [0, 0, 1],
            [0, -1, 0],
          ],
        ], // RFU, a mirror
      ];
      for (const [value, own] of systems) {
        const data = all(await openSpz(spzWith(version, [...ORBIT, ...axes(value)])));
        const K3 = 3 * (data.degree + 1) ** 2;
        const turned = (v: ArrayLike<number>) =>
          [0, 1, 2].map((r) =>
            [0, 1, 2].reduce((sum, c) => sum + own[c]![r]! * v[c]! * (c === 0 ? 1 : -1), 0),
          );
        for (let i = 0; i < 10; i++) {
          const mean = turned(bare.means.subarray(3 * i, 3 * i + 3));
          for (let a = 0; a < 3; a++) expect(data.means[3 * i + a]).toBeCloseTo(mean[a]!, 5);
          const direction = [0.48, -0.6, 0.64];
          const colour = (d: SplatData, at: number[]) =>
            shBasis(at[0]!, at[1]!, at[2]!)
              .slice(0, K3 / 3)
              .reduce((sum, y, k) => sum + y * d.sh[K3 * i + 3 * k]!, 0);
          expect(colour(data, turned(direction))).toBeCloseTo(colour(bare, direction), 4);
        }
      }
      await expect(openSpz(spzWith(version, axes(17)))).rejects.toThrow(SceneError);
    });
  }

  it("stand behind the attributes of version 3", async () => {
    const zipped = spzWith(3, ORBIT);
    const body = gunzipSync(zipped);
    const first = (body[16]! | (body[17]! << 8) | (body[18]! << 16)) << 8;
    expect(all(await openSpz(zipped)).means[0]).toBeCloseTo((first >> 8) / 4096, 6);
  });
});
