/** What hands do to a page, and what is measured on it. */
import type { Page } from "playwright-core";

export const distance = (v: { position: number[]; target: number[] }) =>
  apart(v.position, v.target);
export const apart = (a: number[], c: number[]) => Math.hypot(...a.map((x, i) => x - c[i]!));
/** Sizes of the window, of the canvas' element and of its pixels. */
export const sizes = (page: Page) =>
  page.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>("#player > canvas")!;
    const { width, height } = canvas.getBoundingClientRect();
    const { stats } = window.scene4d;
    return {
      window: [innerWidth, innerHeight],
      element: [Math.round(width), Math.round(height)],
      pixels: [canvas.width, canvas.height],
      drawn: [stats().width, stats().height],
    };
  });

/**
 * Two presses at a place, as far apart as people's: milliseconds between them. The events carry
 * their own times, because a busy machine would stretch them.
 */
export async function pressTwice(page: Page, x: number, y: number, ms: number, touches = false) {
  const session = await page.context().newCDPSession(page);
  let timestamp = Date.now() / 1000;
  for (const wait of [ms, 0]) {
    for (const [i, type] of (["Pressed", "Released"] as const).entries()) {
      if (touches) {
        const touchPoints = i === 0 ? [{ x, y, id: 0 }] : [];
        await session.send("Input.dispatchTouchEvent", {
          type: i === 0 ? "touchStart" : "touchEnd",
          touchPoints,
          timestamp,
        });
      } else {
        const button = { button: "left", buttons: 1 - i, clickCount: 1 } as const;
        await session.send("Input.dispatchMouseEvent", {
          type: `mouse${type}`,
          x,
          y,
          timestamp,
          ...button,
        });
      }
      timestamp += i === 0 ? 0.04 : ms / 1000;
      await page.waitForTimeout(i === 0 ? 40 : wait);
    }
  }
}

/** Margins of a box' picture within what no bar covers, as shares: left, top, right, bottom. */
export function margins(page: Page, low: number[], high: number[]): Promise<number[]> {
  return page.evaluate(
    ([from, to]) => {
      const { c2w, K, width, height } = window.scene4d.camera();
      const bar = document.querySelector("#bars")!.getBoundingClientRect();
      const bottom = Math.min(height, bar.top);
      const xs: number[] = [];
      const ys: number[] = [];
      for (let n = 0; n < 8; n++) {
        const d = [0, 1, 2].map((a) => ((n >> a) & 1 ? to : from)[a]! - c2w[4 * a + 3]!);
        const along = (c: number) => d.reduce((sum, x, r) => sum + x * c2w[4 * r + c]!, 0);
        const depth = -along(2);
        if (depth <= 0) return [Number.NEGATIVE_INFINITY];
        xs.push((K[0]! * along(0)) / depth + K[2]!);
        ys.push((-K[4]! * along(1)) / depth + K[5]!);
      }
      return [
        Math.min(...xs) / width,
        Math.min(...ys) / bottom,
        1 - Math.max(...xs) / width,
        1 - Math.max(...ys) / bottom,
      ];
    },
    [low, high] as const,
  );
}
