/**
 * Screenshots of pages in headless Chromium: node screenshot.mjs SECONDS URL OUT.png [URL OUT.png ...]
 * SECONDS are waited after each page has loaded.
 */
import { existsSync } from "node:fs";
import { chromium } from "../../viewers/web/node_modules/playwright-core/index.mjs";

const [seconds, ...pairs] = process.argv.slice(2);
const places = [
  process.env.SCENE4D_CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
];
const browser = await chromium.launch({
  executablePath: places.find((path) => path && existsSync(path)),
  args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});
for (let i = 0; i < pairs.length; i += 2) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 600 } });
  await page.goto(pairs[i], { waitUntil: "domcontentloaded" });
  await page.waitForTimeout(1000 * Number(seconds));
  await page.screenshot({ path: pairs[i + 1], timeout: 60_000 });
  await page.close();
}
await browser.close();
