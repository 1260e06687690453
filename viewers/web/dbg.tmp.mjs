import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";
// tests/browser/harness.ts
/** A static server with Range and a headless Chromium, for tests and for looking at the player. */
const ROOT = join("/work/wt/player/viewers/web");
join(ROOT, "dist");
const TYPES = {
	".html": "text/html",
	".js": "text/javascript",
	".css": "text/css",
	".json": "application/json",
	".svg": "image/svg+xml",
	".webp": "image/webp",
	".png": "image/png",
	".jpg": "image/jpeg"
};
/** Serves URL prefixes from folders. */
async function serve(folders, options = {}) {
	const server = createServer((req, res) => answer(req, res, folders, options));
	await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
	const { port } = server.address();
	return {
		url: `http://127.0.0.1:${port}`,
		close: () => new Promise((resolve) => {
			server.close(() => resolve());
			server.closeAllConnections();
		})
	};
}
function answer(req, res, folders, options) {
	if (options.intercept?.(req, res)) return;
	const path = decodeURIComponent(new URL(req.url, "http://x").pathname);
	const prefix = Object.keys(folders).sort((a, b) => b.length - a.length).find((p) => path.startsWith(p));
	const relative = prefix === void 0 ? "" : normalize(path.slice(prefix.length));
	let file = prefix === void 0 ? "" : join(folders[prefix], relative);
	if (file && existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
	if (!file || relative.startsWith("..") || !existsSync(file)) {
		res.writeHead(404).end("not found");
		return;
	}
	const size = statSync(file).size;
	const headers = {
		"Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
		"Cache-Control": "no-store"
	};
	const match = options.range === false ? null : /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? "");
	if (options.range !== false) headers["Accept-Ranges"] = "bytes";
	const start = match ? Number(match[1]) : 0;
	const end = match?.[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
	if (match) headers["Content-Range"] = `bytes ${start}-${end}/${size}`;
	headers["Content-Length"] = String(Math.max(0, end - start + 1));
	res.writeHead(match ? 206 : 200, headers);
	if (size === 0 || req.method === "HEAD") res.end();
	else createReadStream(file, {
		start,
		end
	}).pipe(res);
}
const WEBGL = [
	"--no-sandbox",
	"--use-angle=swiftshader",
	"--enable-unsafe-swiftshader"
];
const WEBGPU = [
	"--no-sandbox",
	"--enable-unsafe-webgpu",
	"--enable-features=Vulkan",
	"--use-angle=swiftshader",
	"--use-vulkan=swiftshader",
	"--ignore-gpu-blocklist",
	"--disable-vulkan-surface",
	"--use-webgpu-adapter=swiftshader"
];
function chromiumPath() {
	const found = [
		process.env.SCENE4D_CHROMIUM,
		"/usr/bin/chromium",
		"/usr/bin/chromium-browser",
		"/usr/bin/google-chrome"
	].find((p) => p && existsSync(p));
	if (!found) throw new Error("no Chromium; install it or set SCENE4D_CHROMIUM");
	return found;
}
function launch(backend = "webgl2") {
	const args = backend === "webgpu" ? WEBGPU : WEBGL;
	return chromium.launch({
		executablePath: chromiumPath(),
		args,
		headless: true
	});
}
// ../../../../../tmp/dbg.mts
const server = await serve({
	"/": ROOT + "/dist",
	"/fixtures/": ROOT + "/tests/fixtures/"
});
const browser = await launch("webgl2");
const page = await (await browser.newContext({ viewport: {
	width: 640,
	height: 480
} })).newPage();
page.on("pageerror", (e) => console.log("ERR", e.message));
page.on("console", (m) => console.log(m.text()));
await page.goto(`${server.url}/?backend=webgl2&noanim&content=/fixtures/chair.s4d`);
while (!await page.evaluate(() => Boolean(window.scene4d))) await page.waitForTimeout(50);
await page.evaluate(() => window.scene4d.ready);
const t = Date.now();
page.on("download", (d) => console.log("DOWNLOAD", d.suggestedFilename(), Date.now() - t));
await page.keyboard.press("p");
for (let i = 0; i < 12; i++) {
	await page.waitForTimeout(2500);
	console.log(Date.now() - t, await page.evaluate(() => [document.querySelector("#toast").textContent, window.scene4d.stats().frames]));
}
await browser.close();
await server.close();
export {};
