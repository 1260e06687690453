/** What `scene4d export ... player` writes: without a network, and as one file from a disk. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { View } from "../../src/decode/protocol";
import { apart, distance } from "./gestures";
import { DIST, ROOT, serve } from "./harness";
import { bench, open, picture, still, until, view } from "./pages";
import { scene4d, withoutPython } from "./python";
import { halfOpenRoom } from "./splat-files";

const SMALL = { width: 320, height: 240 };
const SPLATS = join(ROOT, "tests/fixtures/small.ply");
const OTHERS = ["spz", "sog", "splat", "s4d"];
const MOVING = join(ROOT, "tests/fixtures/moving.s4d");
const SAMPLE = ["--downscale-factor", "8", "--max-frames", "8"];

describe.skipIf(withoutPython)("the exported player", () => {
  const b = bench();
  let made = "";
  beforeAll(async () => {
    made = mkdtempSync(join(tmpdir(), "scene4d-"));
    const [site, page, moving] = ["site", "run.html", "moving.html"].map((n) => join(made, n));
    const room = (ending: string) => join(made, `room.${ending}`);
    writeFileSync(room("ply"), halfOpenRoom());
    const run = ["train", "splat", ...SAMPLE, "--steps", "1", "--no-evaluate", "--device", "cpu"];
    await scene4d(
      ["export", MOVING, "player", "--output-path", site, "--title", "A dance"],
      ["export", MOVING, "player", "--single-file", "--output-path", moving],
      [...run, "--output-dir", join(made, "runs")],
      ["export", join(made, "runs/*/*/*"), "player", "--single-file", "--output-path", page],
      ["export", join(made, "runs/*/*/*"), "bundle", "--output-path", join(made, "run.s4d")],
      ["export", join(made, "runs/*/*/*"), "ply", "--output-path", join(made, "run.ply")],
      ["convert", SPLATS, join(made, "small.s4d")],
      ...OTHERS.map((ending) => ["convert", room("ply"), room(ending)]),
    );
    // The first time the rasteriser is compiled.
  }, 400_000);
  afterAll(() => rmSync(made, { recursive: true }));

  it("opens again without a network, at another view, and can be installed", async () => {
    const server = await serve({ "/some/where/": join(made, "site") });
    const page = await (await b.browser.newContext({ viewport: SMALL })).newPage();
    const start = `${server.url}/some/where/?backend=webgl2`;
    await page.goto(start);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect(await page.title()).toBe("A dance");
    // Active: every file is kept, each with the SHA-256 of its version.
    await page.evaluate(() => navigator.serviceWorker.ready);
    const session = await page.context().newCDPSession(page);
    const app = await session.send("Page.getAppManifest");
    expect(app.errors).toEqual([]);
    expect(JSON.parse(app.data!)).toMatchObject({ name: "A dance", display: "standalone" });

    await server.close();
    await page.context().setOffline(true);
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(`${start}&view=1,2,1.5,0.1,0,0.2`);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(4400);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    expect((await page.evaluate(() => window.scene4d.getView())).position[1]).toBeCloseTo(2, 4);
    // Time goes on, into what is a part of the file that is read on its own.
    await until(page, () => window.scene4d.getTime()!.seconds > 1.6);
    await page.reload();
    await until(page, () => window.scene4d?.stats().splats === 4400);
    expect(problems).toEqual([]);
    // What was never there does not come from somewhere else.
    const other = () => fetch("./other.s4d").then(String, () => "failed");
    expect(await page.evaluate(other)).toBe("failed");
  });

  it("says what to do where its page is opened from a disk", async () => {
    const page = await (await b.browser.newContext({ viewport: SMALL })).newPage();
    await page.goto(`${pathToFileURL(join(made, "site/index.html"))}`);
    expect(await page.locator("#unserved").innerText()).toContain("--single-file");
  });

  it("shows its poster within 3 s at 1.6 Mbit/s, before any script has come", async () => {
    const server = await serve({ "/": join(made, "site") });
    const page = await (await b.browser.newContext({ serviceWorkers: "block" })).newPage();
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    // What browsers call slow 4G: 1.6 Mbit/s, and 150 ms to the server and back.
    await session.send("Network.emulateNetworkConditions", {
      offline: false,
      latency: 150,
      downloadThroughput: 1.6e6 / 8,
      uploadThroughput: 0.75e6 / 8,
    });
    await page.goto(`${server.url}/?backend=webgl2`, { waitUntil: "commit" });
    const shown = await page.evaluate(
      () =>
        new Promise<{ at: number; scripts: number }>((resolve) => {
          new PerformanceObserver((list) => {
            const entries = list.getEntries() as (PerformanceEntry & { element?: Element })[];
            const poster = entries.find((e) => e.element?.id === "poster");
            const all = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
            const scripts = all.filter((e) => /assets.*js$/.test(e.name) && e.responseEnd > 0);
            if (poster) resolve({ at: poster.startTime, scripts: scripts.length });
          }).observe({ type: "largest-contentful-paint", buffered: true });
        }),
    );
    console.info(`poster at ${Math.round(shown.at)} ms`);
    expect(shown.at).toBeLessThan(3000);
    expect(shown.scripts).toBe(0);
    await server.close();
  });

  it("starts a file and its bundle, and a borderline room of any format, at one place", async () => {
    const server = await serve({ "/files/": made, "/small.ply": SPLATS, "/": DIST });
    const page = await open({ ...b, url: server.url }, "noanim", { viewport: SMALL, wait: false });
    await still(page);
    const startOf = async (file: string) => {
      await page.evaluate((url) => window.scene4d.open(url), file);
      return view(page);
    };
    const [file, bundle] = [await startOf("/small.ply"), await startOf("/files/small.s4d")];
    expect(apart(file.position, bundle.position)).toBeLessThan(0.05 * distance(file));
    const starts: View[] = [];
    for (const ending of ["ply", ...OTHERS]) starts.push(await startOf(`/files/room.${ending}`));
    const forward = ({ position, target }: View) => {
      const ahead = target.map((x, a) => x - position[a]!);
      return ahead.map((x) => x / Math.hypot(...ahead));
    };
    for (const [i, start] of starts.entries()) {
      const name = ["ply", ...OTHERS][i];
      // The same of the places and directions that are tried; the next ones are 0.5 away.
      expect([name, apart(start.position, starts[0]!.position) < 0.05]).toEqual([name, true]);
      expect([name, apart(forward(start), forward(starts[0]!)) < 0.05]).toEqual([name, true]);
    }
    // A run's file says where it was seen from, and so starts as its bundle does: upright, too. The
    // bundle has coordinates of its own, so that pictures tell.
    const pictures: number[][] = [];
    for (const name of ["run.ply", "run.s4d"]) {
      await startOf(`/files/${name}`);
      const { data } = await page.evaluate(async () => {
        const pixels = await window.scene4d.capture({ width: 64, height: 48 });
        return { data: Array.from(pixels.data) };
      });
      pictures.push(data);
    }
    const [splats, kept] = pictures as [number[], number[]];
    const off = kept.map((x, i) => Math.abs(x - splats[i]!));
    const away = kept.map((x, i) => Math.abs(x - kept[i % 4]!));
    const mean = (all: number[]) => all.reduce((sum, x) => sum + x) / all.length;
    expect(mean(off)).toBeLessThan(0.1 * mean(away)); // of what is not background
    await server.close();
  });

  it.each([
    { what: "a run's splats", file: "run.html" },
    { what: "what moves", file: "moving.html" },
  ])("plays $what as one file from a disk, and asks for nothing", async ({ file }) => {
    const page = await (await b.browser.newContext({ viewport: SMALL, offline: true })).newPage();
    const asked: string[] = [];
    const problems: string[] = [];
    page.on("request", (request) => asked.push(request.url().slice(0, 5)));
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(`${pathToFileURL(join(made, file))}?backend=webgl2&bg=000000`);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    const { splats, splatsInFile } = await page.evaluate(() => window.scene4d.stats());
    expect([splats > 100, splats]).toEqual([true, splatsInFile]);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    const time = () => page.evaluate(() => window.scene4d.getTime());
    if (file === "moving.html") {
      const drawn = (await page.evaluate(() => window.scene4d.stats())).frames;
      // Into the second of its two parts, and begun again.
      await until(page, () => window.scene4d.getTime()!.seconds > 1.6);
      await until(page, () => window.scene4d.getTime()!.seconds < 1.4);
      expect((await page.evaluate(() => window.scene4d.stats())).frames).toBeGreaterThan(drawn);
    } else {
      expect(await time()).toBeNull();
    }
    expect(asked.filter((scheme) => !["file:", "data:", "blob:"].includes(scheme))).toEqual([]);
    expect(problems).toEqual([]);
  });
});
