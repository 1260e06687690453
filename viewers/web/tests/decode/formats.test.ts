import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { SceneError } from "../../src/decode/errors";
import { openGlb } from "../../src/decode/glb";
import { openPly } from "../../src/decode/ply";
import { openSog } from "../../src/decode/sog";
import { rowRange, type SplatData, type SplatSource } from "../../src/decode/splats";
import { openSpz } from "../../src/decode/spz";
import { readBytes } from "../browser/harness";

const file = (name: string) =>
  readBytes(join(import.meta.dirname, "../fixtures", name)) as Uint8Array<ArrayBuffer>;
const all = (source: SplatSource): SplatData =>
  source.read(rowRange(0, source.count), source.degree);
const ply = all(openPly(file("small.ply")));

/** Rows of `data` in the order of `ply`: writers may sort splats along a curve. */
function matched(data: SplatData): number[] {
  return Array.from({ length: ply.count }, (_, i) => {
    let best = 0;
    let least = Number.POSITIVE_INFINITY;
    for (let j = 0; j < data.count; j++) {
      let d = 0;
      for (let a = 0; a < 3; a++) {
        d += ((data.means[3 * j + a]! - ply.means[3 * i + a]!) / 0.005) ** 2;
        d += (Math.log(data.scales[3 * j + a]! / ply.scales[3 * i + a]!) / 0.03) ** 2;
        d += ((data.sh[48 * j + a]! - ply.sh[48 * i + a]!) / 0.03) ** 2;
      }
      if (d < least) [best, least] = [j, d];
    }
    return best;
  });
}

function largest(
  data: SplatData,
  rows: number[],
  name: "means" | "scales" | "sh",
  width: number,
): number {
  let most = 0;
  for (let i = 0; i < ply.count; i++) {
    for (let k = 0; k < width; k++) {
      const [a, b] = [ply[name][width * i + k]!, data[name][width * rows[i]! + k]!];
      most = Math.max(most, name === "scales" ? Math.abs(Math.log(a / b)) : Math.abs(a - b));
    }
  }
  return most;
}

/** Largest angle between the rotations, as 1 - |dot|. */
function turned(data: SplatData, rows: number[]): number {
  let most = 0;
  for (let i = 0; i < ply.count; i++) {
    let dot = 0;
    for (let k = 0; k < 4; k++) dot += ply.quats[4 * i + k]! * data.quats[4 * rows[i]! + k]!;
    most = Math.max(most, 1 - Math.abs(dot));
  }
  return most;
}

async function kindOf(open: () => unknown): Promise<string> {
  try {
    await open();
  } catch (error) {
    return error instanceof SceneError ? error.kind : `${error}`;
  }
  return "none";
}

const text = (s: string) => new TextEncoder().encode(s) as Uint8Array<ArrayBuffer>;

describe("formats", () => {
  it("reads a PLY with unit quaternions and activated values", () => {
    expect(ply.count).toBe(600);
    expect(ply.degree).toBe(3);
    for (let i = 0; i < ply.count; i++) {
      expect(Math.hypot(...ply.quats.subarray(4 * i, 4 * i + 4))).toBeCloseTo(1, 5);
      expect(ply.opacities[i]).toBeGreaterThan(0);
      expect(ply.opacities[i]).toBeLessThan(1);
    }
  });

  it("reads any rows, and fewer harmonics", () => {
    const source = openPly(file("small.ply"));
    const some = source.read(Uint32Array.of(599, 3), 1);
    expect(some.degree).toBe(1);
    expect([...some.means]).toEqual([
      ...ply.means.subarray(1797, 1800),
      ...ply.means.subarray(9, 12),
    ]);
    // Degree 1 has 4 coefficients of 3 colours, the first 12 of the 48 of degree 3.
    expect([...some.sh.subarray(12)]).toEqual([...ply.sh.subarray(144, 156)]);
  });

  it("reads the same splats from a GLB: float32, so up to rounding", () => {
    const glb = all(openGlb(file("small.glb")));
    const rows = matched(glb);
    expect(largest(glb, rows, "means", 3)).toBeLessThan(1e-6);
    expect(largest(glb, rows, "scales", 3)).toBeLessThan(1e-5);
    expect(largest(glb, rows, "sh", 48)).toBeLessThan(1e-6);
    expect(turned(glb, rows)).toBeLessThan(1e-6);
  });

  it("reads the same splats from an SPZ within its steps", async () => {
    const spz = all(await openSpz(file("small.spz")));
    const rows = matched(spz);
    // Positions 2^-12, log scales 1/16, harmonics 4 to 5 bits of -1..1, colours 1/255/0.15.
    expect(largest(spz, rows, "means", 3)).toBeLessThan(2 ** -12);
    expect(largest(spz, rows, "scales", 3)).toBeLessThan(1 / 32 + 1e-3);
    expect(largest(spz, rows, "sh", 48)).toBeLessThan(0.08);
    expect(turned(spz, rows)).toBeLessThan(1e-4);
  });

  it("knows from an SPZ's flags whether it was trained with antialiasing", async () => {
    const bytes = file("small.spz").slice();
    expect((await openSpz(bytes)).antialiased).toBe(false);
    bytes[14]! |= 1;
    expect((await openSpz(bytes)).antialiased).toBe(true);
  });

  it("reads the same splats from a compressed PLY within its steps", () => {
    const compressed = all(openPly(file("small.compressed.ply")));
    const rows = matched(compressed);
    // 10 to 11 bits over the range of 256 neighbours (at most the scene: 12 units); harmonics 8/255,
    // which writers round to 256 levels.
    expect(largest(compressed, rows, "means", 3)).toBeLessThan(6 / 1023);
    expect(largest(compressed, rows, "scales", 3)).toBeLessThan(12 / 1023);
    expect(largest(compressed, rows, "sh", 48)).toBeLessThan(4.5 / 255);
    expect(turned(compressed, rows)).toBeLessThan(1e-4);
  });

  it("names what is wrong with broken files", async () => {
    expect(await kindOf(() => openPly(file("small.ply").slice(0, 9000)))).toBe("damaged");
    expect(await kindOf(() => openPly(text("ply\nformat ascii 1.0\nend_header\n")))).toBe("format");
    const mesh =
      "ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n";
    expect(await kindOf(() => openPly(text(mesh)))).toBe("format");
    expect(await kindOf(() => openSpz(file("small.spz").slice(0, 4000)))).toBe("damaged");
    expect(await kindOf(() => openSpz(file("small.spz").slice(0, 20)))).toBe("damaged");
    expect(await kindOf(() => openGlb(file("small.glb").slice(0, 4000)))).toBe("damaged");
    expect(await kindOf(() => openGlb(text("glTF")))).toBe("format");
  });
});

/** A gzipped SPZ that declares `count` splats of degree 0 (20 bytes each) and holds `bytes`. */
function zippedSpz(count: number, bytes: number, version = 3): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(16 + bytes);
  const view = new DataView(body.buffer);
  view.setUint32(0, 0x5053474e, true);
  view.setUint32(4, version, true);
  view.setUint32(8, count, true);
  return new Uint8Array(gzipSync(body));
}

/** A GLB whose `change` has been made to the JSON. */
function changedGlb(change: (json: never) => void): Uint8Array {
  const bytes = file("small.glb");
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(12, true);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + length)));
  change(json as never);
  const words = text(JSON.stringify(json));
  const out = new Uint8Array(20 + words.length + bytes.length - 20 - length);
  out.set(bytes.subarray(0, 20));
  new DataView(out.buffer).setUint32(12, words.length, true);
  out.set(words, 20);
  out.set(bytes.subarray(20 + length), 20 + words.length);
  return out;
}
interface Json {
  accessors: { count: number; bufferView: number; byteOffset?: number }[];
  bufferViews: { byteStride?: number; byteOffset?: number }[];
  nodes: { children?: number[] }[];
}

describe("small files that would fill the memory", () => {
  it("SPZ: what unpacks to more than its splats take is too big, and is not unpacked", async () => {
    expect(await kindOf(() => openSpz(zippedSpz(100, 2000)))).toBe("none");
    expect(await kindOf(() => openSpz(zippedSpz(100, 1999)))).toBe("damaged");
    const bomb = zippedSpz(100, 3e8);
    expect(bomb.length).toBeLessThan(4e5);
    const before = process.memoryUsage().arrayBuffers;
    expect(await kindOf(() => openSpz(bomb))).toBe("too-big");
    // The bound is 1 MB above the splats; chunks of a stream wait to be collected.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(5e7);
  });

  it("SPZ: what promises more than a buffer holds, or than its bytes can, is refused", async () => {
    // 20 bytes a splat at degree 0, so 50 million of them fill 1 GB.
    expect(await kindOf(() => openSpz(zippedSpz(50_000_001, 2000)))).toBe("too-big");
    expect(await kindOf(() => openSpz(zippedSpz(50_000_000, 2000)))).toBe("damaged");
    const unzipped = new Uint8Array(64);
    const view = new DataView(unzipped.buffer);
    [0x5053474e, 4, 4e9].forEach((word, i) => {
      view.setUint32(4 * i, word, true);
    });
    expect(await kindOf(() => openSpz(unzipped))).toBe("too-big");
  });

  it("SOG: pictures far larger than the splats need are refused before they are decoded", async () => {
    const part = { files: ["a.webp"], codebook: [0] };
    const means = { files: ["a.webp", "a.webp"], mins: [0, 0, 0], maxs: [1, 1, 1] };
    const open = (count: unknown, width: number, height: number) => {
      const webp = new Uint8Array(40);
      webp.set(text("RIFF\0\0\0\0WEBPVP8L"));
      new DataView(webp.buffer).setUint32(21, (width - 1) | ((height - 1) << 14), true);
      const meta = { version: 2, count, means, scales: part, quats: part, sh0: part };
      let decoded = 0;
      const decode = () => {
        decoded++;
        return Promise.resolve({ width, height, data: new Uint8Array(4) });
      };
      const source = () =>
        openSog(text(JSON.stringify(meta)), decode, () => Promise.resolve(webp.slice()));
      return kindOf(source).then((kind) => [kind, decoded]);
    };
    expect(await open(100, 12, 12)).toEqual(["none", 5]);
    expect(await open(100, 16383, 16383)).toEqual(["too-big", 0]);
    // Each below 1 GB, together above 1.5 GB.
    expect(await open(1.4e8, 12000, 12000)).toEqual(["too-big", 0]);
    for (const count of [-1, 1.5, null, "9"])
      expect(await open(count, 12, 12)).toEqual(["damaged", 0]);
  });

  it("PLY and GLB: more rows than the file has are not believed", async () => {
    const listed =
      "ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uchar int a\n" +
      "element vertex 4000000000\nproperty float x\nend_header\n";
    expect(await kindOf(() => openPly(text(listed)))).toBe("format");
    const glb = (change: (json: Json) => void) =>
      kindOf(() => openGlb(changedGlb(change as never)));
    expect(await glb(() => {})).toBe("none");
    expect(
      await glb((json) => {
        for (const view of json.bufferViews) view.byteStride = 0;
        for (const accessor of json.accessors) accessor.count = 4e9;
      }),
    ).toBe("damaged");
    expect(await glb((json) => (json.accessors[1]!.count -= 1))).toBe("damaged");
    expect(await glb((json) => (json.accessors[0]!.byteOffset = -8))).toBe("damaged");
    // Two ways to each of 64 nodes are 2^64 ways to the last.
    const ladder = (json: Json) => {
      const last = json.nodes.length;
      json.nodes[0]!.children = [last, last];
      for (let i = 0; i < 64; i++) json.nodes.push({ children: [last + i + 1, last + i + 1] });
      json.nodes.push({});
    };
    expect(await glb(ladder)).toBe("format");
  });
});
