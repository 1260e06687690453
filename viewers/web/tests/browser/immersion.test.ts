/** WebXR, with a headset that IWER (Meta's emulator) plays; no real one has been tried. */
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { type Stand, standMatrix } from "../../src/camera/stand";
import { bench, frames, open, SMALL, until, view } from "./pages";

const b = bench();
const CHAIR = "content=/fixtures/chair.s4d&noanim&bg=000000";
const MESH = "content=/fixtures/mesh.s4d&noanim&bg=000000";
const MOVING = "content=/fixtures/moving.s4d&noanim&bg=000000&time=0.5";
const EMULATOR = createRequire(import.meta.url).resolve("iwer/build/iwer.min.js");

declare global {
  interface Window {
    headset: {
      stereoEnabled: boolean;
      position: { x: number; y: number; z: number; set(x: number, y: number, z: number): void };
      activeSession?: XrSession;
      installRuntime(options: object): void;
    };
    IWER: { XRDevice: new (config: object) => Window["headset"]; metaQuest3: object };
  }
}
interface XrSystem {
  isSessionSupported(mode: string): Promise<boolean>;
}
interface XrSession {
  end(): Promise<void>;
}

async function emulated(page: Page): Promise<void> {
  await page.addInitScript({ path: EMULATOR });
  await page.addInitScript(() => {
    window.headset = new window.IWER.XRDevice(window.IWER.metaQuest3);
    window.headset.stereoEnabled = true;
    window.headset.installRuntime({ forceInstall: true });
  });
}

const button = "#immersion";
/** A busy machine draws a frame in seconds. */
const SOON = { timeout: 15_000 };

/** The view once it stays as it is: a scene that is still arriving is framed anew. */
async function restingView(page: Page) {
  let last = await view(page);
  const rests = async () => {
    const before = JSON.stringify(last);
    await frames(page, 3);
    last = await view(page);
    return JSON.stringify(last) === before;
  };
  await expect.poll(rests, { ...SOON, interval: 200 }).toBe(true);
  return last;
}

/** Mean brightness of the left and the right half of what the page shows, over the toolbar. */
async function halves(page: Page): Promise<[number, number]> {
  const clip = { x: 0, y: 0, width: 640, height: 330 };
  const png = (await page.screenshot({ clip })).toString("base64");
  return page.evaluate(async (data) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d")!;
    context.drawImage(bitmap, 0, 0);
    const mean = (x: number) => {
      const pixels = context.getImageData(x, 0, bitmap.width / 2, bitmap.height).data;
      return pixels.reduce((sum, v, i) => sum + (i % 4 < 3 ? v : 0), 0) / (0.75 * pixels.length);
    };
    return [mean(0), mean(bitmap.width / 2)] as [number, number];
  }, png);
}

describe("WebXR", () => {
  it("has no button where the browser has no WebXR, or no headset", async () => {
    const none = await open(b, CHAIR, {
      ...SMALL,
      before: async (page) => {
        await page.addInitScript(() => {
          Object.defineProperty(Navigator.prototype, "xr", { get: () => undefined });
        });
      },
    });
    expect(await none.locator(button).count()).toBe(0);
    const unplugged = await open(b, CHAIR, SMALL);
    // Asked after the page has asked.
    const supported = () =>
      (navigator as unknown as { xr: XrSystem }).xr.isSessionSupported("immersive-vr");
    expect(await unplugged.evaluate(supported)).toBe(false);
    expect(await unplugged.locator(button).count()).toBe(0);
    expect(unplugged.problems).toEqual([]);
  });

  it("draws for two eyes, follows the head, and comes back to the same view", async () => {
    const page = await open(b, MOVING, { before: emulated });
    const before = await restingView(page);
    const size = await page.evaluate(() => window.scene4d.stats().width);
    expect(await page.getAttribute(button, "aria-label")).toBe("Enter VR");
    await page.click(button);
    await until(page, () => Boolean(window.headset.activeSession));
    const frames = await page.evaluate(() => window.scene4d.stats().frames);
    const drawn = () => page.evaluate(() => window.scene4d.stats().frames);
    await expect.poll(drawn, SOON).toBeGreaterThan(frames + 3);
    const lit = Math.min(...(await halves(page)));
    expect(lit).toBeGreaterThan(1);
    // Time goes on there, too.
    const time = () => page.evaluate(() => window.scene4d.getTime()!.seconds);
    expect(await time()).toBe(0.5);
    await page.evaluate(() => window.scene4d.play());
    await expect.poll(time, SOON).toBeGreaterThan(0.6);
    await page.evaluate(() => window.scene4d.pause());
    // Far off to the side nothing of the scene is in sight.
    await page.evaluate(() => window.headset.position.set(1000, 0, 0));
    const brighter = async () => Math.max(...(await halves(page)));
    await expect.poll(brighter, SOON).toBeLessThan(0.5 * lit);
    await page.evaluate(() => window.headset.activeSession!.end());
    await until(page, () => !window.headset.activeSession);
    const width = () => page.evaluate(() => window.scene4d.stats().width);
    await expect.poll(width, SOON).toBe(size);
    await expect.poll(() => view(page), SOON).toEqual(before);
    expect(page.problems).toEqual([]);
  });

  it("shows a mesh to both eyes, and on the canvas again afterwards", async () => {
    const page = await open(b, MESH, { before: emulated });
    const shown = Math.max(...(await halves(page)));
    await page.click(button);
    await until(page, () => Boolean(window.headset.activeSession));
    const darker = async () => Math.min(...(await halves(page)));
    await expect.poll(darker, SOON).toBeGreaterThan(1);
    await page.evaluate(() => window.headset.position.set(1000, 0, 0));
    const brighter = async () => Math.max(...(await halves(page)));
    await expect.poll(brighter, SOON).toBeLessThan(0.5);
    await page.evaluate(() => window.headset.activeSession!.end());
    await until(page, () => !window.headset.activeSession);
    await expect.poll(brighter, SOON).toBeCloseTo(shown, 0);
    expect(page.problems).toEqual([]);
  });
});

describe("where a person stands in the scene", () => {
  const rows = (stand: Partial<Stand>) => {
    const m = standMatrix({
      position: [1, 2, 3],
      forward: [0, 1, 0],
      up: [0, 0, 1],
      speed: 1,
      ...stand,
    });
    const column = (c: number) => [m[c]!, m[4 + c]!, m[8 + c]!].map((v) => v + 0);
    return { x: column(0), y: column(1), z: column(2), at: column(3) };
  };

  it("y is the scene's up, -z where the camera looks, x to the right", () => {
    expect(rows({})).toEqual({ x: [1, 0, 0], y: [0, 0, 1], z: [0, -1, 0], at: [1, 2, 3] });
  });

  it("stays upright where the camera looks down, or straight down", () => {
    const level = rows({ forward: [0, Math.SQRT1_2, -Math.SQRT1_2] });
    expect(level.y).toEqual([0, 0, 1]);
    expect(level.z[1]).toBeCloseTo(-1, 12);
    for (const up of [
      [0, 0, 1],
      [0, -1, 0],
      [0.6, 0, 0.8],
    ] as [number, number, number][]) {
      const { x, y, z } = rows({ up, forward: up.map((v) => -v) as [number, number, number] });
      const dots = [x, y, z].map((a) =>
        [x, y, z].map((c) => a.reduce((s, v, i) => s + v * c[i]!, 0)),
      );
      const flat = dots.flat();
      [1, 0, 0, 0, 1, 0, 0, 0, 1].forEach((v, i) => {
        expect(flat[i]).toBeCloseTo(v, 12);
      });
      expect(y).toEqual(up.map((v) => v + 0));
    }
  });
});
