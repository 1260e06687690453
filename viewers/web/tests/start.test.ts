/** Where a photographed scene is seen from first. */
import { describe, expect, it } from "vitest";
import { Rig } from "../src/camera/rig";
import { cross, normalize, sub, type V3 } from "../src/camera/vec";
import type { CaptureCamera } from "../src/decode/protocol";
import type { Scene } from "../src/scene";
import { startOf } from "../src/start";

const LENS = { focal: 500, free: { x: 0, y: 0, width: 800, height: 560 } };

/** A camera that looks at the origin; z is up. */
function lookingAt(eye: V3): CaptureCamera {
  const back = normalize(eye);
  const right = normalize(cross([0, 0, 1], back));
  const up = cross(back, right);
  const row = (a: number) => [right[a]!, up[a]!, back[a]!, eye[a]!];
  const c2w = [...row(0), ...row(1), ...row(2), 0, 0, 0, 1];
  return { name: "photograph", c2w } as unknown as CaptureCamera;
}

/** Twelve cameras around, 4 from the middle, before a box of this size. */
function around(half: V3): { scene: Scene; first: V3 } {
  const cameras = Array.from({ length: 12 }, (_, i) => {
    const turn = (i * Math.PI) / 6;
    return lookingAt([4 * Math.cos(turn), 4 * Math.sin(turn), 2]);
  });
  const content = { low: half.map((x) => -x) as V3, high: half };
  const info = { content, drawable: "splats", cameras: 12, up: [0, 0, 1], limits: null };
  const extent = { center: [0, 0, 0], radius: Math.hypot(...half) };
  const scene = { cameras, info, extent, up: null, wishes: {} };
  return { scene: scene as unknown as Scene, first: [4, 0, 2] };
}

describe("the first view of what was photographed all around", () => {
  it("has an object alone in the window, whole", () => {
    const start = startOf(around([0.8, 0.8, 0.8]).scene, new Rig(), LENS);
    expect(start.fitted).toBe(true);
  });

  it("is the first photograph's where surroundings reach as far as the cameras", () => {
    const { scene, first } = around([3.5, 3.5, 1.8]);
    const start = startOf(scene, new Rig(), LENS);
    expect(start.fitted).toBe(false);
    expect(Math.hypot(...sub(start.view.position as V3, first))).toBeLessThan(1e-6);
  });

  it("is the camera's where all pictures were taken from one place, and stays near it", () => {
    const { scene, first } = around([0.8, 0.8, 0.8]);
    const cameras = scene.cameras.map(() => lookingAt(first));
    const limits = { low: first.map((x) => x - 0.1), high: first.map((x) => x + 0.1) };
    const rig = new Rig();
    const relief = { ...scene, cameras, info: { ...scene.info, limits } } as unknown as Scene;
    const start = startOf(relief, rig, LENS);
    expect(start.fitted).toBe(false);
    expect(Math.hypot(...sub(start.view.position as V3, first))).toBeLessThan(1e-6);
    rig.instant = true;
    rig.setView(start.view, true);
    rig.turn(2, 0.5);
    for (let i = 0; i < 400; i++) rig.update(0.05);
    // The box's half, and half its size around; and what is looked at stays in the middle.
    const { position, target } = rig.view();
    for (const x of sub(position, first)) expect(Math.abs(x)).toBeLessThan(0.1 + 0.18);
    expect(Math.hypot(...sub(target, start.view.target as V3))).toBeLessThan(1e-6);
  });
});

it("is outside of a file's surface, though from within splats that close around", () => {
  const { scene } = around([0.8, 0.8, 0.8]);
  const inside = { position: [0, 0, 0], target: [0, 0.1, 0] };
  const extent = { ...scene.extent, stand: { inside, up: [0, 0, 1], forward: [0, 1, 0] } };
  const shown = (drawable: string) => {
    const info = { ...scene.info, drawable };
    const file = { ...scene, cameras: [], info, extent } as unknown as Scene;
    return startOf(file, new Rig(), LENS);
  };
  expect(shown("splats").view).toBe(inside);
  const { view, fitted } = shown("mesh");
  expect(fitted).toBe(true);
  expect(Math.max(...view.position.map(Math.abs))).toBeGreaterThan(0.8);
});
