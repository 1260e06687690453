/**
 * Makes docs/images/player-*.png: node bench/pictures.mjs SCENE CAPTURE [OUT]
 *
 * SCENE: any file that the player opens; CAPTURE: a bundle with training cameras. Needs the build
 * (npm run build) and Chromium; draws in software.
 */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, extname, join, resolve } from "node:path";
import { launchChromium } from "../build/chromium.mjs";

const ROOT = join(import.meta.dirname, "..");
const [scene, capture, out = join(ROOT, "../../docs/images")] = process.argv.slice(2);
if (!scene || !capture) throw new Error("node bench/pictures.mjs SCENE CAPTURE [OUT]");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const FILES = { [basename(scene)]: resolve(scene), [basename(capture)]: resolve(capture) };

const frame = `<!doctype html><body style="margin:0;font:18px/1.5 sans-serif;padding:32px 60px">
  <h1>A page of your own</h1><p>The player stands in a frame, among text and pictures.</p>
  <iframe style="width:100%;aspect-ratio:16/9;border:0" src="/?noanim&backend=webgl2&content=${basename(scene)}"></iframe>
  <p>The page scrolls over it.</p></body>`;

const server = createServer((request, response) => {
  const name = decodeURIComponent(new URL(request.url, "http://x").pathname.slice(1));
  if (name === "frame.html") {
    response.writeHead(200, { "Content-Type": "text/html" }).end(frame);
    return;
  }
  const file = FILES[name] ?? join(ROOT, "dist", name || "index.html");
  if (name.includes("..") || !existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
    "Content-Length": statSync(file).size,
  });
  createReadStream(file).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}`;
const browser = await launchChromium();

const DESKTOP = { viewport: { width: 1280, height: 720 } };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

async function shoot(name, path, options, act = async () => {}) {
  const context = await browser.newContext(options);
  await context.addInitScript(() => localStorage.setItem("scene4d-hint", "1"));
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`${url}/${path}`);
  const inner = () => page.frames().at(-1);
  const loaded = () =>
    inner()
      .evaluate(() => Boolean(window.scene4d?.ready))
      .catch(() => false);
  while (!(await loaded())) await page.waitForTimeout(100);
  await inner().evaluate(() => window.scene4d.ready);
  await act(page);
  await page.waitForTimeout(6000);
  await page.screenshot({ path: join(out, `${name}.png`), timeout: 120_000 });
  console.log(name);
  await context.close();
}

const of = (file, more) => `?noanim&backend=webgl2&content=${basename(file)}&${more}`;
await shoot("player-desktop-light", of(scene, "theme=light"), DESKTOP);
await shoot("player-desktop-dark", of(capture, "theme=dark&cameras"), DESKTOP);
await shoot("player-phone-light", of(scene, "theme=light"), PHONE);
await shoot("player-phone-dark", of(scene, "theme=dark&mode=walk"), PHONE);
await shoot("player-embedded", "frame.html", DESKTOP);
await browser.close();
server.close();
