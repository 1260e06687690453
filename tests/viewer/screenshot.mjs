/**
 * Screenshots of pages in headless Chromium: node screenshot.mjs SECONDS URL OUT.png [URL OUT.png ...]
 * SECONDS are waited after each page has loaded.
 */
import { launchChromium } from "../../viewers/web/build/chromium.mjs";

const [seconds, ...pairs] = process.argv.slice(2);
const browser = await launchChromium();
for (let i = 0; i < pairs.length; i += 2) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 600 } });
  await page.goto(pairs[i], { waitUntil: "domcontentloaded" });
  await page.waitForTimeout(1000 * Number(seconds));
  await page.screenshot({ path: pairs[i + 1], timeout: 60_000 });
  await page.close();
}
await browser.close();
