/**
 * The player's bytes, loading times and frame rates; docs/player-benchmarks.md holds ours.
 *
 *     make benchmark-player            everything, about 10 minutes on 2 cores
 *     node bench/player.mjs size|loading|frames [--scenes FOLDER] [--seconds 5] [--pictures FOLDER]
 *
 * Needs what ball_scenes.py wrote (to FOLDER, node_modules/.benchmark-scenes), and `npm run build`.
 */
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { gzipSync } from "node:zlib";
import { launchChromium } from "../build/chromium.mjs";

const WEB = join(import.meta.dirname, "..");
const DIST = join(WEB, "dist");
const PAGES = join(WEB, "node_modules/.benchmark-pages");
const option = (name, start) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? start : process.argv[at + 1];
};
const SCENES = option("scenes", join(WEB, "node_modules/.benchmark-scenes"));
const SECONDS = Number(option("seconds", "5"));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
/** Mbit/s down and milliseconds until an answer begins. */
const NETWORKS = {
  "Wi-Fi 50 Mbit/s": [50, 10],
  "4G 12 Mbit/s": [12, 60],
  "3G 1.6 Mbit/s": [1.6, 150],
};

/** A file server with Range, as slow as `link` says: all connections share its bytes a second. */
async function serve(link) {
  let free = 0;
  const server = createServer(async (req, res) => {
    const path = normalize(decodeURIComponent(new URL(req.url, "http://x").pathname));
    const [root, rest] = path.startsWith("/scenes/")
      ? [SCENES, path.slice(8)]
      : path.startsWith("/pages/")
        ? [PAGES, path.slice(7)]
        : [DIST, path === "/" ? "index.html" : path];
    const file = join(root, rest);
    if (link) await new Promise((resolve) => setTimeout(resolve, link[1]));
    if (!file.startsWith(root) || !existsSync(file)) return res.writeHead(404).end();
    const size = statSync(file).size;
    const range = /bytes=(\d+)-(\d*)/.exec(req.headers.range ?? "");
    const first = range ? Number(range[1]) : 0;
    const last = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    const headers = { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" };
    // Text goes gzipped, as hosts send it.
    if (!range && TYPES[extname(file)]) {
      const body = gzipSync(readFileSync(file));
      res.writeHead(200, { ...headers, "Content-Encoding": "gzip", "Content-Length": body.length });
      await trickle(res, [body]);
      return res.end();
    }
    headers["Content-Length"] = last - first + 1;
    if (range) headers["Content-Range"] = `bytes ${first}-${last}/${size}`;
    res.writeHead(range ? 206 : 200, headers);
    await trickle(res, createReadStream(file, { start: first, end: last, highWaterMark: 16384 }));
    res.end();
  });
  async function trickle(res, parts) {
    for await (const whole of parts) {
      for (let at = 0; at < whole.length; at += 16384) {
        const part = whole.subarray(at, at + 16384);
        if (link) {
          free = Math.max(free, performance.now()) + part.length / (link[0] * 125);
          await new Promise((resolve) => setTimeout(resolve, free - performance.now()));
        }
        if (res.destroyed) return;
        res.write(part);
      }
    }
  }
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => server.closeAllConnections() ?? server.close(),
  };
}

async function until(page, condition, ms = 300_000) {
  const end = Date.now() + ms;
  while (!(await page.evaluate(condition))) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms`);
    await page.waitForTimeout(100);
  }
}

function size() {
  console.log("\n| JavaScript | bytes | gzip |\n|---|---|---|");
  let sum = 0;
  for (const name of readdirSync(join(DIST, "assets")).filter((n) => n.endsWith(".js"))) {
    const bytes = readFileSync(join(DIST, "assets", name));
    const packed = gzipSync(bytes, { level: 9 }).length;
    sum += packed;
    console.log(`| ${name.replace(/-[\w-]{8}\./, ".")} | ${bytes.length} | ${packed} |`);
  }
  console.log(`| both | | ${sum} |`);
}

/** In the page, before its own scripts: notes when the poster and the first splats are there. */
function watch() {
  window.times = {};
  const note = (name, reached) => {
    if (reached && !(name in window.times)) window.times[name] = performance.now();
  };
  const timer = setInterval(() => {
    const poster = document.querySelector("#poster");
    note("poster", poster && !poster.hidden && poster.complete && poster.naturalWidth > 0);
    const stats = window.scene4d?.stats?.();
    note("first", stats && stats.splats > 0);
    if (window.scene4d?.ready && !window.waiting) {
      window.waiting = true;
      window.scene4d.ready.then(() => {
        note("full", true);
        clearInterval(timer);
      });
    }
  }, 20);
}

async function loading(browser) {
  console.log("\n| network | bundle | the link alone | poster | first splats | whole scene |");
  console.log("|---|---|---|---|---|---|");
  for (const [network, link] of Object.entries(NETWORKS)) {
    for (const name of ["1mb", "5mb", "20mb"]) {
      const bytes = statSync(join(SCENES, `${name}.s4d`)).size;
      if (bytes / (link[0] * 125_000) > 40) continue;
      const server = await serve(link);
      // As small as a window can be: the software renderer is not what is measured here.
      const context = await browser.newContext({ viewport: { width: 64, height: 48 } });
      const page = await context.newPage();
      await page.addInitScript(watch);
      await page.goto(`${server.url}/?backend=webgl2&noui&content=/scenes/${name}.s4d`);
      await until(page, () => "full" in window.times);
      const { poster, first, full } = await page.evaluate(() => window.times);
      const s = (ms) => `${(ms / 1000).toFixed(1)} s`;
      const alone = s(bytes / (link[0] * 125) + link[1]);
      console.log(
        `| ${network}, ${link[1]} ms | ${(bytes / 1e6).toFixed(1)} MB | ${alone} | ${s(poster)} | ${s(first)} | ${s(full)} |`,
      );
      await context.close();
      server.close();
    }
  }
}

/** In the player's page: the camera path of pages/path.js. */
async function playerFrames(seconds) {
  const api = window.scene4d;
  await api.ready;
  const at = (frame) => {
    const angle = (2 * Math.PI * frame) / 240;
    return [2.6 * Math.cos(angle), 0.6, 2.6 * Math.sin(angle)];
  };
  return new Promise((resolve) => {
    let [frame, start, before] = [0, 0, 0];
    const tick = (now) => {
      if (!start && frame === 10) [start, before] = [now, api.stats().frames];
      if (start && now - start > 1000 * seconds)
        return resolve((1000 * (api.stats().frames - before)) / (now - start));
      api.setView({ position: at(frame++), target: [0, 0, 0] }, true);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
}

async function frames(browser) {
  const server = await serve(null);
  console.log(
    "\n| splats | round | this player | bare PlayCanvas | Spark |\n|---|---|---|---|---|",
  );
  for (const name of ["10k", "50k"]) {
    for (let round = 1; round <= 3; round++) {
      const found = [];
      for (const who of ["player", "bare", "spark"]) {
        const context = await browser.newContext({ viewport: { width: 640, height: 480 } });
        const page = await context.newPage();
        page.on("pageerror", (error) => console.error(`${who}: ${error.message}`));
        const content = `content=/scenes/${name}.ply`;
        if (who === "player") {
          // FOV is vertical in the others: across the larger side that is 63.75 degrees.
          const query = `backend=webgl2&noui&noanim&adaptive=0&quality=5&up=y&bg=000000&fov=63.7516`;
          await page.goto(`${server.url}/?${query}&${content}`);
          await until(page, () => Boolean(window.scene4d));
          found.push(await page.evaluate(playerFrames, SECONDS));
        } else {
          await page.goto(`${server.url}/pages/${who}.html?${content}`);
          await until(page, () => Boolean(window.bench));
          found.push(
            await page.evaluate(async (s) => {
              await window.bench.ready;
              return window.bench.run(s);
            }, SECONDS),
          );
        }
        const pictures = option("pictures", null);
        if (pictures) await page.screenshot({ path: join(pictures, `${name}-${who}.png`) });
        await context.close();
      }
      const cells = found.map((fps) => `${fps.toFixed(2)} (${(found[0] / fps).toFixed(2)}x)`);
      console.log(`| ${name} | ${round} | ${cells.join(" | ")} |`);
    }
  }
  console.log("in brackets: how many times as fast the player is");
  server.close();
}

const wanted = process.argv.slice(2).filter((a) => /^(size|loading|frames)$/.test(a));
const browser = await launchChromium();
for (const part of wanted.length ? wanted : ["size", "loading", "frames"])
  await { size, loading, frames }[part](browser);
await browser.close();
