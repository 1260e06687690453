/**
 * Screenshots of pages in headless Chromium: node screenshot.mjs SECONDS URL OUT.png [URL OUT.png ...]
 * After a page has loaded, its middle is looked at until it shows something that stays for a second,
 * SECONDS at most.
 */
import { launchChromium } from "../../viewers/web/build/chromium.mjs";

const MIDDLE = { x: 420, y: 250, width: 160, height: 100 };
const FLAT = 1500; // bytes of a PNG of one colour, and some more
const [seconds, ...pairs] = process.argv.slice(2);
const browser = await launchChromium();
for (let i = 0; i < pairs.length; i += 2) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 600 } });
  await page.goto(pairs[i], { waitUntil: "domcontentloaded" });
  let before = Buffer.alloc(0);
  for (let waited = 0; waited < Number(seconds); waited++) {
    await page.waitForTimeout(1000);
    const now = await page.screenshot({ clip: MIDDLE, timeout: 60_000 });
    if (now.length > FLAT && now.equals(before)) break;
    before = now;
  }
  await page.screenshot({ path: pairs[i + 1], timeout: 60_000 });
  await page.close();
}
await browser.close();
