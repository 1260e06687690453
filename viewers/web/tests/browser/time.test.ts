/** A scene that moves: its row above the toolbar, its link, its box, and rest where it is asked for. */
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { bench, frames, open, SMALL, until } from "./pages";

const b = bench();
const CHAIR = "content=/fixtures/chair.s4d";
const MOVING = "content=/fixtures/moving.s4d";

/** No file has pieces that come and go yet: those of a still one do, one after the other. */
async function moving(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const Real = window.Worker;
    window.Worker = class extends Real {
      private pieces = 0;
      override set onmessage(listen: (event: MessageEvent) => void) {
        super.onmessage = (event: MessageEvent) => {
          const { data } = event;
          if (data.type === "info") data.info.span = { start: 0, end: 4 };
          if (data.type === "piece")
            data.span = this.pieces++ === 0 ? { start: 0, end: 2 } : { start: 2, end: 9 };
          listen(event);
        };
      }
    };
  });
}

const time = (page: Page) =>
  page.evaluate(() => document.querySelector<HTMLInputElement>("#timeline input")!.valueAsNumber);

describe("a scene that moves", () => {
  it("plays by itself and pauses by Space, but stands where rest is asked for", async () => {
    const still = await open(b, MOVING, { ...SMALL, reducedMotion: "reduce" });
    // Ten frames later nothing has begun.
    await frames(still, 10);
    expect(await time(still)).toBe(0.5);
    expect(await still.isVisible('#timeline [aria-label="Play"]')).toBe(true);
    const page = await open(b, MOVING, SMALL);
    await until(page, () => window.scene4d.getTime()!.seconds !== 0.5);
    await page.keyboard.press("Space");
    const stopped = await time(page);
    await frames(page, 10);
    expect(await time(page)).toBe(stopped);
  });

  it("draws, picks and measures what is there; its link leads to the time", async () => {
    const page = await open(b, `${CHAIR}&time=0.5&noanim`, { ...SMALL, before: moving });
    const at = (seconds: number) =>
      page.evaluate((t) => {
        window.scene4d.setTime(t);
        return [window.scene4d.stats().splats, window.scene4d.link()] as [number, string];
      }, seconds);
    expect(await time(page)).toBe(0.5);
    const [first, link] = await at(1.25);
    const [second] = await at(3);
    expect([first, second]).toEqual([1000, 4000]);
    expect(link).toContain("time=1.25");
    const boxes = await page.evaluate(() => [1, 3].map((t) => window.scene4d.bounds(t)));
    expect(boxes[0]).not.toEqual(boxes[1]);
    // Another time's picture leaves the one that is shown as it is.
    await page.evaluate(() => window.scene4d.capture({ time: 1, width: 32, height: 24 }));
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(4000);
  });

  it("has a row that nothing else lies over", async () => {
    const phone = { viewport: { width: 390, height: 700 }, hasTouch: true, isMobile: true };
    const page = await open(b, `${MOVING}&noanim&mode=fly&quality=1`, phone);
    await page.keyboard.press("m"); // says what to do, in a toast
    const boxes = await page.evaluate(async () => {
      document.querySelector<HTMLElement>("#loading")!.hidden = false;
      // A frame in which the row is laid out and the page measures it, and one with what follows.
      for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
      return ["#timeline", "#toolbar", "#toast", "#loading", "#stick"].map((name) => {
        const { top, bottom, height } = document.querySelector(name)!.getBoundingClientRect();
        return { name, top, bottom, height };
      });
    });
    const [row, bar, ...others] = boxes;
    expect(row!.height).toBeGreaterThan(20);
    expect(row!.bottom).toBeLessThanOrEqual(bar!.top);
    for (const { name, bottom, height } of others) {
      expect(height, name).toBeGreaterThan(0);
      expect(bottom, name).toBeLessThanOrEqual(row!.top);
    }
  });
});
