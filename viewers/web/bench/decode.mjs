/**
 * Decode time of bundles in Node and headless Chromium against Python's numpy decoder.
 *
 *     npm run bench:decode -- A.s4d B.s4d      (SCENE4D_PYTHON names another Python)
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "vite";
import { launchChromium } from "../build/chromium.mjs";

const TIMES = 3;
const ROOT = join(import.meta.dirname, "..");
const PYTHON = `
import sys, time
from scene4d.bundle.container import open_bundle
from scene4d.bundle.kinds import decoded_splats
best, count = 1e9, 0
for _ in range(${TIMES} + 1):  # the first run compiles
    start = time.perf_counter()
    count = len(decoded_splats(open_bundle(sys.argv[1])))
    best = min(best, time.perf_counter() - start)
print(count, best)
`;

async function bundled(folder) {
  await build({
    root: ROOT,
    configFile: false,
    logLevel: "error",
    build: {
      outDir: folder,
      target: "es2022",
      lib: { entry: join(ROOT, "bench/decode.ts"), formats: ["es"], fileName: () => "decode.mjs" },
    },
  });
  return join(folder, "decode.mjs");
}

function inPython(file) {
  const python = [process.env.SCENE4D_PYTHON, join(ROOT, "../../.venv/bin/python")].find(
    (path) => path && existsSync(path),
  );
  if (!python) throw new Error("no Python with scene4d; set SCENE4D_PYTHON");
  const text = execFileSync(python, ["-c", PYTHON, file], { encoding: "utf8" });
  return Number(text.split(" ")[1]);
}

async function inChromium(module, file) {
  const pages = {
    "/": ["text/html", "<!doctype html>"],
    "/decode.mjs": ["text/javascript", readFileSync(module)],
    "/scene.s4d": ["application/octet-stream", readFileSync(file)],
  };
  const server = createServer((request, response) => {
    const [type, body] = pages[request.url] ?? ["text/plain", ""];
    response.writeHead(200, { "Content-Type": type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await launchChromium();
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    return await page.evaluate(async (times) => {
      const { decodeTimes } = await import("/decode.mjs");
      return decodeTimes(await (await fetch("/scene.s4d")).arrayBuffer(), times);
    }, TIMES);
  } finally {
    await browser.close();
    server.close();
  }
}

const only = process.env.BENCH_ONLY ?? "node,chromium,python";
const folder = mkdtempSync(join(tmpdir(), "decode-"));
try {
  const module = await bundled(folder);
  const { decodeTimes } = await import(pathToFileURL(module).href);
  for (const file of process.argv.slice(2)) {
    const bytes = new Uint8Array(readFileSync(file)).buffer;
    const node = await decodeTimes(bytes, TIMES);
    const each = (seconds) => `${((seconds / node.splats) * 1e6).toFixed(2)} s`;
    console.log(
      `${basename(file)}: ${node.splats} splats, ${bytes.byteLength} bytes; per million:`,
    );
    console.log(`  Node      ${each(node.seconds)}, with packing ${each(node.packed)}`);
    if (only.includes("chromium")) {
      const chrome = await inChromium(module, file);
      console.log(`  Chromium  ${each(chrome.seconds)}, with packing ${each(chrome.packed)}`);
    }
    if (only.includes("python")) console.log(`  numpy     ${each(inPython(file))}`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
