/** The first view: the scene's box in what is left of the window, whatever its shape. */
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { openPly } from "../../src/decode/ply";
import { MemorySource } from "../../src/decode/remote";
import { margins } from "./gestures";
import { ROOT, readBytes } from "./harness";
import { bench, frames, open, PHONE, still, until, view } from "./pages";
import { boxFile, type Made, plyOf, randomFrom } from "./splat-files";

type V3 = [number, number, number];
const b = bench();
const fixture = (name: string) => readBytes(join(ROOT, "tests/fixtures", name));
const SHAPES = [
  { width: 960, height: 540 },
  { width: 640, height: 480 },
  { width: 390, height: 844 },
  { width: 844, height: 390 },
];

/** Splats' box between the first and the last hundredth: of the fixtures of 600 splats. */
function fixtureBox(): { low: V3; high: V3 } {
  const ply = openPly(fixture("small.ply") as never);
  const { means } = ply.read(
    Uint32Array.from({ length: ply.count }, (_, i) => i),
    0,
  );
  const columns = [0, 1, 2].map((a) => means.filter((_, i) => i % 3 === a).sort());
  const at = (share: number) => columns.map((c) => c[Math.floor(share * c.length)]!) as V3;
  return { low: at(0.01), high: at(0.99) };
}

async function bundleBox(name: string): Promise<{ low: V3; high: V3 }> {
  const { manifest } = await openFile(new MemorySource(fixture(name) as never));
  const [low, high] = manifest.limits.content as [V3, V3];
  return { low, high };
}

/** Twelve files of all kinds, by the name that they are opened with. */
async function files(): Promise<Record<string, Made>> {
  const small = fixtureBox();
  const made: Record<string, Made> = {
    "wide.ply": boxFile([-4, -0.4, -0.5], [4, 0.4, 0.5]),
    "tall.ply": boxFile([-0.3, -3, -0.3], [0.3, 0, 0.3]),
    "deep.ply": boxFile([-0.5, -0.5, 2], [0.5, 0.5, 9]),
    "floaters.ply": boxFile([-1, -1, -1], [1, 1, 1], 0.03),
    "tiny-far.ply": boxFile([99.9995, 50, -3], [100, 50.001, -2.9992]),
    "huge.ply": boxFile([-3000, -800, -2000], [3000, 900, 2000]),
  };
  for (const name of ["small.compressed.ply", "small.spz", "small.glb", "small.sog"])
    made[name] = { bytes: fixture(name), ...small };
  for (const name of ["chair.s4d", "families.s4d"])
    made[name] = { bytes: fixture(name), ...(await bundleBox(name)) };
  return made;
}

/** Until the player has seen the window's present size. */
async function resized(page: Page): Promise<void> {
  await until(page, () => {
    const { width, height } = window.scene4d.camera();
    const drawn = window.scene4d.stats();
    return (
      width === innerWidth && height === innerHeight && (document.hidden || drawn.width === width)
    );
  });
}

interface Before {
  before: Promise<void>;
}

async function openBytes(page: Page, name: string, bytes: Uint8Array): Promise<void> {
  await page.evaluate(() => {
    // The promise of the scene before is another one.
    const { ready } = window.scene4d;
    Object.assign(window, { before: ready });
  });
  await page.setInputFiles("input[type=file]", {
    name,
    mimeType: "application/octet-stream",
    buffer: Buffer.from(bytes),
  });
  await until(page, () => window.scene4d.ready !== (window as unknown as Before).before);
  await page.evaluate(() => window.scene4d.ready);
}

describe("the first view", () => {
  it("shows the whole box in every window, with a margin of 4 to 12%", async () => {
    const desktop = await open(b, "noanim", { wait: false });
    const phone = await open(b, "noanim", { ...PHONE, wait: false });
    // Where it stands is the same without drawing, and 48 windows are much to draw in software.
    for (const page of [desktop, phone]) await still(page);
    const made = Object.entries(await files());
    const off: string[] = [];
    const check = async (page: Page, shapes: typeof SHAPES) => {
      for (const [name, { bytes, low, high }] of made) {
        await openBytes(page, name, bytes);
        for (const shape of shapes) {
          await page.setViewportSize(shape);
          await resized(page);
          // Observers of the window and of the bars act within a frame.
          let all = await margins(page, low, high);
          const fits = () => Math.min(...all) >= 0.04 && Math.min(...all) <= 0.12;
          for (const end = Date.now() + 8000; !fits() && Date.now() < end; ) {
            await page.waitForTimeout(50);
            all = await margins(page, low, high);
          }
          if (!fits())
            off.push(`${name} ${shape.width}x${shape.height}: ${all.map((x) => x.toFixed(3))}`);
        }
      }
    };
    await Promise.all([check(desktop, SHAPES.slice(0, 2)), check(phone, SHAPES.slice(2))]);
    expect(off).toEqual([]);
  }, 240_000);

  it("follows the window until a hand moves, and again from R and F", async () => {
    const page = await open(b, "content=/fixtures/chair.s4d&noanim", { viewport: SHAPES[1]! });
    const { low, high } = await bundleBox("chair.s4d");
    const least = async () => Math.min(...(await margins(page, low, high)));
    const fits = async () => (await least()) >= 0.04 && (await least()) <= 0.12;
    await page.mouse.move(300, 200);
    const start = await view(page);
    await page.mouse.wheel(0, -300);
    await expect.poll(() => view(page), { timeout: 15_000 }).not.toEqual(start);
    const near = await view(page);
    await page.setViewportSize({ width: 390, height: 700 });
    await resized(page);
    expect(await view(page)).toEqual(near);
    for (const key of ["r", "f"]) {
      await page.keyboard.press(key);
      await page.setViewportSize({ width: key === "r" ? 900 : 420, height: 500 });
      await resized(page);
      await expect.poll(fits, { timeout: 15_000, message: key }).toBe(true);
    }
    // With every lens.
    await page.click('[aria-label="Settings"]');
    for (const fov of ["25", "110"]) {
      await page.fill("#fov", fov);
      await expect.poll(fits, { timeout: 15_000, message: `${fov} degrees` }).toBe(true);
    }
  });

  it("is the same of the same splats in every format", async () => {
    const page = await open(b, "content=/fixtures/small.ply&noanim");
    const first = await view(page);
    const size = Math.hypot(...first.position.map((x, i) => x - first.target[i]!));
    for (const name of ["small.compressed.ply", "small.spz", "small.glb", "small.sog"]) {
      await page.evaluate((url) => window.scene4d.open(url), `/fixtures/${name}`);
      const here = await view(page);
      const apart = Math.hypot(...here.position.map((x, i) => x - first.position[i]!));
      expect([name, apart < 0.05 * size]).toEqual([name, true]);
    }
  });
});

/** A ground of 60 x 60 splats with a heap in its middle, turned by a rotation (row-major). */
function ground(turn: readonly number[]): Uint8Array {
  const next = randomFrom(11);
  const turned = (p: V3) =>
    [0, 1, 2].map((r) => p.reduce((sum, x, c) => sum + x * turn[3 * r + c]!, 0)) as V3;
  const flat = Array.from({ length: 3600 }, (): V3 => [4 * next() - 2, 4 * next() - 2, 0]);
  const heap = Array.from({ length: 2400 }, (): V3 => {
    const [x, y] = [next() - 0.5, next() - 0.5];
    return [x, y, 1.4 * next()];
  });
  return plyOf([...flat, ...heap].map(turned), 0.04);
}

/** In the camera's picture, how far up an axis of the world points: 1 is upright. */
const upright = (page: Page, axis: V3) =>
  page.evaluate((a) => {
    const { c2w } = window.scene4d.camera();
    const right = c2w[0]! * a[0] + c2w[4]! * a[1] + c2w[8]! * a[2];
    const up = c2w[1]! * a[0] + c2w[5]! * a[1] + c2w[9]! * a[2];
    return up / Math.hypot(up, right, 1e-9);
  }, axis);

describe("which way is up", () => {
  it("is found by the ground, in files of every convention, and turned by a key", async () => {
    const page = await open(b, "noanim", { wait: false });
    const cosine = Math.cos(0.4);
    const sine = Math.sin(0.4);
    const cases: [string, number[], V3][] = [
      ["y down", [1, 0, 0, 0, 0, -1, 0, 1, 0], [0, -1, 0]],
      // A photographer's first camera looked down by 23 degrees.
      ["tilted", [1, 0, 0, 0, sine, -cosine, 0, cosine, sine], [0, -cosine, sine]],
      ["z up", [1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 1]],
    ];
    for (const [name, turn, up] of cases) {
      await openBytes(page, "ground.ply", ground(turn));
      expect([name, await upright(page, up)]).toEqual([name, expect.closeTo(1, 1)]);
      const { position, target } = await view(page);
      const height = up.reduce((sum, x, i) => sum + x * (position[i]! - target[i]!), 0);
      expect([name, height > 0]).toEqual([name, true]);
    }
    await page.keyboard.press("u");
    const now = () => upright(page, cases[2]![2]);
    await expect.poll(async () => Math.abs(await now()), { timeout: 15_000 }).toBeLessThan(0.5);
    for (let n = 0; n < 3; n++) await page.keyboard.press("u");
    await expect.poll(now, { timeout: 15_000 }).toBeGreaterThan(0.8);
  });

  it("a capture from one side turns around what stands in its middle, near its cameras", async () => {
    // Cameras within 1 unit look along z at a heap 5 away; a wall stands 100 away.
    const next = randomFrom(3);
    const heap = Array.from({ length: 800 }, (): V3 => [next() - 0.5, next() - 0.5, 4.5 + next()]);
    const wall = Array.from(
      { length: 2200 },
      (): V3 => [200 * (next() - 0.5), 120 * (next() - 0.5), 100],
    );
    const ply = plyOf([...heap, ...wall.map((p): V3 => p)], 0.06);
    const cameras = Array.from({ length: 9 }, (_, i) => {
      const [x, y] = [(i % 3) * 0.5 - 0.5, Math.floor(i / 3) * 0.5 - 0.5];
      return {
        name: `IMG_${i}`,
        // Looks along +z with y down, in OpenGL axes.
        c2w: [1, 0, 0, x, 0, -1, 0, y, 0, 0, -1, 0, 0, 0, 0, 1],
        K: [500, 0, 320, 0, 500, 240, 0, 0, 1],
        width: 640,
        height: 480,
      };
    });
    b.options = {
      intercept: (req, res) => {
        if (req.url!.startsWith("/capture.ply")) res.end(ply);
        else if (req.url!.startsWith("/capture.json"))
          res.end(JSON.stringify({ version: 1, content: "/capture.ply", captureCameras: cameras }));
        else return false;
        return true;
      },
    };
    const page = await open(b, "settings=/capture.json&noanim");
    const far = async () => {
      const { position, target } = await view(page);
      return Math.hypot(...position.map((x, i) => x - target[i]!));
    };
    await until(page, () => {
      const { position, target } = window.scene4d.getView();
      return Math.abs(target[2] - position[2]) < 8;
    });
    expect(await far()).toBeGreaterThan(3.5);
    expect((await view(page)).position[2]).toBeCloseTo(0, 3);
    // A drag of 80 pixels swings the eye by some tenths of those 5 units, not by tens.
    await page.mouse.move(320, 200);
    await page.mouse.down();
    await page.mouse.move(400, 210, { steps: 6 });
    await page.mouse.up();
    const moved = async () => Math.hypot(...(await view(page)).position);
    await expect.poll(moved, { timeout: 15_000 }).toBeGreaterThan(0.1);
    expect(await moved()).toBeLessThan(4);
    // Limits come from the cameras: nobody gets far behind them.
    await page.keyboard.press("2");
    await page.keyboard.down("Shift");
    const before = await view(page);
    await page.keyboard.down("s");
    await frames(page, 30);
    expect(await view(page)).not.toEqual(before);
    await page.keyboard.up("s");
    await page.keyboard.up("Shift");
    await expect.poll(moved, { timeout: 20_000 }).toBeLessThan(6);
    b.options = {};
  });
});
