import { describe, expect, it } from "vitest";
import type { Manifest } from "../../src/decode/bundle/manifest.gen";
import { splats4dKind } from "../../src/decode/bundle/splats4d";
import type { DecodedStage, StageDecoder } from "../../src/decode/bundle/stages";
import { SceneError } from "../../src/decode/errors";
import { blend, type Followers, movedPlaces, movedSplats } from "../../src/decode/motion/followers";
import { Ranks } from "../../src/decode/motion/ranks";
import { type MotionShape, Splines } from "../../src/decode/motion/splines";
import { allocateSplats } from "../../src/decode/splats";

type V3 = [number, number, number];

/** The same numbers in every run, -1 .. 1. */
function randoms(seed: number): () => number {
  let x = seed >>> 0;
  return () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return x / 2 ** 31 - 1;
  };
}

function shapeOf(rest: V3[], segments: number[], more: Partial<MotionShape> = {}): MotionShape {
  let segment = 0;
  const chunks = segments.map((n) => {
    segment += n;
    return { segment: segment - n, segments: n };
  });
  const [start, interval] = [10, 0.5];
  const made = { start, interval, duration: interval * segment, nodes: rest.length };
  return { ...made, windows: false, rest: Float64Array.from(rest.flat()), chunks, ...more };
}

/** A chunk's knots of `all`, [K, N, 6]. */
function cut(all: Float32Array, { nodes, chunks }: MotionShape, chunk: number): Float32Array {
  const { segment, segments } = chunks[chunk]!;
  return all.slice(6 * nodes * segment, 6 * nodes * (segment + segments + 3));
}

function splinesOf(shape: MotionShape, all: Float32Array): Splines {
  const splines = new Splines(shape);
  for (const i of shape.chunks.keys()) splines.add(i, cut(all, shape, i));
  return splines;
}

/** Where a node's pose takes a place. */
function takes(duals: Float64Array, node: number, place: V3): number[] {
  const followers: Followers = {
    count: 1,
    nodes: Uint16Array.of(node, node, node, node),
    weights: Uint8Array.of(100, 80, 50, 25),
    windows: null,
  };
  return [...movedPlaces(Float32Array.from(place), followers, duals).centers];
}

describe("splines of poses", () => {
  const axis = [2 / 3, -1 / 3, 2 / 3];
  const speed = 0.7; // radians a knot: 4 of them turn past half a turn

  it("turn evenly where knots do, about the node", () => {
    const rest: V3 = [3, -2, 5];
    const shape = shapeOf([rest], [6]);
    const knots = Array.from({ length: 9 }, (_, k) => [...axis.map((a) => a * speed * k), 0, 0, 0]);
    const splines = splinesOf(shape, Float32Array.from(knots.flat()));
    for (const v of [0, 0.25, 1, 2.6, 5.99, 6]) {
      expect(splines.evaluate(shape.start + v * shape.interval)).toBe(true);
      const angle = speed * (1 + v); // the sum of the three blends is 1 + u
      const [w, ...q] = splines.duals;
      const sign = w! * Math.cos(angle / 2) < 0 ? -1 : 1;
      expect(sign * w!).toBeCloseTo(Math.cos(angle / 2), 6);
      for (let a = 0; a < 3; a++) {
        expect(sign * q[a]!).toBeCloseTo(axis[a]! * Math.sin(angle / 2), 6);
      }
      const [x, y, z] = takes(splines.duals, 0, rest);
      expect([x, y, z].map((c, a) => Math.abs(c! - rest[a]!) < 1e-5)).toEqual([true, true, true]);
    }
  });

  it("shift as the uniform cubic B-spline where nothing turns", () => {
    const next = randoms(1);
    const shifts = Array.from({ length: 8 }, () => [next(), next(), next()]);
    const shape = shapeOf([[1, 2, 3]], [5]);
    const splines = splinesOf(shape, Float32Array.from(shifts.flatMap((s) => [0, 0, 0, ...s])));
    const [s, u] = [3, 0.3];
    splines.evaluate(shape.start + (s + u) * shape.interval);
    const basis = [
      (1 - u) ** 3 / 6,
      (4 - 6 * u ** 2 + 3 * u ** 3) / 6,
      (1 + 3 * u + 3 * u ** 2 - 3 * u ** 3) / 6,
      u ** 3 / 6,
    ];
    const moved = takes(splines.duals, 0, [0, 0, 0]);
    for (let a = 0; a < 3; a++) {
      const wanted = basis.reduce((sum, b, k) => sum + b * shifts[s + k]![a]!, 0);
      expect(moved[a]).toBeCloseTo(wanted, 6);
    }
  });

  it("stand before the start and after the end", () => {
    const next = randoms(2);
    const shape = shapeOf([[0, 0, 0]], [2, 2]);
    const splines = splinesOf(shape, Float32Array.from({ length: 6 * 7 }, next));
    const at = (time: number) => {
      splines.evaluate(time);
      return [...splines.duals];
    };
    expect(at(-5)).toEqual(at(shape.start));
    expect(at(1e9)).toEqual(at(shape.start + shape.duration));
    expect(at(shape.start)).not.toEqual(at(shape.start + shape.duration));
  });

  it("are the same from one chunk alone as from the whole", () => {
    const next = randoms(3);
    const rest: V3[] = [1, 2, 3].map((i) => [i, next(), next()]);
    const all = Float32Array.from({ length: 6 * 3 * 10 }, next);
    const whole = splinesOf(shapeOf(rest, [7]), all);
    const parts = shapeOf(rest, [2, 4, 1]);
    for (const chunk of [2, 0, 1]) {
      const alone = new Splines(parts);
      alone.add(chunk, cut(all, parts, chunk));
      const { segment, segments } = parts.chunks[chunk]!;
      for (const v of [segment, segment + 0.4, segment + segments - 0.001]) {
        const time = parts.start + v * parts.interval;
        expect(alone.evaluate(time)).toBe(true);
        whole.evaluate(time);
        expect([...alone.duals]).toEqual([...whole.duals]);
      }
      const other = segment === 0 ? 3 : 0;
      expect(alone.evaluate(parts.start + other * parts.interval)).toBe(false);
    }
  });
});

describe("splats that follow nodes", () => {
  const next = randoms(4);
  const rest: V3[] = Array.from({ length: 6 }, () => [next(), next(), next()]);

  it("move rigidly with nodes that move alike, whatever the signs of their quaternions", () => {
    const shape = shapeOf(rest, [1]);
    // One pose of all nodes: R x + t, so that each node's shift is R c + t - c.
    const turn = [0.4, -0.9, 1.3];
    const one = new Splines(shapeOf([[0, 0, 0]], [1]));
    one.add(0, Float32Array.from([0, 1, 2, 3].flatMap(() => [...turn, 0.3, 0.2, -0.5])));
    one.evaluate(shape.start);
    const knot = rest.flatMap((c) => [...turn, ...takes(one.duals, 0, c).map((x, a) => x - c[a]!)]);
    const splines = splinesOf(shape, Float32Array.from([0, 1, 2, 3].flatMap(() => knot)));
    splines.evaluate(shape.start);
    for (let k = 0; k < 8; k++) splines.duals[8 * 2 + k]! *= -1;
    const data = allocateSplats(5, 0);
    const followers: Followers = {
      count: 5,
      nodes: new Uint16Array(20),
      weights: new Uint8Array(20),
      windows: null,
    };
    for (let i = 0; i < 5; i++) {
      data.means.set([next(), next(), next()], 3 * i);
      data.quats.set([1, 0, 0, 0], 4 * i);
      followers.nodes.set([(i + 2) % 6, i, (i + 1) % 6, (i + 4) % 6], 4 * i);
      followers.weights.set([120, 90, 40, 5], 4 * i);
    }
    const moved = movedSplats(data, followers, splines.duals, 0);
    for (let i = 0; i < 5; i++) {
      const place = [...data.means.subarray(3 * i, 3 * i + 3)] as V3;
      const wanted = takes(one.duals, 0, place);
      const sign = moved.quats[4 * i]! * one.duals[0]! < 0 ? -1 : 1;
      for (let a = 0; a < 3; a++) expect(moved.means[3 * i + a]).toBeCloseTo(wanted[a]!, 5);
      for (let a = 0; a < 4; a++) {
        expect(sign * moved.quats[4 * i + a]!).toBeCloseTo(one.duals[a]!, 5);
      }
    }
  });

  it("are between two nodes' turns about one axis by the lengths of the sum", () => {
    const half = (angle: number) => [Math.cos(angle / 2), 0, 0, Math.sin(angle / 2), 0, 0, 0, 0];
    const duals = Float64Array.from([...half(0.2), ...half(1.4)]);
    const out = new Float64Array(7);
    const weights = Uint8Array.of(153, 102, 0, 0);
    blend({ count: 1, nodes: Uint16Array.of(0, 1, 0, 1), weights, windows: null }, 0, duals, out);
    const z = 153 * Math.sin(0.1) + 102 * Math.sin(0.7);
    const w = 153 * Math.cos(0.1) + 102 * Math.cos(0.7);
    expect(out[0]).toBeCloseTo(w / Math.hypot(w, z), 12);
    expect(out[3]).toBeCloseTo(z / Math.hypot(w, z), 12);
    expect([...out.subarray(4)].every((x) => Math.abs(x) < 1e-12)).toBe(true);
  });

  it("come and go in their windows", () => {
    const data = allocateSplats(1, 0);
    data.opacities[0] = 0.8;
    data.quats[0] = 1;
    const windows = Float32Array.of(1, 3, 0.1, 0.2);
    const followers = { count: 1, nodes: new Uint16Array(4), weights: Uint8Array.of(255, 0, 0, 0) };
    const at = (seconds: number) =>
      movedSplats(data, { ...followers, windows }, Float64Array.of(1, 0, 0, 0, 0, 0, 0, 0), seconds)
        .opacities[0]!;
    const s = (x: number) => 1 / (1 + Math.exp(-x));
    expect(at(1)).toBeCloseTo(0.8 * 0.5 * s(10), 6);
    expect(at(2)).toBeCloseTo(0.8 * s(10) * s(5), 6);
    expect(at(3)).toBeCloseTo(0.8 * s(20) * 0.5, 6);
  });
});

describe("ranks of nodes", () => {
  it("are those of exact distances, equal ones by number, near and far ones", () => {
    const next = randoms(5);
    const nodes = 300;
    // A coarse grid: many are at the same distance, some at the same place.
    const rest = Int32Array.from({ length: 3 * nodes }, () => Math.round(3 * next()) * 2 ** 20);
    const order = (place: number[]) =>
      Array.from({ length: nodes }, (_, n) => n).sort((a, b) => {
        const d = (n: number) => place.reduce((s, p, k) => s + (rest[3 * n + k]! - p) ** 2, 0);
        return d(a) - d(b) || a - b;
      });
    const ranks = new Ranks(rest, nodes);
    for (const wanted of [
      [0, 1, 2, 3],
      [5, 0, 31, 7],
      [32, 299, 0, 140],
    ]) {
      const place = [1, 2, 3].map(() => Math.round((next() + 1) * 2 ** 20));
      const found = Uint16Array.of(9, ...wanted, 9);
      ranks.resolve(place[0]!, place[1]!, place[2]!, found, 1);
      const sorted = order(place);
      expect([...found]).toEqual([9, ...wanted.map((r) => sorted[r]), 9]);
    }
  });
});

/** A manifest of 3 points, 4 nodes and 2 chunks, as far as the kind looks at it. */
function manifestOf(): Manifest {
  const array = (name: string, components: number, more = {}) => ({ name, components, ...more });
  return {
    count: 3,
    sh_degree: 0,
    positions: { bits: 8, origin: [1, 2, 3], step: 0.5 },
    stages: [3, 0, 0].map((points) => ({ points, member: "m", streams: [{ length: 1000 }] })),
    arrays: [
      array("moving", 1),
      array("node_rest", 3, { items: 4, stage: 0 }),
      array("nodes", 4),
      array("weights", 3),
      array("motion_0", 6, { items: 20, stage: 1 }),
      array("motion_1", 6, { items: 16, stage: 2 }),
    ],
    splats4d: {
      start: 1,
      duration: 1.2,
      interval: 0.4,
      nodes: 4,
      rotation_step: 0.01,
      shift_step: 0.001,
      windows: false,
      chunks: [
        { stage: 1, segment: 0, segments: 2 },
        { stage: 2, segment: 2, segments: 1 },
      ],
    },
  } as unknown as Manifest;
}

describe("kind splats4d", () => {
  const refused = (change: (m: Manifest, s: NonNullable<Manifest["splats4d"]>) => void) => {
    const manifest = manifestOf();
    change(manifest, manifest.splats4d!);
    expect(() => splats4dKind.check(manifest, 1e6)).toThrow(SceneError);
  };

  it("refuses manifests that cannot be", () => {
    splats4dKind.check(manifestOf(), 1e6);
    refused((m) => Reflect.deleteProperty(m, "splats4d"));
    refused((_, s) => Object.assign(s, { nodes: 3 }));
    refused((_, s) => Object.assign(s, { chunks: [] }));
    refused((_, s) => Object.assign(s, { duration: 1.3 }));
    refused((_, s) => Object.assign(s.chunks[1]!, { segment: 1 }));
    refused((_, s) => Object.assign(s.chunks[1]!, { segment: 3 }));
    refused((_, s) => s.chunks.reverse());
    refused((_, s) => Object.assign(s, { windows: true }));
    refused((m) => Object.assign(m, { positions: undefined }));
    refused((m) => Object.assign(m.arrays[4]!, { items: 16 }));
    refused((m) => Object.assign(m.arrays[4]!, { stage: 0 }));
    refused((m) => Object.assign(m.arrays[2]!, { components: 3 }));
    refused((m) => Object.assign(m.arrays[2]!, { quantiser: { type: "uniform" } }));
    refused((m) => m.arrays.pop());
    refused((m) => m.arrays.push({ ...m.arrays[5]!, name: "motion_2" }));
    refused((m) => Object.assign(m.stages[0]!, { points: 2 }));
    refused((m, s) => {
      Object.assign(m.stages[0]!, { points: 2 ** 20 });
      Object.assign(m, { count: 2 ** 20 });
      Object.assign(s, { nodes: 4096 });
      Object.assign(m.arrays[1]!, { items: 4096 });
      Object.assign(m.arrays[4]!, { items: 5 * 4096 });
      Object.assign(m.arrays[5]!, { items: 4 * 4096 });
    });
  });

  const columns = (...rows: number[][]) => rows.map((r) => Int32Array.from(r));
  const rest = columns([0, 100, 0, 255], [0, 0, 100, 255], [0, 0, 0, 255]);
  const stageOf = (codes: Record<string, Int32Array[]>) =>
    ({
      number: 0,
      points: 3,
      grid: [Uint32Array.of(1, 90, 255), Uint32Array.of(0, 20, 250), Uint32Array.of(0, 0, 255)],
      codes: new Map(Object.entries(codes)),
    }) as unknown as DecodedStage;
  const GOOD = {
    moving: columns([1, 0, 1]),
    nodes: columns([0, 9, 3], [1, 9, 2], [2, 9, 1], [3, 9, 0]),
    weights: columns([50, 999, 10], [100, 0, 20], [90, 0, 30]),
  };
  const motionOf = (fixed: Record<string, Int32Array[]>) => {
    const decoder = { manifest: manifestOf(), take: (name: string) => fixed[name]! };
    return splats4dKind.open(decoder as unknown as StageDecoder, 0).motion!;
  };
  const all = { from: 0, to: 3, stride: 1 };

  it("tells nodes by their ranks, and puts the largest weight first", () => {
    const motion = motionOf({ node_rest: rest });
    const shape = motion.shape()!;
    expect([...shape.rest.subarray(3, 6)]).toEqual([51, 2, 3]);
    const { rows, followers } = motion.followers(stageOf(GOOD), all);
    expect([...rows]).toEqual([0, 2]);
    // From (1, 0, 0): 0, 1, 2, 3; from (255, 250, 255): 3, 1, 2, 0.
    expect([...followers.nodes]).toEqual([1, 0, 2, 3, 3, 2, 1, 0]);
    expect([...followers.weights]).toEqual([100, 50, 90, 15, 195, 20, 30, 10]);
  });

  it("refuses codes that cannot be, of splats that move alone", () => {
    const bad = (change: Record<string, Int32Array[]>) => () => {
      const motion = motionOf({ node_rest: rest });
      motion.shape();
      motion.followers(stageOf({ ...GOOD, ...change }), all);
    };
    expect(bad({})).not.toThrow();
    for (const change of [
      { moving: columns([1, 2, 1]) },
      { moving: columns([1, 1, 1]) },
      { nodes: columns([0, 9, 4], [1, 9, 2], [2, 9, 1], [3, 9, 0]) },
      { nodes: columns([0, 9, 2], [1, 9, 2], [2, 9, 1], [3, 9, 0]) },
      { nodes: columns([0, 9, -1], [1, 9, 2], [2, 9, 1], [3, 9, 0]) },
      { weights: columns([50, 999, 10], [-1, 0, 20], [90, 0, 30]) },
      { weights: columns([100, 999, 10], [100, 0, 20], [90, 0, 30]) },
    ]) {
      expect(bad(change)).toThrow(SceneError);
    }
    const far = columns([0, 100, 0, 2 ** 22 + 1], [0, 0, 100, 255], [0, 0, 0, 255]);
    expect(() => motionOf({ node_rest: far }).shape()).toThrow(SceneError);
  });

  it("refuses chunks that differ in the knots which both have, whichever comes first", () => {
    const flat = (items: number, bump: number) =>
      Array.from({ length: 6 }, () => Int32Array.from({ length: items }, (_, i) => (i ? 0 : bump)));
    for (const [first, second] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const motion = motionOf({ motion_0: flat(20, 0), motion_1: flat(16, 0) });
      motion.knots(first);
      motion.knots(second);
      const torn = motionOf({ motion_0: flat(20, 0), motion_1: flat(16, 1) });
      torn.knots(first);
      expect(() => torn.knots(second)).toThrow(SceneError);
    }
  });

  it("sums up the codes of knots", () => {
    const items = 16;
    const motion_1 = Array.from({ length: 6 }, (_, c) =>
      Int32Array.from({ length: items }, (_, i) => (c + 1) * (i < 4 ? 100 : 1)),
    );
    const knots = motionOf({ motion_1 }).knots(1);
    expect(knots.length).toBe(6 * items);
    expect(knots[0]).toBeCloseTo(1, 6);
    expect(knots[6 * 4 * 3 + 6 * 2 + 1]).toBeCloseTo(0.01 * 2 * 103, 6);
    expect(knots[6 * 4 * 2 + 5]).toBeCloseTo(0.001 * 6 * 102, 6);
    const huge = [...motion_1.slice(1), Int32Array.from({ length: items }, () => 2 ** 29)];
    expect(() => motionOf({ motion_1: huge }).knots(1)).toThrow(SceneError);
    const wild = [Int32Array.from({ length: items }, () => 30_000), ...motion_1.slice(1)];
    expect(() => motionOf({ motion_1: wild }).knots(1)).toThrow(SceneError);
  });
});
