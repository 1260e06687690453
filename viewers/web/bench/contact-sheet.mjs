/**
 * First views of files in four windows, side by side: node bench/contact-sheet.mjs OUT.png FILE ...
 *
 * FILE: anything that the player opens, also a SOG folder's meta.json. Rows are files; columns are
 * windows: 16:9, 4:3, a phone upright, a phone on its side. Needs the build (npm run build, or
 * --dist FOLDER for another one) and Chromium; draws in software.
 */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, dirname, extname, join, normalize, resolve } from "node:path";
import { launchChromium } from "../build/chromium.mjs";

const given = process.argv.slice(2);
const at = given.indexOf("--dist");
const dist = at < 0 ? join(import.meta.dirname, "../dist") : given.splice(at, 2)[1];
const [out, ...files] = given;
if (!out || files.length === 0) throw new Error("node bench/contact-sheet.mjs OUT.png FILE ...");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const phone = { hasTouch: true, isMobile: true };
const WINDOWS = [
  { viewport: { width: 960, height: 540 } },
  { viewport: { width: 800, height: 600 } },
  { viewport: { width: 390, height: 844 }, ...phone },
  { viewport: { width: 844, height: 390 }, ...phone },
];
const ROW = 300; // pixels of the sheet

/** /N/name is a file beside the Nth one; all else is the player's. */
const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
  const [, number, rest] = /^\/(\d+)\/(.+)$/.exec(path) ?? [];
  const file = rest
    ? join(dirname(resolve(files[number])), rest)
    : join(dist, path === "/" ? "index.html" : path);
  if (!existsSync(file) || !statSync(file).isFile()) {
    response.writeHead(404).end();
    return;
  }
  const type = TYPES[extname(file)] ?? "application/octet-stream";
  response.writeHead(200, { "Content-Type": type, "Content-Length": statSync(file).size });
  createReadStream(file).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}`;
const browser = await launchChromium();

async function shoot(number, options) {
  const context = await browser.newContext(options);
  await context.addInitScript(() => localStorage.setItem("scene4d-hint", "1"));
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const content = `/${number}/${basename(files[number])}`;
  await page.goto(`${url}/?noanim&backend=webgl2&content=${encodeURIComponent(content)}`);
  const loaded = () => page.evaluate(() => Boolean(window.scene4d));
  while (!(await loaded())) await page.waitForTimeout(100);
  await page.evaluate(() => window.scene4d.ready.catch(() => {}));
  await page.waitForTimeout(2000); // the sort, and the pivot that is looked for
  const png = await page.screenshot({ timeout: 120_000 });
  await context.close();
  return png.toString("base64");
}

let rows = "";
for (const number of files.keys()) {
  rows += `<p>${basename(dirname(resolve(files[number])))}/${basename(files[number])}</p><div>`;
  for (const options of WINDOWS)
    rows += `<img height="${ROW}" src="data:image/png;base64,${await shoot(number, options)}">`;
  rows += "</div>";
  console.log(files[number]);
}
const page = await browser.newPage({ viewport: { width: 1760, height: 900 } });
page.setDefaultTimeout(300_000);
await page.setContent(`<body style="font:14px sans-serif;white-space:nowrap">${rows}</body>`);
await page.screenshot({ path: out, fullPage: true });
await browser.close();
server.close();
