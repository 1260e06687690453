import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { SceneError } from "../../src/decode/errors";
import { openGlb } from "../../src/decode/glb";
import { openPly } from "../../src/decode/ply";
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
    const kindOf = async (open: () => unknown): Promise<string> => {
      try {
        await open();
      } catch (error) {
        return error instanceof SceneError ? error.kind : `${error}`;
      }
      return "none";
    };
    const text = (s: string) => new TextEncoder().encode(s) as Uint8Array<ArrayBuffer>;
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
