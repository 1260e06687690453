import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RemoteFile } from "../../src/decode/remote";
import { type ServerOptions, serve } from "../browser/harness";

const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7919) >> 3);
let folder: string;
let server: Awaited<ReturnType<typeof serve>> | null = null;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "scene4d-"));
  writeFileSync(join(folder, "file.bin"), bytes);
});
afterEach(async () => {
  await server?.close();
  server = null;
});

async function open(options: ServerOptions = {}): Promise<RemoteFile> {
  server = await serve({ "/": folder }, options);
  return RemoteFile.open(`${server.url}/file.bin`);
}

const same = (part: Uint8Array, from: number, to: number) =>
  expect(Buffer.compare(part, bytes.subarray(from, to))).toBe(0);

describe("remote files", () => {
  it("are read by ranges, also across the end of what is there", async () => {
    const asked: string[] = [];
    const file = await open({
      intercept: (req) => {
        asked.push(req.headers.range ?? "whole");
        return false;
      },
    });
    expect(file.size).toBe(bytes.length);
    same(await file.read(10, 20), 10, 30);
    expect(asked).toHaveLength(1);
    same(await file.read(200_000, 5), 200_000, 200_005);
    same(await file.read(60_000, 10_000), 60_000, 70_000);
    expect(asked.slice(1)).toEqual(["bytes=200000-200004", "bytes=65536-69999"]);
    await expect(file.read(299_000, 2000)).rejects.toThrow("cut off");
  });

  it("are streamed from a server without Range, and can be read while they come", async () => {
    let release = () => {};
    const file = await open({
      intercept: (_, res) => {
        res.writeHead(200, { "Content-Length": bytes.length });
        res.write(bytes.subarray(0, 100_000));
        release = () => res.end(bytes.subarray(100_000));
        return true;
      },
    });
    same(await file.read(50_000, 20_000), 50_000, 70_000);
    const rest = file.read(150_000, 10);
    release();
    same(await rest, 150_000, 150_010);
    same(await file.all(), 0, bytes.length);
  });

  it("are taken up again where the connection dropped", async () => {
    let requests = 0;
    const file = await open({
      intercept: (req, res) => {
        if (++requests !== 2) return false;
        const [from] = req.headers.range!.slice(6).split("-").map(Number);
        res.writeHead(206, {
          "Content-Length": 100_000,
          "Content-Range": `bytes ${from}-${from! + 99_999}/300000`,
        });
        res.write(bytes.subarray(from, from! + 40_000), () => res.destroy());
        return true;
      },
    });
    same(await file.read(150_000, 100_000), 150_000, 250_000);
    expect(requests).toBeGreaterThanOrEqual(3);
  });

  it("say so when they are not there or the server stays silent", async () => {
    server = await serve({ "/": folder });
    await expect(RemoteFile.open(`${server.url}/other`)).rejects.toMatchObject({
      kind: "not-found",
    });
    const fetcher = () => Promise.reject(new TypeError("failed to fetch"));
    await expect(RemoteFile.open("http://x/", { fetcher })).rejects.toMatchObject({
      kind: "network",
    });
  });

  const packed = gzipSync(bytes);
  const lengths: [number, number][] = [];
  /** Compressed whatever was asked for, as hosts do that keep files so; the length is of that. */
  async function openPacked(
    body: Buffer,
    encoding: string,
    part: { status: number; headers?: Record<string, string>; end?: number },
    seen = (response: Response) => response,
  ): Promise<RemoteFile> {
    server = await serve(
      { "/": folder },
      {
        intercept: (req, res) => {
          const wanted = req.headers.range ? body.subarray(0, part.end) : body;
          res.writeHead(req.headers.range ? part.status : 200, {
            "Content-Encoding": encoding,
            "Content-Length": wanted.length,
            ...(req.headers.range ? part.headers : {}),
          });
          res.end(wanted);
          return true;
        },
      },
    );
    lengths.length = 0;
    return RemoteFile.open(`${server.url}/file.bin`, {
      fetcher: async (url, init) => seen(await fetch(url, init)),
      progress: (loaded, total) => lengths.push([loaded, total]),
    });
  }
  /** As pages see answers of other hosts: without Content-Encoding. */
  const fromAfar = (response: Response): Response => {
    const headers = new Headers(response.headers);
    headers.delete("Content-Encoding");
    const { status, body } = response;
    const far = new Response(body, { status, headers });
    Object.defineProperty(far, "type", { value: "cors" });
    return far;
  };

  for (const [name, body, encoding] of [
    ["smaller", packed, "gzip"],
    ["larger", gzipSync(bytes, { level: 0 }), "gzip"],
    ["smaller", brotliCompressSync(bytes), "br"],
  ] as const) {
    for (const far of [false, true]) {
      it(`are whole where a host made them ${name} by ${encoding}, ${far ? "unseen" : "and says so"}`, async () => {
        expect(body.length < bytes.length).toBe(name === "smaller");
        const seen = far ? fromAfar : undefined;
        const file = await openPacked(body, encoding, { status: 200 }, seen);
        same(await file.read(299_000, 1000), 299_000, 300_000);
        same(await file.all(), 0, bytes.length);
        expect(file.size).toBe(bytes.length);
        await expect(file.read(299_000, 2000)).rejects.toThrow("cut off");
        // The share of what has come is never more than all, nor less than before.
        const shares = lengths.map(([loaded, total]) => loaded / total);
        expect(Math.max(...shares)).toBeLessThanOrEqual(1);
        expect(Math.min(...shares)).toBeGreaterThan(0);
      });
    }
  }

  for (const seen of [undefined, fromAfar]) {
    it(`are asked for as a whole where ranges are those of the compressed file${seen ? ", unseen" : ""}`, async () => {
      const part = {
        status: 206,
        headers: { "Content-Range": `bytes 0-65535/${packed.length}` },
        end: 65536,
      };
      const file = await openPacked(packed, "gzip", part, seen);
      same(await file.all(), 0, bytes.length);
    });
  }

  it("are asked for as a whole where another host hides how large they are", async () => {
    server = await serve({ "/": folder });
    const file = await RemoteFile.open(`${server.url}/file.bin`, {
      fetcher: async (url, init) => {
        const response = await fetch(url, init);
        const headers = new Headers(response.headers);
        headers.delete("Content-Range");
        return new Response(response.body, { status: response.status, headers });
      },
    });
    same(await file.read(299_000, 1000), 299_000, 300_000);
  });

  it("refuse what no buffer may hold", async () => {
    server = await serve(
      { "/": folder },
      {
        intercept: (_, res) => {
          res.writeHead(206, { "Content-Range": "bytes 0-3/8000000000", "Content-Length": 4 });
          res.end("abcd");
          return true;
        },
      },
    );
    await expect(RemoteFile.open(`${server.url}/file.bin`)).rejects.toMatchObject({
      kind: "too-big",
    });
  });
});
