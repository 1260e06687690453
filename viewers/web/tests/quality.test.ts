import { describe, expect, it } from "vitest";
import { decodedCamera } from "../src/draw/layout";
import { FieldGovernor } from "../src/quality";

/** Frames at 60 Hz of a device that takes `full` seconds for a whole picture; the last scale. */
class Device {
  readonly governor = new FieldGovernor();
  readonly scales: number[] = [];
  private last = { seconds: 0, scale: 0 };

  constructor(public full: number) {}

  move(pictures: number): number {
    const { governor } = this;
    for (let n = 0; n < pictures; n++) {
      governor.move(this.last.seconds, this.last.scale);
      this.draw();
      this.scales.push(governor.scale);
    }
    return governor.scale;
  }

  /** The page sees the end of a picture with the next frame. */
  draw(): void {
    const { scale } = this.governor;
    const seconds = Math.ceil((this.full * scale ** 2) / (1 / 60)) / 60;
    this.last = { seconds, scale };
  }
}

describe("a field's resolution in movement", () => {
  it("is whole where a picture takes little time", () => {
    expect(new Device(0.02).move(30)).toBe(1);
  });

  it("is known from the first picture, and stays", () => {
    const device = new Device(0.08);
    device.draw();
    // 80 ms need 0.67 of the side for 36 ms; what the frame rate adds may cost a step more.
    device.move(30);
    expect(new Set(device.scales.slice(1)).size).toBe(1);
    expect(device.scales.at(-1)).toBeGreaterThanOrEqual(0.5);
    expect(device.scales.at(-1)).toBeLessThanOrEqual(0.64);
  });

  it("does not swing for any speed of device", () => {
    for (let full = 0.001; full < 3; full *= 1.05) {
      const device = new Device(full);
      device.move(40);
      expect(new Set(device.scales.slice(10)).size, `${full} s`).toBe(1);
      expect(device.scales.at(-1)).toBeGreaterThanOrEqual(0.4);
    }
  });

  it("comes back after a slow start, such as that of compiling shaders", () => {
    const device = new Device(2);
    device.draw();
    expect(device.move(2)).toBe(0.4);
    device.full = 0.01;
    expect(device.move(8)).toBe(1);
  });

  it("is whole again at rest, a third of a second later, and low at once with the next movement", () => {
    const device = new Device(1);
    device.move(4);
    const changes = Array.from({ length: 30 }, () => device.governor.rest());
    expect(changes.indexOf(true)).toBe(19);
    expect(changes.filter(Boolean)).toHaveLength(1);
    expect(device.governor.scale).toBe(1);
    device.draw();
    expect(device.move(1)).toBe(0.4);
  });

  it("is a smaller picture of the same view", () => {
    const view = { c2w: [], K: [300, 0, 170, 0, 300, 118, 0, 0, 1], width: 320, height: 240 };
    const whole = decodedCamera(view, 200);
    const part = decodedCamera(view, 200, 0.5);
    expect([whole.width, whole.height]).toEqual([213, 160]);
    expect([part.width, part.height]).toEqual([107, 80]);
    for (const [i, size] of [
      [0, "width"],
      [2, "width"],
      [4, "height"],
      [5, "height"],
    ] as const) {
      expect(part.K[i]! / part[size]).toBeCloseTo(view.K[i]! / view[size], 12);
    }
  });
});
