/** Every parameter of the address (docs/player.md), and strangers around an embedded player. */
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { DIST, ROOT, readBytes, serve } from "./harness";
import { bench, open, until, view } from "./pages";

const b = bench();
const CHAIR = "content=/fixtures/chair.s4d&noanim";
const SMALL = { viewport: { width: 320, height: 240 } };

describe("parameters of the address", () => {
  it("title, theme, stats, cameras, mode and view", async () => {
    const page = await open(
      b,
      `${CHAIR}&title=A%20%3Cb%3E%20chair&theme=dark&stats&cameras&mode=walk&view=2,1,1.5,0.1,0,0.2`,
      { ...SMALL, colorScheme: "light" },
    );
    expect(await page.title()).toBe("A <b> chair");
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
    expect(await page.isVisible("#stats")).toBe(true);
    expect(await page.getAttribute('[aria-label="Walk"]', "aria-checked")).toBe("true");
    const { position, target } = await view(page);
    expect([...position]).toEqual([2, 1, 1.5].map((x) => expect.closeTo(x, 4)));
    const ahead = [0.1 - 2, -1, 0.2 - 1.5];
    const seen = target.map((x, i) => x - position[i]!);
    // Walking looks the same way; how far away its target is, is its own business.
    const cosine =
      ahead.reduce((sum, x, i) => sum + x * seen[i]!, 0) /
      (Math.hypot(...ahead) * Math.hypot(...seen));
    expect(cosine).toBeCloseTo(1, 4);
  });

  it("quality, budget and degree limit what is drawn; the settings show it", async () => {
    const page = await open(b, `${CHAIR}&quality=1`, SMALL);
    const stats = await page.evaluate(() => window.scene4d.stats());
    expect([stats.splats, stats.width]).toEqual([1000, 160]);
    await page.click('button[aria-label="Settings"]');
    expect(await page.inputValue("#quality")).toBe("1");
    const fewer = await open(b, `${CHAIR}&quality=5&degree=0&budget=300`, SMALL);
    const least = await fewer.evaluate(() => window.scene4d.stats());
    // The first stage, 1,000 splats, thinned to every fourth.
    expect([least.splats, least.degree]).toEqual([250, 0]);
  });

  it("bg, fov and up change the picture", async () => {
    const small = { viewport: { width: 160, height: 120 } };
    /** Of the pixels that are not background: above and below the middle, and how much of all. */
    const seen = async (query: string) => {
      // Without bars the middle of the window is the picture's.
      const page = await open(b, `${CHAIR}&view=2.5,0,0,0,0,0&noui&${query}`, small);
      return page.evaluate(async () => {
        const { data, width, height } = await window.scene4d.capture();
        const counts = [0, 0];
        for (let i = 0; i < width * height; i++) {
          const off = [0, 1, 2].reduce((t, c) => t + Math.abs(data[4 * i + c]! - data[c]!), 0);
          if (off > 12) counts[i < (width * height) / 2 ? 0 : 1]!++;
        }
        const [above, below] = counts as [number, number];
        const { K, c2w } = window.scene4d.camera();
        const lit = (above + below) / (width * height);
        return { corner: [...data.slice(0, 3)], above, below, lit, focal: K[0]!, up: c2w[9]! };
      });
    };
    const plain = await seen("up=z&bg=000000");
    const other = await seen("up=-z&bg=ff0000&fov=120");
    expect([plain.corner, other.corner]).toEqual([
      [0, 0, 0],
      [255, 0, 0],
    ]);
    expect([plain.up, other.up]).toEqual([expect.closeTo(1, 5), expect.closeTo(-1, 5)]);
    const tangent = (degrees: number) => Math.tan((degrees * Math.PI) / 360);
    expect(plain.focal / other.focal).toBeCloseTo(tangent(120) / tangent(65), 5);
    // (tan 32.5 / tan 60)^2, an eighth of the area, and more where the object was cut off.
    expect(other.lit).toBeLessThan(0.4 * plain.lit);
    expect(other.lit).toBeGreaterThan(0.02);
    // Upside down: what was more above the middle is more below it, or the other way round.
    expect(Math.abs(plain.above / plain.below - 1)).toBeGreaterThan(0.1);
    expect(plain.above > plain.below).toBe(other.above < other.below);
  });

  it("poster stands there until the scene does", async () => {
    let go = () => {};
    const released = new Promise<void>((resolve) => {
      go = resolve;
    });
    b.options = {
      intercept: (req, res) => {
        if (req.url === "/poster.png") {
          res.writeHead(200, { "Content-Type": "image/svg+xml" });
          res.end('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>');
          return true;
        }
        if (!req.url!.startsWith("/fixtures/small.spz")) return false;
        void released.then(() => {
          const bytes = readBytes(join(ROOT, "tests/fixtures/small.spz"));
          res.writeHead(200, { "Content-Length": bytes.length });
          res.end(bytes);
        });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/small.spz&poster=/poster.png", {
      ...SMALL,
      wait: false,
    });
    await until(page, () => !document.querySelector("#poster")!.hasAttribute("hidden"));
    expect(await page.getAttribute("#poster", "src")).toBe("/poster.png");
    go();
    await page.evaluate(() => window.scene4d.ready);
    await until(page, () => document.querySelector("#poster")!.hasAttribute("hidden"));
    b.options = {};
  });

  it("what does not parse is as if it were not there", async () => {
    const plain = await view(await open(b, CHAIR, SMALL));
    const nonsense =
      "view=1,2,x,0,0,0&mode=swim&up=sideways&fov=wide&quality=best&budget=&degree=x&bg=red" +
      "&theme=pink&backend=metal&title=&cameras=0&stats=false";
    const page = await open(b, `${CHAIR}&${nonsense}`, SMALL);
    expect(await view(page)).toEqual(plain);
    expect(await page.isVisible("#stats")).toBe(false);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    const told = (await page.textContent("#toast"))!;
    for (const name of ["view=1,2,x", "mode=swim", "bg=red"]) expect(told).toContain(name);
    expect(page.problems).toEqual([]);
  });
});

describe("embedding", () => {
  const host = (player: string) =>
    `<!doctype html><iframe style="width:240px;height:180px"
       src="${player}/?backend=webgl2&${CHAIR}&noui"></iframe>
     <script>
       window.got = []; window.replies = {};
       addEventListener("message", (e) => {
         if (e.data?.scene4d !== 1) return;
         if (e.data.event) got.push([e.data.event, e.origin]); else replies[e.data.id] = e.data;
       });
       window.call = (id, method, args) =>
         document.querySelector("iframe").contentWindow.postMessage({ scene4d: 1, id, method, args }, "*");
     </script>`;
  interface Host {
    got: [string, string][];
    replies: Record<string, { result?: { position: number[] }; error?: string }>;
    call: (...a: unknown[]) => void;
  }

  /** A page at localhost (another site than 127.0.0.1) around the player at `address`. */
  async function framed(address: string) {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    const server = await serve({ "/": folder });
    writeFileSync(join(folder, "index.html"), host(address));
    const page = await (await b.browser.newContext()).newPage();
    await page.goto(server.url.replace("127.0.0.1", "localhost"));
    await until(page, () => (window as unknown as Host).got.some(([event]) => event === "ready"));
    return { page, close: server.close, origin: new URL(page.url()).origin };
  }

  /** Answers to calls, by number. */
  async function called(page: Page, calls: [string, unknown[]?][]) {
    await page.evaluate((all) => {
      const { call } = window as unknown as Host;
      for (const [id, [method, args]] of all.entries()) call(id, method, args);
    }, calls);
    await page.waitForFunction(
      (count) => Object.keys((window as unknown as Host).replies).length === count,
      calls.length,
      { polling: 50 },
    );
    return page.evaluate(() => (window as unknown as Host).replies);
  }

  it("lets a page that its own page does not name look, not steer", async () => {
    const { page, close } = await framed(b.url);
    const replies = await called(page, [
      ["setView", [{ position: [1, 2, 3], target: [0, 0, 0] }, true]],
      ["screenshot"],
      ["open", [`${b.url}/fixtures/slabs.s4d`]],
      ["pick", [120, 90]],
      ["link"],
      ["setMode", ["fly"]],
      ["getView"],
      ["stats"],
    ]);
    for (const id of [0, 1, 2, 3, 4, 5]) expect(replies[id]!.error).toContain("embed=");
    expect(replies[6]!.result!.position).not.toEqual([1, 2, 3].map((x) => expect.closeTo(x, 5)));
    expect(replies[7]!.result).toMatchObject({ splats: 5000 });
    const got = await page.evaluate(() => (window as unknown as Host).got.map(([event]) => event));
    expect(got[0]).toBe("loaded");
    expect(got).not.toContain("mode");
    await close();
  });

  it("does not believe its address, which who frames it writes", async () => {
    const { page, close, origin } = await framed(b.url);
    await page.evaluate((named) => {
      const frame = document.querySelector("iframe")!;
      (window as unknown as Host).got.length = 0;
      frame.src += `&embed=${encodeURIComponent(named)}`;
    }, origin);
    await until(page, () => (window as unknown as Host).got.some(([event]) => event === "ready"));
    const replies = await called(page, [["screenshot"]]);
    expect(replies[0]!.error).toContain("embed=");
    await close();
  });

  it("obeys pages that its own page names, and fetches for them without cookies", async () => {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    cpSync(DIST, folder, { recursive: true });
    const cookies: (string | undefined)[] = [];
    const player = await serve(
      { "/": folder, "/fixtures/": `${ROOT}/tests/fixtures/` },
      {
        intercept: (req) => {
          if (req.url!.includes("small.spz")) cookies.push(req.headers.cookie);
          return false;
        },
      },
    );
    const other = mkdtempSync(join(tmpdir(), "scene4d-"));
    const server = await serve({ "/": other });
    const origin = server.url.replace("127.0.0.1", "localhost");
    const index = join(folder, "index.html");
    const named = encodeURIComponent(`https://a.example, ${origin}/page`);
    writeFileSync(
      index,
      readFileSync(index, "utf8").replace(
        "</head>",
        `<meta name="scene4d" content="embed=${named}" /></head>`,
      ),
    );
    writeFileSync(join(other, "index.html"), host(player.url));
    const context = await b.browser.newContext();
    await context.addCookies([{ name: "secret", value: "1", url: player.url, sameSite: "Lax" }]);
    const page = await context.newPage();
    await page.goto(origin);
    await until(page, () => (window as unknown as Host).got.some(([event]) => event === "ready"));
    const replies = await called(page, [
      ["setView", [{ position: [1, 2, 3], target: [0, 0, 0] }, true]],
      ["getView"],
      ["setMode", ["fly"]],
      ["nothing"],
      ["constructor"],
      ["getView", "no list" as never],
      ["open", [`${player.url}/fixtures/small.spz`]],
    ]);
    expect(replies[1]!.result!.position).toEqual([1, 2, 3].map((x) => expect.closeTo(x, 5)));
    expect([replies[3]!.error, replies[4]!.error]).toEqual([
      "no method nothing",
      "no method constructor",
    ]);
    expect(replies[5]!.error).toBeUndefined();
    expect(replies[6]!.error).toBeUndefined();
    expect(cookies.length).toBeGreaterThan(0);
    expect(cookies.every((cookie) => cookie === undefined)).toBe(true);
    const got = await page.evaluate(() => (window as unknown as Host).got);
    const events = got.map(([event]) => event);
    expect(events[0]).toBe("loaded");
    expect(events).toContain("view");
    expect(events).toContain("mode");
    expect(new Set(got.map(([, from]) => from))).toEqual(new Set([player.url]));
    await server.close();
    await player.close();
  });

  it("does not obey a frame beside it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    writeFileSync(
      join(folder, "index.html"),
      `${host("")}<iframe name="stranger" src="/host/stranger.html"></iframe>`,
    );
    writeFileSync(
      join(folder, "stranger.html"),
      `<script>
         window.heard = 0;
         addEventListener("message", () => heard++);
         window.attack = () => parent.frames[0].postMessage(
           { scene4d: 1, id: "x", method: "setView",
             args: [{ position: [9, 9, 9], target: [0, 0, 0] }, true] }, "*");
       </script>`,
    );
    const server = await serve({
      "/": DIST,
      "/host/": folder,
      "/fixtures/": `${ROOT}/tests/fixtures/`,
    });
    const page = await (await b.browser.newContext()).newPage();
    await page.goto(`${server.url}/host/index.html`);
    await until(page, () => (window as unknown as Host).got.some(([event]) => event === "ready"));
    const stranger = page.frame("stranger")!;
    await stranger.evaluate(() => (window as unknown as { attack: () => void }).attack());
    // The parent's question comes later than the stranger's order, and is answered.
    await page.evaluate(() => (window as unknown as Host).call(1, "getView"));
    await until(page, () => 1 in (window as unknown as Host).replies);
    const replies = await page.evaluate(() => (window as unknown as Host).replies);
    expect(Object.keys(replies)).toEqual(["1"]);
    expect(replies[1]!.result!.position).not.toEqual([9, 9, 9]);
    expect(await stranger.evaluate(() => (window as unknown as { heard: number }).heard)).toBe(0);
    await server.close();
  });
});

describe("a scene on another host", () => {
  it("that allows no page to read it is told apart from one that is not there", async () => {
    const server = await serve({ "/": `${ROOT}/tests/fixtures/` });
    const page = await open(b, `content=${server.url}/small.spz`, { ...SMALL, wait: false });
    const told = await page.evaluate(() => window.scene4d.ready.catch((error) => `${error}`));
    expect(told).toContain("cors");
    expect(await page.textContent("body")).toContain("Access-Control-Allow-Origin");
    await server.close();
  });
});
