/** A static server with Range and a headless Chromium, for tests and for looking at the player. */
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { launchChromium } from "../../build/chromium.mjs";

export const ROOT = join(import.meta.dirname, "../..");
export const DIST = join(ROOT, "dist");

const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".webp": "image/webp",
  ".png": "image/png",
  ".jpg": "image/jpeg",
};

export interface ServerOptions {
  /** Answer Range requests (true) or ignore them and send the whole file. */
  range?: boolean;
  /** Called for each request; returning true means that it has answered. */
  intercept?: (req: IncomingMessage, res: ServerResponse) => boolean;
}

/** Serves URL prefixes from folders. */
export async function serve(
  folders: Record<string, string>,
  options: ServerOptions = {},
): Promise<{ url: string; close: () => Promise<void> }> {
  const server: Server = createServer((req, res) => answer(req, res, folders, options));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(
  req: IncomingMessage,
  res: ServerResponse,
  folders: Record<string, string>,
  options: ServerOptions,
): void {
  if (options.intercept?.(req, res)) return;
  const path = decodeURIComponent(new URL(req.url!, "http://x").pathname);
  const prefix = Object.keys(folders)
    .sort((a, b) => b.length - a.length)
    .find((p) => path.startsWith(p));
  const relative = prefix === undefined ? "" : normalize(path.slice(prefix.length));
  let file = prefix === undefined ? "" : join(folders[prefix]!, relative);
  if (file && existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
  if (!file || relative.startsWith("..") || !existsSync(file)) {
    res.writeHead(404).end("not found");
    return;
  }
  const size = statSync(file).size;
  const headers: Record<string, string> = {
    "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
    "Cache-Control": "no-store",
  };
  const match =
    options.range === false ? null : /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? "");
  if (options.range !== false) headers["Accept-Ranges"] = "bytes";
  const start = match ? Number(match[1]) : 0;
  const end = match?.[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  if (match) headers["Content-Range"] = `bytes ${start}-${end}/${size}`;
  headers["Content-Length"] = String(Math.max(0, end - start + 1));
  res.writeHead(match ? 206 : 200, headers);
  if (size === 0 || req.method === "HEAD") res.end();
  else createReadStream(file, { start, end }).pipe(res);
}

export const launch = launchChromium;

export function readBytes(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}
