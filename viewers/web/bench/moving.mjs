/**
 * What a scene that moves costs: frames a second while the camera turns, with time standing and with
 * time going on by turns, and milliseconds of its parts. docs/player.md holds ours.
 *
 *     npm run build && node bench/moving.mjs FILE.s4d [--seconds 5] [--backends webgl2,webgpu]
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { launchChromium } from "../build/chromium.mjs";

const DIST = join(import.meta.dirname, "../dist");
const option = (name, start) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? start : process.argv[at + 1];
};
const FILE = process.argv[2];
const SECONDS = Number(option("seconds", "5"));
const ROUNDS = 3;
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css" };

const server = createServer((req, res) => {
  const path = new URL(req.url, "http://x").pathname;
  try {
    const bytes = readFileSync(
      path === "/scene.s4d" ? FILE : join(DIST, path === "/" ? "index.html" : path),
    );
    res.writeHead(200, {
      "Content-Type": TYPES[path.split(".").at(-1)] ?? (path === "/" ? "text/html" : "x"),
    });
    res.end(bytes);
  } catch {
    res.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

/** Turns the camera for some seconds: frames a second, and means of what the player says. */
async function turn({ seconds, playing }) {
  const api = window.scene4d;
  if (playing) api.play();
  else api.pause();
  const sums = { posesMs: 0, placesMs: 0, sortMs: 0 };
  let looks = 0;
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { position, target } = api.getView();
  const started = performance.now();
  const before = api.stats().frames;
  const [dx, dy, dz] = position.map((x, a) => x - target[a]);
  while (performance.now() - started < 1000 * seconds) {
    const angle = 0.2 * Math.sin((performance.now() - started) / 1000);
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const turned = [c * dx - s * dz, dy, s * dx + c * dz].map((x, a) => x + target[a]);
    api.setView({ position: turned, target }, true);
    await new Promise(requestAnimationFrame);
    // WebGPU takes frames faster than it draws them.
    await window.gpuDevice?.queue.onSubmittedWorkDone();
    const { sortMs, motion } = api.stats();
    sums.posesMs += motion?.posesMs ?? 0;
    sums.placesMs += motion?.placesMs ?? 0;
    sums.sortMs += sortMs;
    looks++;
  }
  const fps = (1000 * (api.stats().frames - before)) / (performance.now() - started);
  api.setView({ position, target }, true);
  for (const name of Object.keys(sums)) sums[name] /= looks;
  return { fps, ...sums };
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
console.log(
  "| back end | splats | still, frames/s | moving, frames/s | ratio | poses, ms | places, ms | sort, ms |",
);
console.log("|---|---|---|---|---|---|---|---|");
for (const backend of option("backends", "webgl2,webgpu").split(",")) {
  const browser = await launchChromium(backend);
  const page = await (
    await browser.newContext({ viewport: { width: 320, height: 240 } })
  ).newPage();
  await page.addInitScript(() => {
    const request = window.GPUAdapter?.prototype.requestDevice;
    if (!request) return;
    window.GPUAdapter.prototype.requestDevice = async function (...options) {
      window.gpuDevice = await request.apply(this, options);
      return window.gpuDevice;
    };
  });
  const { port } = server.address();
  await page.goto(
    `http://127.0.0.1:${port}/?content=scene.s4d&backend=${backend}&adaptive=0&noui&t=0`,
  );
  while (!(await page.evaluate(() => Boolean(window.scene4d)))) await page.waitForTimeout(50);
  await page.evaluate(() => window.scene4d.ready);
  await page.waitForTimeout(2000);
  const rounds = { still: [], moving: [] };
  for (let i = 0; i < ROUNDS; i++) {
    for (const playing of [false, true]) {
      const found = await page.evaluate(turn, { seconds: SECONDS, playing });
      rounds[playing ? "moving" : "still"].push(found);
    }
  }
  const of = (name, key) => mean(rounds[name].map((r) => r[key]));
  const [still, moving] = [of("still", "fps"), of("moving", "fps")];
  const { splats } = await page.evaluate(() => window.scene4d.stats());
  const parts = ["posesMs", "placesMs", "sortMs"].map((k) => of("moving", k).toFixed(1));
  console.log(
    `| ${backend} | ${splats} | ${still.toFixed(1)} | ${moving.toFixed(1)} | ${(moving / still).toFixed(2)} | ${parts.join(" | ")} |`,
  );
  await browser.close();
}
server.close();
