/** Without a mouse, and with a screen reader: the whole tour by keys, and what axe-core finds. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { bench, open, PHONE, still, view } from "./pages";

const b = bench();
const CHAIR = "content=/fixtures/chair.s4d&noanim";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SOON = { timeout: 15_000 };
const apart = (a: number[], c: number[]) => Math.hypot(...a.map((x, i) => x - c[i]!));

/** What axe-core holds for serious or worse, by rule and place. */
async function serious(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    interface Axe {
      run(): Promise<{
        violations: { id: string; impact: string; nodes: { target: unknown[] }[] }[];
      }>;
    }
    const { violations } = await (window as unknown as { axe: Axe }).axe.run();
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`));
  });
}

const focused = (page: Page) =>
  page.evaluate(() => {
    const element = document.activeElement as HTMLElement;
    return element.ariaLabel ?? element.id ?? element.textContent;
  });

/** Tab until something of this name has the focus; the names on the way. */
async function tabTo(page: Page, name: string): Promise<string[]> {
  const way: string[] = [];
  for (let n = 0; n < 30; n++) {
    await page.keyboard.press("Tab");
    way.push((await focused(page)) ?? "");
    if (way.at(-1) === name) return way;
  }
  throw new Error(`${name} is not on the way: ${way.join(", ")}`);
}

describe("axe-core finds nothing serious", () => {
  it("on the page, its panels, its messages, light and dark, desktop and phone", async () => {
    const found: Record<string, string[]> = {};
    const page = await open(b, `${CHAIR}&stats`, { colorScheme: "light" });
    await still(page);
    for (const theme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme: theme });
      const dark = () => page.evaluate(() => matchMedia("(prefers-color-scheme: dark)").matches);
      await expect.poll(dark, SOON).toBe(theme === "dark");
      found[`page, ${theme}`] = await serious(page);
      await page.click('[aria-label="Settings"]');
      await page.keyboard.press("]");
      found[`settings, ${theme}`] = await serious(page);
      await page.keyboard.press("Escape");
      await page.keyboard.press("h");
      found[`help, ${theme}`] = await serious(page);
      await page.keyboard.press("Escape");
    }
    const phone = await open(b, CHAIR, PHONE);
    await still(phone);
    await phone.tap('[aria-label="More"]');
    found.menu = await serious(phone);
    await phone.keyboard.press("Escape");
    await phone.evaluate(() => window.scene4d.open("/nowhere.s4d").catch(() => {}));
    expect(await phone.isVisible("#message")).toBe(true);
    found.message = await serious(phone);
    expect(Object.fromEntries(Object.entries(found).filter(([, list]) => list.length > 0))).toEqual(
      {},
    );
  }, 180_000);
});

describe("by keyboard alone", () => {
  it("the whole tour: look, move, choose, measure, settings, help, back", async () => {
    const page = await open(b, `${CHAIR}&quality=2`);
    await page.keyboard.press("Tab");
    expect(await focused(page)).toMatch(/^3D scene/);
    // The focus is seen: a frame over the pictures.
    const ring = await page.evaluate(() => {
      const { content, borderTopWidth } = getComputedStyle(
        document.querySelector("#player")!,
        "::before",
      );
      return [content, borderTopWidth];
    });
    expect(ring).toEqual(['""', "3px"]);
    // Arrows turn around the scene, plus and minus go nearer and farther.
    const start = await view(page);
    const distance = async () => {
      const { position, target } = await view(page);
      return apart(position, target);
    };
    const far = await distance();
    await page.keyboard.press("ArrowRight", { delay: 120 });
    await expect
      .poll(async () => apart((await view(page)).position, start.position), SOON)
      .toBeGreaterThan(0.01);
    expect(apart((await view(page)).target, start.target)).toBeLessThan(1e-6);
    expect(await distance()).toBeCloseTo(far, 5);
    await page.keyboard.press("+", { delay: 120 });
    await page.keyboard.press("Equal", { delay: 120 });
    await expect.poll(distance, SOON).toBeLessThan(0.999 * far);
    // One stop for the three ways of moving; arrows choose.
    const way = await tabTo(page, "Orbit");
    expect(way).not.toContain("Fly");
    const turned = await view(page);
    await page.keyboard.press("ArrowRight");
    expect(await focused(page)).toBe("Fly");
    expect(await page.getAttribute('[aria-label="Fly"]', "aria-checked")).toBe("true");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await focused(page)).toBe("Orbit");
    expect(apart((await view(page)).position, turned.position)).toBeLessThan(1e-3);
    await tabTo(page, "Reset the view");
    await page.keyboard.press("Enter");
    await expect
      .poll(async () => apart((await view(page)).position, start.position), SOON)
      .toBeLessThan(1e-4);
    await tabTo(page, "Measure");
    await page.keyboard.press("Space");
    expect(await page.getAttribute('[aria-label="Measure"]', "aria-pressed")).toBe("true");
    await page.keyboard.press("Escape");
    expect(await page.getAttribute('[aria-label="Measure"]', "aria-pressed")).toBe("false");
    // What opens takes the focus, and gives it back.
    await tabTo(page, "Settings");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement!.closest("#settings") !== null)).toBe(
      true,
    );
    await tabTo(page, "quality");
    await page.keyboard.press("Home");
    expect(await page.textContent("#settings output")).toBe("Fastest");
    await tabTo(page, "background");
    await page.keyboard.press("ArrowDown");
    expect(await page.inputValue("#background")).toBe("black");
    await page.keyboard.press("Escape");
    expect(await page.isVisible("#settings")).toBe(false);
    expect(await focused(page)).toBe("Settings");
    await tabTo(page, "Help");
    await page.keyboard.press("Enter");
    expect(await page.isVisible("#help")).toBe(true);
    await page.keyboard.press("Escape");
    expect(await page.isVisible("#help")).toBe(false);
  });

  it("the menu of a narrow window", async () => {
    const page = await open(b, CHAIR, { viewport: { width: 390, height: 400 } });
    await tabTo(page, "More");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement!.textContent)).toBe("Reset the view");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowUp");
    expect(await page.evaluate(() => document.activeElement!.textContent)).toBe("Help");
    await page.keyboard.press("Escape");
    expect([await page.isVisible("#menu"), await focused(page)]).toEqual([false, "More"]);
  });

  it("a hint how to move stands there on the first visit, and is gone on the next", async () => {
    const page = await open(b, CHAIR, { viewport: { width: 400, height: 300 } });
    expect(await page.isVisible("#hint")).toBe(true);
    await page.mouse.move(200, 120);
    await page.mouse.wheel(0, 100);
    await expect.poll(() => page.isVisible("#hint"), SOON).toBe(false);
    await page.reload();
    await expect.poll(() => page.evaluate(() => window.scene4d?.stats().splats), SOON).toBe(5000);
    expect(await page.isVisible("#hint")).toBe(false);
  });
});
