/** What `scene4d export ... player` writes: without a network, and as one file from a disk. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROOT, serve } from "./harness";
import { bench, picture, until } from "./pages";
import { scene4d, withoutPython } from "./python";

const CHAIR = join(ROOT, "tests/fixtures/chair.s4d");

describe.skipIf(withoutPython)("the exported player", () => {
  const b = bench();
  let made = "";
  beforeAll(() => {
    made = mkdtempSync(join(tmpdir(), "scene4d-"));
    scene4d("export", CHAIR, "player", "--output-path", join(made, "site"), "--title", "A chair");
    const one = join(made, "one.html");
    scene4d("export", CHAIR, "player", "--single-file", "--output-path", one);
  });
  afterAll(() => rmSync(made, { recursive: true }));

  it("opens again without a network, at another view, and can be installed", async () => {
    const server = await serve({ "/some/where/": join(made, "site") });
    const page = await (await b.browser.newContext()).newPage();
    const start = `${server.url}/some/where/?backend=webgl2`;
    await page.goto(start);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect(await page.title()).toBe("A chair");
    // Active: every file is kept, each with the SHA-256 of its version.
    await page.evaluate(() => navigator.serviceWorker.ready);
    const session = await page.context().newCDPSession(page);
    const app = await session.send("Page.getAppManifest");
    expect(app.errors).toEqual([]);
    expect(JSON.parse(app.data!)).toMatchObject({ name: "A chair", display: "standalone" });

    await server.close();
    await page.context().setOffline(true);
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(`${start}&view=1,2,1.5,0.1,0,0.2`);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    expect((await page.evaluate(() => window.scene4d.getView())).position[1]).toBeCloseTo(2, 4);
    await page.reload();
    await until(page, () => window.scene4d?.stats().splats === 5000);
    expect(problems).toEqual([]);
    // What was never there does not come from somewhere else.
    const other = () => fetch("./other.s4d").then(String, () => "failed");
    expect(await page.evaluate(other)).toBe("failed");
  });

  it("plays as one file from a disk, and asks for nothing", async () => {
    const page = await (await b.browser.newContext({ offline: true })).newPage();
    const asked: string[] = [];
    const problems: string[] = [];
    page.on("request", (request) => asked.push(request.url().slice(0, 5)));
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(`${pathToFileURL(join(made, "one.html"))}?backend=webgl2`);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    expect(asked.filter((scheme) => !["file:", "data:", "blob:"].includes(scheme))).toEqual([]);
    expect(problems).toEqual([]);
  });
});
