/**
 * What each group of engine patches costs: the bare PlayCanvas page with some of them.
 *
 *     node bench/patches.mjs [--scenes FOLDER] [--seconds 2] [--rounds 3] [--splats 10k]
 *
 * Needs 10k.ply of ball_scenes.py. Prints frames a second, and the processor time that Chromium's
 * GPU process (SwiftShader) takes for a frame, which other work on the machine disturbs less. Linux.
 */
import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { launchChromium } from "../build/chromium.mjs";

const WEB = join(import.meta.dirname, "..");
const BUILT = join(WEB, "node_modules/.benchmark-patches");
const option = (name, start) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? start : process.argv[at + 1];
};
const SCENES = option("scenes", join(WEB, "node_modules/.benchmark-scenes"));
const SECONDS = Number(option("seconds", "2"));
const VARIANTS = {
  none: "",
  lowpass: "lowpass",
  kernel: "kernel",
  jacobian: "jacobian",
  sort: "sort",
  all: "lowpass,kernel,jacobian,sort,rest",
};

function build() {
  for (const [name, groups] of Object.entries(VARIANTS)) {
    const env = { ...process.env, PATCHES: groups, OUT: join(BUILT, name) };
    const args = ["vite", "build", "--config", "bench/pages/vite.config.js", "--logLevel", "error"];
    execFileSync("npx", args, { cwd: WEB, env, stdio: "inherit" });
  }
}

async function serve() {
  const types = { ".html": "text/html", ".js": "text/javascript" };
  const server = createServer((req, res) => {
    const { pathname } = new URL(req.url, "http://x");
    const ply = extname(pathname) === ".ply";
    const file = ply ? join(SCENES, pathname) : join(BUILT, pathname);
    if (!existsSync(file)) return res.writeHead(404).end();
    res.writeHead(200, { "Content-Type": types[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(res);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** Milliseconds of processor time that the browser's GPU process has taken. */
function gpuTime() {
  const all = readdirSync("/proc").flatMap((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const words = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      // Ticks of 10 ms, in user and kernel mode.
      return [
        { pid: Number(pid), parent: Number(words[1]), ms: 10 * (+words[11] + +words[12]), command },
      ];
    } catch {
      return []; // not a process, or gone
    }
  });
  const mine = new Set([process.pid]);
  for (let before = 0; before < mine.size; ) {
    before = mine.size;
    for (const p of all) if (mine.has(p.parent)) mine.add(p.pid);
  }
  const gpu = all.filter((p) => mine.has(p.pid) && p.command.includes("type=gpu-process"));
  return gpu.reduce((sum, p) => sum + p.ms, 0);
}

async function measure(browser, address) {
  const page = await browser.newPage({ viewport: { width: 640, height: 480 } });
  await page.goto(address);
  while (!(await page.evaluate(() => Boolean(window.bench)))) await page.waitForTimeout(50);
  const run = (seconds) =>
    page.evaluate(async (s) => {
      await window.bench.ready;
      return window.bench.run(s);
    }, seconds);
  await run(0.5);
  const [start, before] = [performance.now(), gpuTime()];
  const fps = await run(SECONDS);
  const frames = (fps * (performance.now() - start)) / 1000;
  const ms = (gpuTime() - before) / frames;
  await page.close();
  return { fps, ms };
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

build();
const server = await serve();
const browser = await launchChromium();
const found = Object.fromEntries(Object.keys(VARIANTS).map((name) => [name, []]));
for (let round = 0; round < Number(option("rounds", "3")); round++) {
  for (const name of Object.keys(VARIANTS)) {
    const content = `content=/${option("splats", "10k")}.ply`;
    const address = `http://127.0.0.1:${server.address().port}/${name}/bare.html?${content}`;
    found[name].push(await measure(browser, address));
  }
}
console.log(
  "| patches | frames a second | GPU process, ms a frame | against none |\n|---|---|---|---|",
);
const none = median(found.none.map((r) => r.ms));
for (const [name, rounds] of Object.entries(found)) {
  const ms = median(rounds.map((r) => r.ms));
  const fps = median(rounds.map((r) => r.fps)).toFixed(1);
  console.log(`| ${name} | ${fps} | ${ms.toFixed(1)} | ${(ms / none).toFixed(2)} |`);
}
await browser.close();
server.close();
