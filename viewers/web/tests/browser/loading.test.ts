import { mkdtempSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { afterEach, describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { MemorySource } from "../../src/decode/remote";
import { readZip } from "../../src/decode/zip";
import { DIST, ROOT, readBytes, serve } from "./harness";
import { bench, failureOf, frames, open, picture, SMALL, shared, until } from "./pages";

const b = bench();
afterEach(() => {
  b.options = {};
});

const message = () => document.querySelector("#message")?.getAttribute("data-kind") ?? "";

describe("formats in the browser", () => {
  const page = shared(b, "content=/fixtures/small.ply&noanim&noui", SMALL);

  /** What one camera sees: the mean distance from the background, and how much is not background. */
  const seen = async (name: string) => {
    const here = await page();
    const found = await here.evaluate(async (url) => {
      await window.scene4d.open(url);
      // From (2, 2, 1) at the origin, z upwards.
      const s = Math.SQRT1_2;
      const c2w = [-s, -s / 3, 2 / 3, 2, s, -s / 3, 2 / 3, 2, 0, 4 * (s / 3), 1 / 3, 1];
      window.scene4d.setCamera([...c2w, 0, 0, 0, 1], [188, 0, 120, 0, 188, 90, 0, 0, 1], 240, 180);
      const { data } = await window.scene4d.capture();
      window.scene4d.setCamera(null);
      let [sum, lit] = [0, 0];
      for (let i = 0; i < data.length; i += 4) {
        const off = [0, 1, 2].reduce((t, c) => t + Math.abs(data[i + c]! - data[c]!), 0);
        sum += off;
        if (off > 12) lit++;
      }
      const pixels = data.length / 4;
      return { mean: sum / pixels, lit: lit / pixels, stats: window.scene4d.stats() };
    }, `/fixtures/${name}`);
    expect(here.problems).toEqual([]);
    return found;
  };
  let ply: ReturnType<typeof seen> | null = null;

  for (const name of ["small.ply", "small.compressed.ply", "small.spz", "small.sog", "small.glb"]) {
    it(`draws ${name} like the PLY`, async () => {
      ply ??= seen("small.ply");
      const wanted = (await ply).mean;
      const { stats, mean, lit } = await seen(name);
      expect([stats.splats, stats.degree]).toEqual([600, 3]);
      // The same scene: brightness within the codecs' errors.
      expect(lit).toBeGreaterThan(0.05);
      expect(Math.abs(mean - wanted)).toBeLessThan(0.03 * mean);
    });
  }

  it("draws an unpacked SOG and counts the bytes of all its files", async () => {
    const members = readZip(readBytes(join(ROOT, "tests/fixtures/small.sog")) as never);
    b.options = {
      intercept: (req, res) => {
        const found = members.get(/^\/fixtures\/sog\/([\w.]+)$/.exec(req.url!)?.[1] ?? "");
        if (found) res.writeHead(200, { "Content-Length": found.length }).end(found);
        return found !== undefined;
      },
    };
    ply ??= seen("small.ply");
    const wanted = (await ply).mean;
    const { stats, mean } = await seen("sog/meta.json");
    const bytes = [...members.values()].reduce((sum, member) => sum + member.length, 0);
    expect([stats.splats, stats.size, stats.downloaded]).toEqual([600, bytes, bytes]);
    expect(Math.abs(mean - wanted)).toBeLessThan(0.03 * mean);
  });

  it("draws a file that is chosen, and one that is dropped on the page", async () => {
    const welcome = await open(b, "", { ...SMALL, wait: false });
    await until(welcome, () => document.querySelector("#message h2") !== null);
    await welcome.setInputFiles("input[type=file]", join(ROOT, "tests/fixtures/small.spz"));
    await until(welcome, () => window.scene4d.stats().splats === 600);
    expect(await welcome.evaluate(message)).toBe("");
    // Splats in a row: 3 + 3 floats, a colour, a rotation.
    const count = 40;
    const rows = Array.from({ length: count }, (_, i) => {
      const row = Buffer.alloc(32);
      for (const [n, x] of [i / count, 0, 0, 0.1, 0.1, 0.1].entries()) row.writeFloatLE(x, 4 * n);
      row.set([255, 0, 0, 255, 255, 128, 128, 128], 24);
      return row;
    });
    await welcome.evaluate((base64) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "row.splat"));
      const dropped = { dataTransfer, bubbles: true, cancelable: true };
      document.querySelector("canvas")!.dispatchEvent(new DragEvent("drop", dropped));
    }, Buffer.concat(rows).toString("base64"));
    await until(welcome, () => window.scene4d.stats().splats === 40);
    expect(await welcome.textContent("#title")).toBe("row.splat");
    expect(await welcome.evaluate(message)).toBe("");
  });

  it("draws a scene without splats as an empty one", async () => {
    const empty = await open(b, "content=/bundles/good/no_splats.s4d&bg=000000", SMALL);
    expect((await empty.evaluate(() => window.scene4d.stats())).splats).toBe(0);
    expect((await picture(empty)).lit).toBe(0);
  });
});

interface TraceEvent {
  name: string;
  cat: string;
  pid: number;
  tid: number;
  /** Microseconds: when, how long by the clock, and of the thread's own. */
  ts: number;
  dur?: number;
  tdur?: number;
}

/**
 * How long tasks of the page's main thread took, in milliseconds, between two of its marks. By the
 * clock; where the machine has more to do than it has cores, which stretches any task, the thread's
 * own time.
 */
async function tasksOf(page: Page, run: () => Promise<unknown>) {
  const categories = ["disabled-by-default-devtools.timeline", "blink.user_timing", "toplevel"];
  await b.browser.startTracing(page, { categories });
  await run();
  const { traceEvents } = JSON.parse((await b.browser.stopTracing()).toString()) as {
    traceEvents: TraceEvent[];
  };
  const busy = loadavg()[0]! > availableParallelism();
  const markOf = (name: string) =>
    traceEvents.find((e) => e.cat.includes("user_timing") && e.name === name)!;
  return (from: string, to: string) => {
    const [begin, end] = [markOf(from), markOf(to)];
    return traceEvents
      .filter((e) => e.name === "RunTask" && e.pid === begin.pid && e.tid === begin.tid)
      .filter((e) => e.ts + e.dur! > begin.ts && e.ts < end.ts)
      .map((e) => (busy ? e.tdur! : e.dur!) / 1000);
  };
}

describe("streaming", () => {
  it("shows the poster, then the first stage, while the rest still comes", async () => {
    const chair = await openFile(
      new MemorySource(readBytes(join(ROOT, "tests/fixtures/chair.s4d")) as never),
    );
    const last = chair.manifest.members.find((m) => m.name === "stage2.bin")!;
    // The last member is answered only when the test says so.
    const held: (() => void)[] = [];
    b.options = {
      intercept: (req, res) => {
        const range = /bytes=(\d+)-(\d+)/.exec(req.headers.range ?? "");
        if (
          !req.url!.startsWith("/fixtures/chair.s4d") ||
          !range ||
          Number(range[2]) < last.offset + last.length - 1
        )
          return false;
        const bytes = readBytes(join(ROOT, "tests/fixtures/chair.s4d"));
        held.push(() => {
          const [from, to] = [Number(range[1]), Number(range[2])];
          res.writeHead(206, { "Content-Range": `bytes ${from}-${to}/${bytes.length}` });
          res.end(bytes.subarray(from, to + 1));
        });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/chair.s4d&bg=000000", {
      ...SMALL,
      wait: false,
    });
    await until(page, () => window.scene4d.stats().splats === 2500);
    expect(await page.isVisible("#loading")).toBe(true);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    for (const send of held.splice(0)) send();
    await page.evaluate(() => window.scene4d.ready);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    await until(page, () => document.querySelector("#poster")!.hasAttribute("hidden"));
  });

  it("works from a server without Range, and from an unpacked folder on one", async () => {
    b.options = { range: false };
    const page = await open(b, "content=/fixtures/chair.s4d", SMALL);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    await page.evaluate(() => window.scene4d.open("/bundles/good/unpacked/manifest.json"));
    const { splats } = await page.evaluate(() => window.scene4d.stats());
    expect(splats).toBeGreaterThan(10);
    expect(splats).toBeLessThan(5000);
  });

  it("works from a host that compresses the scene on its way", async () => {
    const packed = gzipSync(readBytes(join(ROOT, "tests/fixtures/chair.s4d")));
    b.options = {
      intercept: (req, res) => {
        if (!req.url!.startsWith("/fixtures/chair.s4d")) return false;
        res.writeHead(200, { "Content-Encoding": "gzip", "Content-Length": packed.length });
        res.end(packed);
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/chair.s4d", SMALL);
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
  });

  it("draws no more than the budget, most visible first, and fewer harmonics", async () => {
    const page = await open(b, "content=/fixtures/chair.s4d&budget=1000&degree=1", SMALL);
    const stats = await page.evaluate(() => window.scene4d.stats());
    expect([stats.splats, stats.splatsInFile, stats.degree]).toEqual([1000, 5000, 1]);
  });

  it("does not block the main thread for more than 75 ms", { retry: 2 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    // 120,000 splats: the same 600 again and again, in four pieces.
    const small = readBytes(join(ROOT, "tests/fixtures/small.ply"));
    const text = new TextDecoder("latin1").decode(small.subarray(0, 4096));
    const start = text.indexOf("end_header\n") + 11;
    const header = text.slice(0, start).replace("vertex 600", "vertex 120000");
    const body = small.subarray(start);
    writeFileSync(
      join(folder, "big.ply"),
      Buffer.concat([Buffer.from(header), ...Array(200).fill(body)]),
    );
    const server = await serve({ "/": DIST, "/big/": folder });
    const page = await (
      await b.browser.newContext({ viewport: { width: 64, height: 48 } })
    ).newPage();
    await page.goto(`${server.url}/?backend=webgl2`);
    await until(page, () => Boolean(window.scene4d));
    // The engine's own start (shaders) is over when it draws; what follows is loading.
    await frames(page, 10);
    const tasks = await tasksOf(page, () =>
      page.evaluate(async () => {
        performance.mark("loading");
        await window.scene4d.open("/big/big.ply");
        performance.mark("loaded");
        // A task that is too long, to see that it would be seen: some tenths of a second of work.
        await new Promise((resolve) => setTimeout(resolve));
        let work = 1;
        for (let i = 0; i < 5e7; i++) work = Math.sqrt(work + i);
        performance.mark(work > 0 ? "ended" : "");
      }),
    );
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(120_000);
    const longest = (from: string, to: string) => Math.max(...tasks(from, to));
    expect(tasks("loading", "loaded").length).toBeGreaterThan(10);
    expect(longest("loading", "loaded")).toBeLessThan(75);
    expect(longest("loaded", "ended")).toBeGreaterThan(75);
    await server.close();
  });
});

describe("failures", () => {
  const cases: [string, string][] = [
    ["/fixtures/nothing.s4d", "not-found"],
    ["/index.html", "format"],
    ["/bundles/bad/bit_flip_member.s4d", "damaged"],
    ["/bundles/bad/truncated_member.s4d", "damaged"],
    ["/bundles/bad/unknown_version.s4d", "version"],
    ["/bundles/bad/unknown_kind.s4d", "kind"],
    ["/bundles/bad/huge_count.s4d", "damaged"],
  ];
  const another = shared(b, "", { ...SMALL, wait: false });
  for (const [url, kind] of cases) {
    it(`shows ${kind} for ${url}`, async () => {
      const page = await another();
      const shown = await failureOf(page, url);
      expect(shown.kind).toBe(kind);
      expect(shown.heading!.length).toBeGreaterThan(8);
      expect(page.problems).toEqual([]);
    });
  }

  it.each([
    ["content=/fixtures/nothing.s4d", "not-found"],
    ["content=/fixtures/small.ply&settings=/nothing.json", "settings"],
  ])("shows what is wrong with the address %s", async (query, kind) => {
    const page = await open(b, query, { ...SMALL, wait: false });
    await until(page, () => document.querySelector("#message") !== null);
    expect(await page.evaluate(message)).toBe(kind);
    expect((await page.textContent("#message h2"))!.length).toBeGreaterThan(8);
    expect(page.problems).toEqual([]);
  });

  it("refuses a bundle of 8 GB before it asks for it", async () => {
    b.options = {
      intercept: (req, res) => {
        if (!req.url!.startsWith("/huge.s4d")) return false;
        res.writeHead(206, { "Content-Range": "bytes 0-99/8000000000", "Content-Length": 100 });
        res.end(Buffer.alloc(100));
        return true;
      },
    };
    expect((await failureOf(await another(), "/huge.s4d")).kind).toBe("too-big");
  });

  it("offers to try again after the network broke, and then works", async () => {
    let broken = true;
    b.options = {
      intercept: (req, res) => {
        if (!broken || !req.url!.startsWith("/fixtures/small.spz")) return false;
        res.destroy();
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/small.spz", { ...SMALL, wait: false });
    await until(page, () => document.querySelector("#message") !== null, 30_000);
    expect(await page.evaluate(message)).toBe("network");
    broken = false;
    await page.click("#retry");
    await until(page, () => window.scene4d.stats().splats === 600);
    expect(await page.evaluate(message)).toBe("");
  });

  it("says what is missing where there is no 3D graphics", async () => {
    const page = await (await b.browser.newContext()).newPage();
    await page.addInitScript(() => {
      HTMLCanvasElement.prototype.getContext = () => null;
      Object.defineProperty(navigator, "gpu", { value: undefined });
    });
    await page.goto(`${b.url}/?content=/fixtures/small.ply`);
    await until(page, () => document.querySelector("#message") !== null);
    expect(await page.evaluate(message)).toBe("no-graphics");
  });

  it("draws again after the graphics context was lost", async () => {
    const page = await open(b, "content=/fixtures/chair.s4d&view=2,2,1,0,0,0", SMALL);
    const before = await picture(page);
    await page.evaluate(async () => {
      const gl = document.querySelector("canvas")!.getContext("webgl2")!;
      const extension = gl.getExtension("WEBGL_lose_context")!;
      const once = (name: string) =>
        new Promise((resolve) => gl.canvas.addEventListener(name, resolve, { once: true }));
      const lost = once("webglcontextlost");
      extension.loseContext();
      await lost;
      // Not before the event's other listeners have been told.
      await new Promise((resolve) => setTimeout(resolve, 50));
      const restored = once("webglcontextrestored");
      extension.restoreContext();
      await restored;
      await new Promise(requestAnimationFrame);
    });
    const after = await picture(page);
    expect(after.mean).toBeCloseTo(before.mean, 0);
  });
});
