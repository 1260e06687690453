import { describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { meshKind } from "../../src/decode/bundle/mesh";
import { StageDecoder } from "../../src/decode/bundle/stages";
import { isMeshGlb, openMeshGlb } from "../../src/decode/mesh/glb";
import { lastLevel, levelSize, withLevels } from "../../src/decode/mesh/mesh";
import { pickInMesh } from "../../src/decode/mesh/pick";
import { pictureSize } from "../../src/decode/picture-size";
import { MemorySource } from "../../src/decode/remote";
import type { PictureDecoder } from "../../src/decode/sog";
import { ROOT, readBytes } from "../browser/harness";

describe("levels of a texture", () => {
  it("are means of 2 x 2 texels, without an odd last row or column", () => {
    const red = [10, 20, 90, 30, 44, 90, 90, 90, 90];
    const { levels } = withLevels(3, 3, Uint8Array.from(red.flatMap((r) => [r, 0, 255, 255])));
    expect(levels.map((l) => l.length / 4)).toEqual([9, 1]);
    expect([...levels[1]!]).toEqual([26, 0, 255, 255]);
  });

  it("go down to one texel, also of a single row", () => {
    const row = Uint8Array.from([0, 40, 80, 120, 200, 240].flatMap((v) => [v, v, v, 255]));
    const { levels } = withLevels(6, 1, row);
    expect(levels.map((l) => [...l].filter((_, i) => i % 4 === 0))).toEqual([
      [0, 40, 80, 120, 200, 240],
      [20, 100, 220],
      [60],
    ]);
  });

  it("are those that the Python rasteriser reads: six, of at least one row and column", () => {
    const last = (width: number, height: number) => lastLevel({ width, height, levels: [] });
    expect([last(2048, 2048), last(64, 2048), last(31, 33), last(8, 1)]).toEqual([5, 5, 4, 0]);
    expect(levelSize({ width: 37, height: 5 }, 3)).toEqual({ width: 4, height: 1 });
  });
});

describe("picking", () => {
  const positions = Float32Array.from([
    -1, -1, 0, 3, -1, 0, -1, 3, 0, -1, -1, 5, 3, -1, 5, -1, 3, 5,
  ]);
  const mesh = { positions, triangles: Uint32Array.from([0, 1, 2, 3, 4, 5]) };

  it("meets the nearest triangle, from either side, at the distance along the ray", () => {
    expect(pickInMesh(mesh, [0, 0, -2], [0, 0, 3])).toBeCloseTo(2, 12);
    expect(pickInMesh(mesh, [0, 0, 7], [0, 0, -0.5])).toBeCloseTo(2, 12);
    // Between both: the one ahead.
    expect(pickInMesh(mesh, [0, 0, 1], [0, 0, 1])).toBeCloseTo(4, 12);
    expect(pickInMesh(mesh, [-0.5, 0, -3], [0.6, 0, 6])).toBeCloseTo(Math.hypot(0.3, 3), 12);
  });

  it("meets nothing beside, behind, or along a triangle", () => {
    expect(pickInMesh(mesh, [2, 2, -2], [0, 0, 1])).toBeNull();
    expect(pickInMesh(mesh, [0, 0, -2], [0, 0, -1])).toBeNull();
    expect(pickInMesh(mesh, [-9, 0, 0], [1, 0, 0])).toBeNull();
    const point = { positions, triangles: Uint32Array.from([0, 0, 0]) };
    expect(pickInMesh(point, [-1, -1, -2], [0, 0, 1])).toBeNull();
  });
});

it("knows a JPEG's size before it is decoded", () => {
  const application = [0xff, 0xe0, 0, 4, 0, 0];
  const tables = [0xff, 0xc4, 0, 3, 0];
  const frame = [0xff, 0xc2, 0, 17, 8, 1, 2, 3, 4, 3, ...Array(9).fill(0)];
  const file = (parts: number[]) => Uint8Array.from([0xff, 0xd8, ...parts]);
  expect(pictureSize(file([...application, ...tables, ...frame]))).toEqual({
    width: 0x304,
    height: 0x102,
  });
  expect(pictureSize(file([...application, ...tables, ...Array(40).fill(0)]))).toBeNull();
  // A segment that ends behind the file, and lengths of 0.
  expect(pictureSize(file([0xff, 0xe0, 0xff, 0xff, ...Array(40).fill(0)]))).toBeNull();
  expect(pictureSize(file(Array(20).fill([0xff, 0xe0, 0, 0]).flat()))).toBeNull();
});

describe("a GLB that is compressed", () => {
  const bytes = readBytes(`${ROOT}/tests/fixtures/mesh.web.glb`) as Uint8Array<ArrayBuffer>;
  const grey = async () => ({ width: 512, height: 512, data: new Uint8Array(4 * 512 ** 2) });

  /** With `change` made to its JSON. */
  function changed(change: (json: Json) => void): Uint8Array<ArrayBuffer> {
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(12, true);
    const json = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + length)));
    change(json);
    const words = new TextEncoder().encode(JSON.stringify(json));
    const out = new Uint8Array(bytes.length - length + words.length);
    out.set(bytes.subarray(0, 20));
    new DataView(out.buffer).setUint32(12, words.length, true);
    out.set(words, 20);
    out.set(bytes.subarray(20 + length), 20 + words.length);
    return out;
  }
  interface Packed {
    count: number;
    mode: string;
    filter?: string;
    byteOffset: number;
    byteStride: number;
  }
  interface Json {
    bufferViews: { extensions: { EXT_meshopt_compression: Packed } }[];
    materials: { pbrMetallicRoughness: { baseColorFactor?: number[] } }[];
    extensionsRequired: string[];
  }

  it("has the triangles of the bundle that it was made of", async () => {
    expect(isMeshGlb(bytes)).toBe(true);
    const mesh = await openMeshGlb(bytes, grey);
    expect(mesh.triangles.length / 3).toBe(11594);
    expect(mesh.texture.levels).toHaveLength(10);
    const decoder = await StageDecoder.open(
      await openFile(
        new MemorySource(readBytes(`${ROOT}/tests/fixtures/mesh.s4d`) as Uint8Array<ArrayBuffer>),
      ),
    );
    const { stages, transform } = decoder.manifest;
    const stage = decoder.decode(0, await decoder.bundle.read(stages[0]!.member));
    const bundled = await meshKind.read(decoder, stage, grey);
    // Corners of triangles, in any order: sums of places, of their squares and of products with
    // places in the texture tell them apart.
    const [scale, ...move] = [0, 3, 7, 11].map((i) => transform.flat()[i]!) as [
      number,
      number,
      number,
      number,
    ];
    const moments = (m: typeof mesh, s: number, t: number[]) => {
      const sums = new Float64Array(12);
      for (const corner of m.triangles) {
        for (let a = 0; a < 3; a++) {
          const x = s * m.positions[3 * corner + a]! + t[a]!;
          const [u, v] = [m.uv[2 * corner]!, m.uv[2 * corner + 1]!];
          [x, x * x, x * u, x * v].forEach((value, k) => {
            sums[4 * a + k]! += value / m.triangles.length;
          });
        }
      }
      return sums;
    };
    const expected = moments(bundled, scale, move);
    // Steps of 1 / 16383 of 2.4 units; of means of 35,000 a hundredth of one.
    for (const [i, sum] of moments(mesh, 1, [0, 0, 0]).entries())
      expect(sum).toBeCloseTo(expected[i]!, 5);
  });

  it("is refused in words where it lies, or is more than is read", async () => {
    const kinds = async (change: (json: Json) => void) =>
      openMeshGlb(changed(change), grey).then(
        () => "none",
        (error) => error.kind as string,
      );
    const packed = (view: number, some: Partial<Packed>) =>
      kinds((json) =>
        Object.assign(json.bufferViews[view]!.extensions.EXT_meshopt_compression, some),
      );
    expect(await kinds(() => {})).toBe("none");
    expect(await packed(2, { mode: "INDICES" })).toBe("format");
    expect(await packed(0, { filter: "OCTAHEDRAL" })).toBe("format");
    for (const view of [0, 1, 2]) {
      expect(await packed(view, { count: 3e9 })).toBe("damaged");
      expect(await packed(view, { count: 300 })).toBe("damaged");
      expect(await packed(view, { byteOffset: 1e9 })).toBe("damaged");
      expect(await packed(view, { byteOffset: 8 })).toBe("damaged");
      expect(await packed(view, { byteStride: 6 })).toBe("damaged");
    }
    expect(await kinds((json) => json.extensionsRequired.push("KHR_draco"))).toBe("format");
  });

  it("has its factor in its texture", async () => {
    const white = async () => ({
      width: 512,
      height: 512,
      data: new Uint8Array(2 ** 20).fill(255),
    });
    const tinted = changed((json) => {
      json.materials[0]!.pbrMetallicRoughness.baseColorFactor = [1, 0.5, 0, 1];
    });
    const { levels } = (await openMeshGlb(tinted, white)).texture;
    // sRGB of 0.5 is 0.7354.
    expect([...levels[0]!.subarray(0, 4)]).toEqual([255, 188, 0, 255]);
  });
});

describe("a bundle", () => {
  const bytes = readBytes(`${ROOT}/tests/fixtures/mesh.s4d`) as Uint8Array<ArrayBuffer>;

  async function read(decodePicture: PictureDecoder) {
    const decoder = await StageDecoder.open(await openFile(new MemorySource(bytes)));
    const { stages } = decoder.manifest;
    const stage = decoder.decode(0, await decoder.bundle.read(stages[0]!.member));
    return meshKind.read(decoder, stage, decodePicture);
  }

  it("becomes corners, triangles and levels", async () => {
    const grey = async () => ({ width: 512, height: 512, data: new Uint8Array(4 * 512 ** 2) });
    const { vertices, positions, uv, triangles, texture } = await read(grey);
    expect([vertices, triangles.length / 3]).toEqual([6040, 11594]);
    expect(positions.length / 3).toBe(uv.length / 2);
    expect(positions.length / 3).toBeGreaterThan(vertices);
    expect(Math.max(...triangles)).toBe(positions.length / 3 - 1);
    expect(Math.min(...uv)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uv)).toBeLessThanOrEqual(1);
    expect(texture.levels).toHaveLength(10);
  });

  it("is refused where its picture decodes to another size", async () => {
    const small = async () => ({ width: 2, height: 2, data: new Uint8Array(16) });
    await expect(read(small)).rejects.toThrow("holds 2 x 2 texels");
  });

  it("is refused where a device could not hold it", async () => {
    const { manifest } = await openFile(new MemorySource(bytes));
    const mesh = { ...manifest.mesh!, texture: { ...manifest.mesh!.texture, width: 8192 } };
    expect(() => meshKind.check({ ...manifest, mesh }, bytes.length)).not.toThrow();
    const arrays = manifest.arrays.map((a) => ({ ...a, items: 2e7 }));
    expect(() => meshKind.check({ ...manifest, arrays }, 5e8)).toThrow(/a mesh of \d+ MB/);
  });
});
