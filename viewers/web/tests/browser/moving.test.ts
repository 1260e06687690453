/** Bundles of what moves: chunks of time as they are needed, hands and keys on the time, places. */
import type { Page } from "playwright-core";
import { afterEach, describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { MemorySource } from "../../src/decode/remote";
import { arrangementOf } from "../decode/arrangement";
import { ROOT, readBytes } from "./harness";
import { bench, open, SMALL, shared, until } from "./pages";

const b = bench();
afterEach(() => {
  b.options = {};
});
const MOVING = "content=/fixtures/moving.s4d";
const bundle = await openFile(
  new MemorySource(readBytes(`${ROOT}/tests/fixtures/moving.s4d`) as Uint8Array<ArrayBuffer>),
);

/** The Range that asks for the chunk of the second second. */
const [second] = bundle.manifest.members.filter((m) => m.name === "motion1.bin");
const SECOND = `bytes=${second!.offset}-${second!.offset + second!.length - 1}`;

/** Counts requests for the second chunk, and holds them until they are let go. */
function holdSecond(): { asked: () => number; release: () => void } {
  let asked = 0;
  let held: (() => void)[] | null = [];
  b.options.intercept = (req, res) => {
    if (req.headers.range !== SECOND) return false;
    asked++;
    const bytes = readBytes(`${ROOT}/tests/fixtures/moving.s4d`);
    const part = bytes.slice(second!.offset, second!.offset + second!.length);
    const answer = () =>
      res
        .writeHead(206, { "Content-Range": `${SECOND.replace("=", " ")}/${bytes.length}` })
        .end(part);
    if (held) held.push(answer);
    else answer();
    return true;
  };
  const release = () => {
    for (const answer of held ?? []) answer();
    held = null;
  };
  return { asked: () => asked, release };
}

const now = (page: Page) => page.evaluate(() => window.scene4d.getTime()!);

describe("a bundle that moves", () => {
  const standing = shared(b, `${MOVING}&time=0.5`, SMALL);

  it("fetches the chunk of the time that is shown, and another one when it is sought", async () => {
    const { asked, release } = holdSecond();
    const page = await open(b, `${MOVING}&t=0.7`, SMALL);
    expect(await now(page)).toMatchObject({ seconds: 0.7, start: 0.5, end: 2.5, playing: false });
    expect(asked()).toBe(0);
    // What is not there yet cannot be captured: the picture waits for it.
    await page.evaluate(() => {
      window.scene4d.setTime(2.3);
      const drawn = window.scene4d.capture({ width: 60, height: 45 });
      (window as { drawn?: unknown }).drawn = drawn;
    });
    await expect.poll(asked).toBe(1);
    const started = Date.now();
    release();
    const [late, early] = await page.evaluate(async () => {
      const { data } = await (window as unknown as { drawn: Promise<{ data: Uint8Array }> }).drawn;
      const other = await window.scene4d.capture({ time: 0.7, width: 60, height: 45 });
      return [[...data], [...other.data]] as [number[], number[]];
    });
    expect(late.some((x, i) => Math.abs(x - early[i]!) > 40)).toBe(true);
    expect(Date.now() - started).toBeLessThan(10_000);
    expect(asked()).toBe(1);
    expect(await page.evaluate(() => window.scene4d.link())).toContain("time=2.3");
    expect(page.problems).toEqual([]);
  });

  it("plays, waits for what is not there, begins again, and stands at the end when told", async () => {
    const { asked, release } = holdSecond();
    const page = await open(b, MOVING, SMALL);
    // It fetches ahead while it plays; time stands where the next chunk begins.
    await expect.poll(asked, { timeout: 10_000 }).toBe(1);
    await until(page, () => window.scene4d.getTime()!.seconds >= 1.5);
    const stalled = (await now(page)).seconds;
    await page.waitForTimeout(200);
    expect((await now(page)).seconds).toBe(stalled);
    const busy = () => page.locator("#timeline").getAttribute("aria-busy");
    expect(await busy()).toBe("true");
    release();
    // Past the end, and from the beginning again.
    await until(page, () => window.scene4d.getTime()!.seconds < 1.4);
    expect(await busy()).toBe("false");
    await page.evaluate(() => window.scene4d.play({ speed: 4, loop: false }));
    await until(page, () => !window.scene4d.getTime()!.playing);
    expect((await now(page)).seconds).toBe(2.5);
    expect(asked()).toBe(1);
  });

  it("hears keys and the row: play, moments, speed, loop, anywhere on the row", async () => {
    const page = await standing();
    const press = async (key: string) => {
      await page.keyboard.press(key);
      return now(page);
    };
    // The cameras' times, one after the other, and round.
    const times = [];
    for (let i = 0; i < 5; i++) times.push((await press(".")).seconds);
    expect(times).toEqual([0.9, 1.45, 1.9, 2.5, 0.5]);
    expect((await press(",")).seconds).toBe(2.5);
    expect((await press("Shift+>")).speed).toBe(2);
    expect((await press("Shift+<")).speed).toBe(1);
    expect((await press("l")).loop).toBe(false);
    expect((await press("l")).loop).toBe(true);
    const slider = page.locator("#timeline input");
    await slider.fill("1.2");
    expect(await now(page)).toMatchObject({ seconds: 1.2, playing: false });
    await slider.focus();
    expect((await press(" ")).playing).toBe(true);
    expect((await press(" ")).playing).toBe(false);
  });

  it("picks what is there at the time", async () => {
    const page = await standing();
    const arrangement = await arrangementOf(bundle);
    const still = arrangement(-1e9);
    // The middle of what is high up: the body's upper end, which sways furthest.
    const top = (time: number) => {
      const sum = [0, 0, 0];
      let count = 0;
      for (const [k, { means, count: n }] of arrangement(time).entries()) {
        for (let i = 0; i < n; i++) {
          if (still[k]!.means[3 * i + 2]! < 0.4) continue;
          count++;
          for (let a = 0; a < 3; a++) sum[a]! += means[3 * i + a]!;
        }
      }
      return sum.map((x) => x / count) as [number, number, number];
    };
    for (const time of [0.5, 1.45]) {
      const place = top(time);
      const found = await page.evaluate(
        async ([target, t]) => {
          const api = window.scene4d;
          api.setTime(t);
          const [x, y, z] = target;
          api.setView({ position: [x - 3, y, z], target: [x, y, z] }, true);
          const { width, height } = api.camera();
          return api.pick(width / 2, height / 2);
        },
        [place, time] as const,
      );
      const distance = Math.hypot(...place.map((x, a) => x - found![a]!));
      expect(distance, `at ${time}`).toBeLessThan(0.35); // the body is 0.2 to 0.3 thick
    }
    expect(Math.hypot(...top(0.5).map((x, a) => x - top(1.45)[a]!))).toBeGreaterThan(0.5);
  });
});
