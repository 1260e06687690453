/** Networks that drop half-way, servers without Range that do, and scenes cut short or too large. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { MemorySource } from "../../src/decode/remote";
import { ROOT, readBytes } from "./harness";
import { bench, failureOf, open, picture, SMALL, shared, until } from "./pages";

const b = bench();
afterEach(() => {
  b.options = {};
});
const CHAIR = readBytes(join(ROOT, "tests/fixtures/chair.s4d"));
const message = () => document.querySelector("#message")?.getAttribute("data-kind") ?? "";
const splats = () => window.scene4d.stats().splats;

/** 149 kB, all of which the player reads; of a bundle it leaves the reference pictures. */
const PLY = readBytes(join(ROOT, "tests/fixtures/small.ply"));
/** Enough that the browser hands a part on before it learns that the rest does not come. */
const PART = 50_000;

function rangeOf(req: IncomingMessage, size: number): [number, number] | null {
  const found = /bytes=(\d+)-(\d*)/.exec(req.headers.range ?? "");
  if (!found) return null;
  return [Number(found[1]), Math.min(Number(found[2] || size), size - 1)];
}

interface Cut {
  file: Uint8Array;
  /** Bytes until the connection breaks. */
  most: number;
  ranged?: boolean;
}

function send(req: IncomingMessage, res: ServerResponse, { file, most, ranged = true }: Cut): void {
  const range = ranged ? rangeOf(req, file.length) : null;
  const [first, last] = range ?? [0, file.length - 1];
  const headers: Record<string, string> = { "Content-Length": String(last - first + 1) };
  if (range) headers["Content-Range"] = `bytes ${first}-${last}/${file.length}`;
  res.writeHead(range ? 206 : 200, headers);
  const end = Math.min(last + 1, first + most);
  if (end === last + 1) res.end(file.subarray(first, end));
  else res.write(file.subarray(first, end), () => setTimeout(() => res.destroy(), 300));
}

const isFor = (req: IncomingMessage, name: string) => req.url!.startsWith(`/fixtures/${name}`);

describe("a network that drops half-way", () => {
  it("is taken up where it broke, unseen", async () => {
    const starts: number[] = [];
    b.options = {
      intercept: (req, res) => {
        if (!isFor(req, "small.ply")) return false;
        starts.push(rangeOf(req, PLY.length)![0]);
        // The second request breaks.
        const most = starts.length === 2 ? PART : Number.POSITIVE_INFINITY;
        send(req, res, { file: PLY, most });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/small.ply", SMALL);
    expect(await page.evaluate(splats)).toBe(600);
    expect(await page.evaluate(message)).toBe("");
    // From within the part that broke, not from its start.
    const [, second, third] = starts;
    expect(starts).toHaveLength(3);
    expect(third).toBeGreaterThan(second!);
    expect(third).toBeLessThanOrEqual(second! + PART);
  });

  it("keeps the coarse scene, says so, and goes on from the button", async () => {
    const last = (await openFile(new MemorySource(CHAIR as never))).manifest.members.find(
      (m) => m.name === "stage2.bin",
    )!;
    let broken = true;
    b.options = {
      intercept: (req, res) => {
        const range = rangeOf(req, CHAIR.length);
        const end = last.offset + last.length - 1;
        if (!broken || !isFor(req, "chair.s4d") || !range || range[1] < end) return false;
        send(req, res, { file: CHAIR, most: 1000 });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/chair.s4d&bg=000000", {
      ...SMALL,
      wait: false,
    });
    await until(page, () => window.scene4d.stats().splats === 2500);
    await until(page, () => document.querySelector("#message") !== null, 30_000);
    expect(await page.evaluate(message)).toBe("network");
    expect(await page.evaluate(splats)).toBe(2500);
    expect((await picture(page)).lit).toBeGreaterThan(0.05);
    const heading = (await page.textContent("#message h2"))!;
    expect(heading).toMatch(/\w+ \w+/);
    broken = false;
    await page.click("#retry");
    await until(page, () => window.scene4d.stats().splats === 5000);
    expect(await page.evaluate(message)).toBe("");
    expect(page.problems).toEqual([]);
  });

  it("on a server without Range is loaded from the start again", async () => {
    let requests = 0;
    b.options = {
      intercept: (req, res) => {
        if (!isFor(req, "small.ply")) return false;
        requests++;
        const most = requests === 1 ? PART : Number.POSITIVE_INFINITY;
        send(req, res, { file: PLY, most, ranged: false });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/small.ply", SMALL);
    expect([await page.evaluate(splats), requests]).toEqual([600, 2]);
  });

  it("on a server without Range for good is said, too", async () => {
    b.options = {
      intercept: (req, res) => {
        if (!isFor(req, "small.ply")) return false;
        send(req, res, { file: PLY, most: PART, ranged: false });
        return true;
      },
    };
    const page = await open(b, "content=/fixtures/small.ply", { ...SMALL, wait: false });
    await until(page, () => document.querySelector("#message") !== null, 40_000);
    expect(await page.evaluate(message)).toBe("network");
    expect(await page.isVisible("#retry")).toBe(true);
  });
});

describe("scenes cut short or too large", () => {
  const another = shared(b, "", { ...SMALL, wait: false });
  const cut = (name: string, share: number) => {
    const bytes = readBytes(join(ROOT, "tests/fixtures", name));
    return bytes.subarray(0, Math.floor(share * bytes.length));
  };
  const files: [string, Uint8Array, string][] = [
    ...[0.02, 0.3, 0.99].map((share): [string, Uint8Array, string] => [
      `bundle${share}.s4d`,
      cut("chair.s4d", share),
      "damaged",
    ]),
    ...["small.ply", "small.compressed.ply", "small.spz", "small.sog", "small.glb"].map(
      (name): [string, Uint8Array, string] => [`cut.${name}`, cut(name, 0.6), "damaged"],
    ),
    ["nothing.s4d", new Uint8Array(0), "damaged"],
  ];
  for (const [name, bytes, kind] of files) {
    it(`${name} is ${kind}`, async () => {
      b.options = {
        range: false,
        intercept: (req, res) => {
          if (!req.url!.startsWith(`/cut/${name}`)) return false;
          res.writeHead(200, { "Content-Length": bytes.length }).end(bytes);
          return true;
        },
      };
      const page = await another();
      const shown = await failureOf(page, `/cut/${name}`);
      expect(shown.kind).toBe(kind);
      expect(shown.words).toMatch(/\.$/);
      expect(page.problems).toEqual([]);
    });
  }

  it("a small manifest that asks for 8 GB is refused, and little memory taken", async () => {
    const { manifest } = await openFile(new MemorySource(CHAIR as never));
    const count = Math.round(8e9 / 96);
    const text = JSON.stringify({ ...manifest, count }).replaceAll(
      '"count":5000',
      `"count":${count}`,
    );
    b.options = {
      intercept: (req, res) => {
        if (!req.url!.startsWith("/huge/manifest.json")) return false;
        res.writeHead(200, { "Content-Type": "application/json" }).end(text);
        return true;
      },
    };
    const page = await another();
    expect(["too-big", "damaged"]).toContain((await failureOf(page, "/huge/manifest.json")).kind);
    const heap = await page.evaluate(
      () =>
        (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize,
    );
    expect(heap).toBeLessThan(2e8);
  });
});
