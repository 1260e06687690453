import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll } from "vitest";
import type { Scene4dApi } from "../../src/api";
import { DIST, launch, ROOT, type ServerOptions, serve } from "./harness";

declare global {
  interface Window {
    scene4d: Scene4dApi;
  }
}

export interface Bench {
  browser: Browser;
  url: string;
  /** Changes how the server answers; reset by assigning {}. */
  options: ServerOptions;
}

/** One browser and one server for a file of tests; `keep`: pages stay open from test to test. */
export function bench(backend: "webgl2" | "webgpu" = "webgl2", keep = false): Bench {
  const made = { options: {} } as Bench;
  let close = () => Promise.resolve();
  beforeAll(async () => {
    made.browser = await launch(backend);
    const options: ServerOptions = {
      get range() {
        return made.options.range ?? true;
      },
      intercept: (req, res) => made.options.intercept?.(req, res) ?? false,
    };
    const folders = {
      "/": DIST,
      "/fixtures/": `${ROOT}/tests/fixtures/`,
      "/bundles/": `${ROOT}/../../mobile_export/conformance/`,
    };
    const server = await serve(folders, options);
    made.url = server.url;
    close = server.close;
  });
  // A page that stays open goes on drawing and slows the next one down.
  afterEach(async () => {
    if (!keep) for (const context of made.browser.contexts()) await context.close();
  });
  afterAll(async () => {
    await made.browser?.close();
    await close();
  });
  return made;
}

/** Opens the player; `wait`: until the scene is there. Errors of the page fail the test. */
export async function open(
  b: Bench,
  query: string,
  options: BrowserContextOptions & {
    wait?: boolean;
    backend?: string;
    path?: string;
    /** Before the page's own scripts. */
    before?: (page: Page) => Promise<void>;
  } = {},
): Promise<Page & { problems: string[] }> {
  const { wait = true, backend = "webgl2", path = "/", before, ...context } = options;
  const page = (await (
    await b.browser.newContext({ viewport: { width: 640, height: 480 }, ...context })
  ).newPage()) as Page & { problems: string[] };
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (m) => {
    if (m.type() === "error" && /Content Security|violates/.test(m.text()))
      page.problems.push(m.text());
  });
  await before?.(page);
  await page.goto(`${b.url}${path}?backend=${backend}&${query}`);
  await until(page, () => Boolean(window.scene4d));
  if (wait) await page.evaluate(() => window.scene4d.ready);
  return page;
}

/** Waits for a condition in the page (the page's policy forbids Playwright's own way, eval). */
export async function until(page: Page, condition: () => boolean, ms = 20_000): Promise<void> {
  const end = Date.now() + ms;
  while (!(await page.evaluate(condition))) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
    await page.waitForTimeout(50);
  }
}

export const view = (page: Page) => page.evaluate(() => window.scene4d.getView());

/** Mean of all colours and the share of pixels that are not black, of what is drawn. */
export function picture(page: Page): Promise<{ mean: number; lit: number }> {
  return page.evaluate(async () => {
    const { data } = await window.scene4d.capture();
    let sum = 0;
    let lit = 0;
    for (let i = 0; i < data.length; i += 4) {
      const value = data[i]! + data[i + 1]! + data[i + 2]!;
      sum += value;
      if (value > 12) lit++;
    }
    return { mean: sum / ((3 * data.length) / 4), lit: lit / (data.length / 4) };
  });
}
