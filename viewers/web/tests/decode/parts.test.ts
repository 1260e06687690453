import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { applyPatches, patches } from "../../build/engine-patches";
import { fitted, intrinsics, project, rayThrough } from "../../src/camera/projection";
import { Rig } from "../../src/camera/rig";
import { add, cross, dot, frameOf, normalize, scale, type V3 } from "../../src/camera/vec";
import { psnr } from "../../src/compare";
import { sha256, sha256Plain } from "../../src/decode/bundle/bytes";
import { upOf } from "../../src/decode/bundle/up";
import { rotateHarmonics, shBasis } from "../../src/decode/harmonics";
import { byImportance, extentOf } from "../../src/decode/order";
import { fromHalf, packSplats, toHalf } from "../../src/decode/pack";
import { pickAlong, pickable } from "../../src/decode/pick";
import type { CaptureCamera } from "../../src/decode/protocol";
import { allocateSplats, type SplatData, setQuat } from "../../src/decode/splats";
import { DEFAULTS, formatView, fromFile, fromParameters, parseView } from "../../src/settings";

/** Splats with sizes, in a row along x. */
function row(sizes: number[], opacities: number[]): SplatData {
  const data = allocateSplats(sizes.length, 0);
  for (const [i, size] of sizes.entries()) {
    data.means[3 * i] = i;
    data.scales.fill(size, 3 * i, 3 * i + 3);
    data.opacities[i] = opacities[i]!;
    setQuat(data.quats, i, 1, 0, 0, 0);
  }
  return data;
}

describe("the direction upwards", () => {
  /** Level cameras on a circle around `up`, at `turns` of it, pointed down by `pitch` radians. */
  const level = (up: V3, turns: number[], pitch: number, roll = 0): CaptureCamera[] => {
    const [first, second] = frameOf(up);
    return turns.map((turn, i) => {
      const [c, s] = [Math.cos(2 * Math.PI * turn), Math.sin(2 * Math.PI * turn)];
      const outwards = add(scale(first, c), scale(second, s));
      const back = add(scale(outwards, Math.cos(pitch)), scale(up, Math.sin(pitch)));
      const [x, y] = [cross(up, outwards), cross(back, cross(up, outwards))];
      const [p, q] = [Math.cos(roll * (-1) ** i), Math.sin(roll * (-1) ** i)];
      const [right, upper] = [add(scale(x, p), scale(y, q)), add(scale(y, p), scale(x, -q))];
      const c2w = [0, 1, 2].flatMap((a) => [right[a]!, upper[a]!, back[a]!, 0]);
      return { name: "", c2w: [...c2w, 0, 0, 0, 1], K: [], width: 1, height: 1 };
    });
  };
  const degrees = (a: V3, b: V3) => (Math.acos(Math.min(1, dot(a, b))) * 180) / Math.PI;
  const tilted = normalize([0.1, -0.9, -0.4]);

  it("is that of level cameras that look down, from one side of the scene only", () => {
    const half = [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5];
    // The mean of their own upward directions is 32 degrees off.
    expect(degrees(upOf(level(tilted, half, 0.9)), tilted)).toBeLessThan(0.5);
    expect(degrees(upOf(level(tilted, half, 0.9, 0.05)), tilted)).toBeLessThan(3);
  });

  it("is an axis of the world only where it is as good as one", () => {
    const ring = [0, 0.2, 0.4, 0.6, 0.8];
    expect(upOf(level([0, 0, 1], ring, 0.5))).toEqual([0, 0, 1]);
    expect(upOf(level(normalize([0.01, -1, 0]), ring, 0.5))).toEqual([0, -1, 0]);
    expect(degrees(upOf(level(tilted, ring, 0.5)), tilted)).toBeLessThan(0.1);
  });

  it("is that of the cameras themselves where all look the same way, and z without any", () => {
    const [one] = level(tilted, [0.3], 0.2) as [CaptureCamera];
    const own: V3 = [one.c2w[1]!, one.c2w[5]!, one.c2w[9]!];
    expect(degrees(upOf([one, one, one]), own)).toBeLessThan(0.1);
    expect(upOf([])).toEqual([0, 0, 1]);
  });
});

describe("hashes", () => {
  it("agree with Node's for lengths around the block size", async () => {
    for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 37) & 255);
      const expected = createHash("sha256").update(bytes).digest("hex");
      expect(sha256Plain(bytes)).toBe(expected);
      expect(await sha256(bytes)).toBe(expected);
    }
  });
});

describe("half precision", () => {
  it("gives every finite half back", () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      if ((bits & 0x7c00) === 0x7c00) continue;
      expect(toHalf(fromHalf(bits))).toBe(bits);
    }
  });
  it("rounds to nearest even and clamps", () => {
    expect(fromHalf(toHalf(2049))).toBe(2048);
    expect(fromHalf(toHalf(2051))).toBe(2052);
    expect(fromHalf(toHalf(1e9))).toBe(65504);
    expect(fromHalf(toHalf(2 ** -25))).toBe(0);
    expect(fromHalf(toHalf(1.5 * 2 ** -24))).toBe(2 ** -23);
  });
});

describe("packing", () => {
  it("makes splats that are not finite invisible", () => {
    const data = row([0.1, 0.1], [0.5, 0.5]);
    data.means[3] = Number.NaN;
    const packed = packSplats(data);
    expect(fromHalf(packed.color[3]!)).toBe(0.5);
    expect(packed.color[7]).toBe(0);
    expect(packed.bounds.every(Number.isFinite)).toBe(true);
  });
  it("encloses three standard deviations and more", () => {
    const { bounds } = packSplats(row([0.1], [1]));
    expect(bounds[0]).toBeLessThan(-0.33);
    expect(bounds[3]).toBeGreaterThan(0.33);
  });
});

describe("order", () => {
  it("puts the most visible first", () => {
    const data = row([0.1, 1, 0.5, 1], [1, 0.1, 1, 0.9]);
    const source = { count: 4, degree: 0, read: () => data };
    // opacity * size^2: 0.01, 0.1, 0.25, 0.9
    expect([...byImportance(source).rows]).toEqual([3, 2, 1, 0]);
  });
  it("is not led astray by outliers", () => {
    const points = new Float32Array(303);
    for (let i = 0; i < 101; i++) points[3 * i] = i / 100;
    points[0] = 1e6;
    const { center, radius } = extentOf(points);
    expect(center[0]).toBeCloseTo(0.51, 1);
    expect(radius).toBeLessThan(0.6);
  });
});

describe("picking", () => {
  it("finds the front of two splats, and nothing beside them", () => {
    const pieces = [pickable(packSplats(row([0.1, 0.1, 0.1], [0.99, 0.99, 0.99])))];
    expect(pickAlong(pieces, [-5, 0, 0], [2, 0, 0])).toBeCloseTo(5, 3);
    expect(pickAlong(pieces, [1, 0, -4], [0, 0, 1])).toBeCloseTo(4, 3);
    expect(pickAlong(pieces, [-5, 3, 0], [1, 0, 0])).toBeNull();
    expect(pickAlong(pieces, [10, 0, 0], [1, 0, 0])).toBeNull();
  });
  it("meets what is there at a time", () => {
    const packed = packSplats(row([0.1, 0.1, 0.1], [0.99, 0.99, 0.99]));
    const pieces = [pickable(packed, { start: 1, end: 2 })];
    const at = (time: number) => pickAlong(pieces, [-5, 0, 0], [1, 0, 0], time);
    expect([at(0.9), at(1), at(1.9), at(2)]).toEqual([
      null,
      expect.closeTo(5, 3),
      expect.closeTo(5, 3),
      null,
    ]);
  });

  it("sees through the faint and knows turned splats", () => {
    const data = row([0.1, 0.1], [0.05, 0.99]);
    expect(pickAlong([pickable(packSplats(data))], [-5, 0, 0], [1, 0, 0])).toBeCloseTo(6, 3);
    const flat = row([1], [0.99]);
    flat.scales.set([1, 0.01, 0.01]);
    setQuat(flat.quats, 0, Math.SQRT1_2, 0, 0, Math.SQRT1_2); // x axis to y
    const pieces = [pickable(packSplats(flat))];
    expect(pickAlong(pieces, [-5, 0.9, 0], [1, 0, 0])).toBeCloseTo(5, 2);
    expect(pickAlong(pieces, [0.9, -5, 0], [0, 1, 0])).toBeNull();
  });
});

describe("harmonics", () => {
  it("turn with the scene", () => {
    const [c, s] = [Math.cos(0.7), Math.sin(0.7)];
    const m = [c, -s, 0, s * 0.6, c * 0.6, -0.8, s * 0.8, c * 0.8, 0.6];
    const sh = Float32Array.from({ length: 48 }, (_, i) => Math.sin(i * 1.7));
    const turned = sh.slice();
    rotateHarmonics(m, 3)(turned, 0);
    const value = (k: Float32Array, d: number[]) =>
      shBasis(d[0]!, d[1]!, d[2]!).reduce((sum, b, i) => sum + b * k[3 * i]!, 0);
    for (const d of [
      [1, 0, 0],
      [0.6, 0, -0.8],
      [0.48, 0.6, 0.64],
    ]) {
      const md = [0, 1, 2].map(
        (r) => m[3 * r]! * d[0]! + m[3 * r + 1]! * d[1]! + m[3 * r + 2]! * d[2]!,
      );
      // float32 coefficients
      expect(value(turned, md)).toBeCloseTo(value(sh, d), 5);
    }
  });
});

describe("projection", () => {
  const c2w = [0, 0, 1, 4, 1, 0, 0, 5, 0, 1, 0, 6, 0, 0, 0, 1];
  it("projects what a ray hits to the ray's pixel", () => {
    const camera = { c2w, K: [300, 0, 70, 0, 340, 150, 0, 0, 1], width: 320, height: 240 };
    const ray = rayThrough(camera, 33, 190);
    const p = project(camera, [4 + 2.5 * ray[0], 5 + 2.5 * ray[1], 6 + 2.5 * ray[2]])!;
    expect([p.x, p.y, p.depth].map((v) => Number(v.toFixed(6)))).toEqual([33, 190, 2.5]);
    expect(project(camera, [5, 5, 6])).toBeNull();
  });
  it("fits a camera's picture into a part of a window", () => {
    const window = { x: 10, y: 20, width: 300, height: 300 };
    const { K, frame } = fitted({ K: intrinsics(60, 100, 50), width: 100, height: 50 }, window);
    expect(frame).toEqual({ x: 10, y: 95, width: 300, height: 150 });
    expect([K[2], K[5]]).toEqual([160, 170]);
  });
});

describe("rig", () => {
  const settle = (rig: Rig) => {
    for (let i = 0; i < 200; i++) rig.update(0.05);
  };
  const rig = () => {
    const r = new Rig();
    r.setExtent({ center: [0, 0, 0], radius: 1 }, { low: [-1, -1, -1], high: [1, 1, 1] });
    r.setView({ position: [3, 0, 0], target: [0, 0, 0] }, true);
    return r;
  };
  it("makes right-handed camera matrices that look at the target", () => {
    const m = rig().c2w();
    expect([m[2], m[6], m[10]].map((x) => Number(x!.toFixed(6)) + 0)).toEqual([1, 0, 0]);
    expect([m[1], m[5], m[9]].map((x) => Number(x!.toFixed(6)) + 0)).toEqual([0, 0, 1]);
    const det =
      m[0]! * (m[5]! * m[10]! - m[6]! * m[9]!) -
      m[1]! * (m[4]! * m[10]! - m[6]! * m[8]!) +
      m[2]! * (m[4]! * m[9]! - m[5]! * m[8]!);
    expect(det).toBeCloseTo(1, 9);
  });
  it("keeps its place when the mode changes, and its eye when it looks around", () => {
    const r = rig();
    r.setMode("fly");
    expect(r.position[0]).toBeCloseTo(3, 9);
    r.turn(1, 0.2);
    settle(r);
    expect(r.position[0]).toBeCloseTo(3, 9);
    r.setMode("orbit");
    expect(r.position[0]).toBeCloseTo(3, 9);
  });
  it("orbits at a distance and never passes the poles", () => {
    const r = rig();
    r.turn(0, -100);
    settle(r);
    expect(Math.hypot(...r.position)).toBeCloseTo(3, 6);
    expect(r.position[2]).toBeLessThan(0);
    expect(Math.abs(r.position[2])).toBeLessThan(3);
  });
  it("walks on a level and is drawn back from beyond the limits", () => {
    const r = rig();
    r.setLimits({ low: [-4, -4, -1], high: [4, 4, 1] }, false);
    r.setMode("walk");
    r.turn(0, 0.5);
    for (let i = 0; i < 100; i++) r.move(0, 1, -1, 0.5);
    const far = r.view().position[0];
    expect(r.view().position[2]).toBeCloseTo(0, 9);
    settle(r);
    expect(r.position[0]).toBeLessThan(far / 2);
  });
  it("is held nearer to the limits in a field of light", () => {
    const held = (confined: boolean) => {
      const r = rig();
      r.setLimits({ low: [-4, -4, -1], high: [4, 4, 1] }, confined);
      r.setMode("fly");
      r.setView({ position: [50, 0, 0], target: [0, 0, 0] });
      for (let i = 0; i < 600; i++) r.update(1 / 60);
      return r.position[0];
    };
    const size = Math.hypot(8, 8, 2);
    expect(held(true)).toBeCloseTo(4 + size / 4, 3);
    expect(held(false)).toBeCloseTo(4 + size / 2, 3);
  });
  it("jumps when motion is reduced", () => {
    const r = rig();
    r.instant = true;
    r.setView({ position: [0, 5, 0], target: [0, 0, 0] });
    expect(r.position[1]).toBeCloseTo(5, 9);
  });
});

describe("settings", () => {
  const read = (text: string) => fromParameters(new URLSearchParams(text), DEFAULTS);
  it("come from the address; nonsense is left out", () => {
    const s = read(
      "content=a.s4d&noui&up=-y&view=1,2,3,4,5,6&fov=500&quality=2&bg=ff0080&theme=pink&stats=0",
    );
    expect(s).toMatchObject({
      content: "a.s4d",
      ui: false,
      up: [0, -1, 0],
      fov: 150,
      quality: 2,
      theme: "auto",
      stats: false,
    });
    expect(s.view).toEqual({ position: [1, 2, 3], target: [4, 5, 6] });
    expect(s.background![0]).toBe(1);
    expect(read("view=1,2,x&up=1,2&fov=&degree=9").degree).toBe(3);
    expect(read("view=1,2,x").view).toBeNull();
  });
  it("write a view that reads back", () => {
    const view = { position: [1.5, -2, 0.001], target: [0, 3, 4] } as const;
    expect(parseView(formatView(view as never))).toEqual(view);
  });
  it("come from a file of the known version only", () => {
    const annotations = [{ title: "a", position: [1, 2, 3] }];
    const s = fromFile({ version: 1, fov: 50, up: "z", annotations }, DEFAULTS);
    expect([s.fov, s.up]).toEqual([50, [0, 0, 1]]);
    expect(s.annotations).toHaveLength(1);
    expect(() => fromFile({ version: 2 }, DEFAULTS)).toThrow('"version" must be 1, not 2');
    expect(() => fromFile({}, DEFAULTS)).toThrow('"version" must be 1');
    for (const file of [null, 1, "a", []]) {
      expect(() => fromFile(file, DEFAULTS)).toThrow("not an object");
    }
  });

  it("of a file that are wrong say which", () => {
    const wrong: [string, unknown][] = [
      ["mode", "swim"],
      ["fov", "wide"],
      ["up", [0, 0, 0]],
      ["view", [1, 2, 3]],
      ["bg", "red"],
      ["theme", "blue"],
      ["backend", "webgl1"],
      ["quality", "best"],
      ["time", "noon"],
      ["budget", "much"],
      ["degree", "high"],
      ["annotations", {}],
      ["annotations", [{ title: 4 }]],
      ["captureCameras", [{ c2w: [1, 2] }]],
    ];
    for (const [name, value] of wrong) {
      expect(() => fromFile({ version: 1, [name]: value }, DEFAULTS)).toThrow(`"${name}"`);
    }
    const second = [{ title: "a", position: [1, 2, 3] }, { title: 4 }];
    expect(() => fromFile({ version: 1, annotations: second }, DEFAULTS)).toThrow("entry 2");
  });
});

describe("comparison", () => {
  it("leaves alpha out", () => {
    expect(psnr([10, 20, 30, 0], [10, 20, 30, 255])).toBe(Number.POSITIVE_INFINITY);
    expect(psnr([0, 0, 0, 255], [255, 255, 255, 255])).toBe(0);
  });
});

describe("engine patches", () => {
  it("refuse a text that is not there as often as stated", () => {
    const one = { file: "x.js", find: "abc", replace: "d", times: 1 };
    expect(applyPatches("1 abc 2", [one])).toBe("1 d 2");
    expect(() => applyPatches("abc abc", [one])).toThrow("2 times");
    expect(patches.every((p) => p.find !== p.replace)).toBe(true);
  });
});
