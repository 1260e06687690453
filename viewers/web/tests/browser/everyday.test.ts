/** What everybody does, with WebGPU, at a desk and on a phone; hands.test.ts does it with WebGL 2. */
import { describe, expect, it } from "vitest";
import { apart, distance, margins, pressTwice, sizes } from "./gestures";
import { bench, PHONE, shared, view } from "./pages";
import { boxFile } from "./splat-files";

const CHAIR = "content=/fixtures/chair.s4d&noanim&bg=336699&title=Chair";
const SOON = { timeout: 20_000 };
const DESK = { viewport: { width: 480, height: 400 } };
const box = boxFile([40, -2, 10], [44, 0, 13]);

describe.each([
  { device: "at a desk", options: DESK, touch: false },
  { device: "on a phone", options: PHONE, touch: true },
])("WebGPU $device", ({ options, touch }) => {
  const b = bench("webgpu");
  const chair = shared(b, CHAIR, { backend: "webgpu", ...options });
  const { width, height } = options.viewport;

  it("the canvas follows the window, and the first view fits it", async () => {
    const page = await chair();
    expect(await page.evaluate(() => window.scene4d.backend)).toBe("webgpu");
    const { low, high } = (await page.evaluate(() => window.scene4d.bounds()))!;
    for (const size of [
      [height, width], // turned on its side
      [width, height - 60], // an address bar
      [width, height],
    ] as const) {
      await page.setViewportSize({ width: size[0], height: size[1] });
      const is = [...size];
      await expect
        .poll(() => sizes(page), SOON)
        .toEqual({ window: is, element: is, pixels: is, drawn: is });
      const least = async () => Math.min(...(await margins(page, low, high)));
      await expect.poll(async () => (await least()) >= 0.04, SOON).toBe(true);
      expect(await least()).toBeLessThanOrEqual(0.12);
    }
    expect(page.problems).toEqual([]);
  });

  it("flies to where the first of two presses was, however slow the second", async () => {
    const page = await chair();
    for (const ms of [80, 200, 350]) {
      await page.evaluate(() => window.scene4d.reset());
      const start = await view(page);
      const { K } = await page.evaluate(() => window.scene4d.camera());
      const [x, y] = [K[2]! + ms / 20, K[5]!];
      const hit = await page.evaluate(([px, py]) => window.scene4d.pick(px!, py!), [x, y]);
      expect([ms, hit]).not.toEqual([ms, null]);
      await pressTwice(page, x, y, ms, touch);
      const third = apart(start.position, hit!) / 3;
      const seen = async () => {
        const end = await view(page);
        return [apart(end.target, hit!) < 1e-3, Math.abs(distance(end) - third) < 1e-2];
      };
      await expect.poll(seen, { ...SOON, message: `${ms} ms` }).toEqual([true, true]);
    }
  });

  it("has every control in reach", async () => {
    const page = await chair();
    const out = await page.$$eval("#toolbar button", (all) =>
      all
        .filter((x) => x.checkVisibility())
        .filter((x) => {
          const { left, right, width } = x.getBoundingClientRect();
          return left < 0 || right > innerWidth || width < 30;
        })
        .map((x) => x.ariaLabel),
    );
    expect(out).toEqual([]);
    const inRow = await page.$$eval("#toolbar button", (all) =>
      all.filter((x) => x.checkVisibility()).map((x) => x.ariaLabel ?? ""),
    );
    const press = touch ? page.tap.bind(page) : page.click.bind(page);
    await press('[aria-label="More"]');
    const inMenu = await page.locator("#menu [role=menuitem]").allInnerTexts();
    const all = [...inRow, ...inMenu].join();
    for (const name of ["Reset", "Measure", "Picture", "Help", "Full screen", "Settings", "Share"])
      expect(all).toContain(name);
  });

  it("turns by the arrow keys around what it looks at", async () => {
    const page = await chair();
    const start = await view(page);
    await page.focus("#player > canvas");
    await page.keyboard.press("ArrowRight", { delay: 120 });
    const turned = async () => apart((await view(page)).position, start.position);
    await expect.poll(turned, SOON).toBeGreaterThan(0.01);
    const now = await view(page);
    expect(apart(now.target, start.target)).toBeLessThan(1e-6);
    expect(distance(now)).toBeCloseTo(distance(start), 5);
  });

  it("opens a second scene with nothing of the first", async () => {
    b.options = {
      intercept: (req, res) => {
        if (!req.url!.startsWith("/box.ply")) return false;
        res.end(box.bytes);
        return true;
      },
    };
    const page = await chair();
    const state = () =>
      page.evaluate(() => ({
        backdrop: document.documentElement.style.getPropertyValue("--backdrop"),
        title: document.title,
        splats: window.scene4d.stats().splats,
      }));
    const first = await state();
    expect([first.backdrop, first.title, first.splats]).toEqual(["rgb(51 102 153)", "Chair", 5000]);
    const failed = await page.evaluate(() => window.scene4d.open("/nowhere.ply").catch(String));
    expect(failed).toContain("not-found");
    await page.keyboard.press("Escape");
    expect(await state()).toEqual(first);
    await page.keyboard.press("]");
    await page.evaluate(() => window.scene4d.open("/box.ply"));
    const second = await state();
    expect([second.title, second.splats]).toEqual(["box.ply", 3000]);
    expect(second.backdrop).not.toBe(first.backdrop);
    expect(await page.isVisible("#through")).toBe(false);
    const least = Math.min(...(await margins(page, box.low, box.high)));
    expect(least).toBeGreaterThan(0.04);
    expect(least).toBeLessThan(0.12);
    const home = await view(page);
    await page.evaluate(() =>
      window.scene4d.setView({ position: [0, 0, 0], target: [42, -1, 11] }, true),
    );
    await page.keyboard.press("r");
    await expect
      .poll(async () => apart((await view(page)).position, home.position), SOON)
      .toBeLessThan(1e-3);
    b.options = {};
  });
});
