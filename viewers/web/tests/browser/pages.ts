import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, onTestFailed } from "vitest";
import type { Scene4dApi } from "../../src/api";
import { DIST, launch, ROOT, type ServerOptions, serve } from "./harness";

declare global {
  interface Window {
    scene4d: Scene4dApi;
  }
}

const DESK = { width: 640, height: 480 };
/** A window in which little is drawn, for what does not hang on its size. */
export const SMALL = { viewport: { width: 240, height: 180 } };
export const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

export interface Bench {
  browser: Browser;
  url: string;
  /** Changes how the server answers; reset by assigning {}. */
  options: ServerOptions;
  /** Stay open from test to test. */
  kept: Set<BrowserContext>;
}

type Backend = "webgl2" | "webgpu";

/**
 * The browsers of all files of tests, one for each back end: to start one and to compile its first
 * shaders takes both cores seconds. They end with the process.
 */
const browsers = new Map<Backend, Promise<Browser>>();

async function browserOf(backend: Backend): Promise<Browser> {
  const running = await browsers.get(backend);
  if (running?.isConnected()) return running;
  browsers.set(backend, launch(backend));
  return browsers.get(backend)!;
}

/**
 * Pages that no test needs any more, by the options of their context: another scene is opened on one
 * in two thirds of the time that a new one takes, with its process.
 */
const free: { page: Page; key: string }[] = [];
/** Those that may be used again, with the key of their options. */
const pooled = new Map<BrowserContext, { page: Page; key: string }>();

/** Leaves nothing of a test behind: no storage, no permission, no drawing. */
async function putBack(context: BrowserContext, url: string): Promise<void> {
  const again = pooled.get(context);
  pooled.delete(context);
  if (!again || again.page.isClosed() || context.pages().length !== 1) return context.close();
  const { page } = again;
  try {
    await page.evaluate(() => localStorage.clear());
    await context.clearPermissions();
    await page.goto(`${url}/nothing`); // about:blank would be another process
  } catch {
    return context.close(); // it has crashed
  }
  page.removeAllListeners();
  free.push(again);
}

/** A browser and a server of its own for a file of tests. */
export function bench(backend: Backend = "webgl2"): Bench {
  const made = { options: {}, kept: new Set() } as unknown as Bench;
  let close = () => Promise.resolve();
  beforeAll(async () => {
    made.browser = await browserOf(backend);
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
  const tidy = async (kept: Set<BrowserContext>) => {
    const idle = new Set(free.map(({ page }) => page.context()));
    for (const context of made.browser?.contexts() ?? [])
      if (!kept.has(context) && !idle.has(context)) await putBack(context, made.url);
  };
  // A page that moves goes on drawing and slows the next one down.
  afterEach(() => tidy(made.kept));
  afterAll(async () => {
    await tidy(new Set());
    await close();
  });
  return made;
}

/** A page with the errors that it reported. */
export type Opened = Page & { problems: string[] };

export type OpenOptions = BrowserContextOptions & {
  wait?: boolean;
  backend?: string;
  path?: string;
  /** Before the page's own scripts. */
  before?: (page: Page) => Promise<void>;
};

/** A page without anything, used or new; one with scripts of its own is for one test. */
async function blankPage(
  { browser }: Bench,
  options: BrowserContextOptions,
  before: OpenOptions["before"],
): Promise<Page> {
  const key = JSON.stringify(options);
  const fits = (one: (typeof free)[number]) =>
    one.key === key && one.page.context().browser() === browser && !one.page.isClosed();
  const found = before ? -1 : free.findIndex(fits);
  const used = found < 0 ? null : free.splice(found, 1)[0]!.page;
  const page = used ?? (await (await browser.newContext(options)).newPage());
  const { colorScheme, reducedMotion } = options;
  if (used) {
    if (options.viewport) await page.setViewportSize(options.viewport);
    await page.emulateMedia({
      colorScheme: colorScheme ?? "light",
      reducedMotion: reducedMotion ?? "no-preference",
    });
  }
  if (before) await before(page);
  else pooled.set(page.context(), { page, key });
  return page;
}

/** Opens the player; `wait`: until the scene is there. Errors of the page fail the test. */
export async function open(b: Bench, query: string, options: OpenOptions = {}): Promise<Opened> {
  const { wait = true, backend = "webgl2", path = "/", before, ...given } = options;
  const page = (await blankPage(b, { viewport: DESK, ...given }, before)) as Opened;
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (m) => {
    if (m.type() === "error" && /Content Security|violates/.test(m.text()))
      page.problems.push(m.text());
  });
  await page.goto(`${b.url}${path}?backend=${backend}&${query}`);
  await until(page, () => Boolean(window.scene4d));
  if (wait) await page.evaluate(() => window.scene4d.ready);
  return page;
}

/**
 * One page for the tests of a file that need no fresh one (to open one takes both cores a second):
 * each finds it at its first view, in orbit, with everything shut. After a failed test the next one
 * gets a new page.
 */
export function shared(b: Bench, query: string, options: OpenOptions = {}): () => Promise<Opened> {
  let opened: Promise<Opened> | null = null;
  return async () => {
    onTestFailed(async () => {
      const page = await opened?.catch(() => null);
      if (page) b.kept.delete(page.context());
      opened = null;
    });
    opened ??= open(b, query, options);
    const page = await opened;
    b.kept.add(page.context());
    await page.evaluate(() => {
      document.querySelector<HTMLDialogElement>("dialog[open]")?.close();
      (document.activeElement as HTMLElement | null)?.blur();
    });
    await page.keyboard.press("Escape");
    // Keys that the test before pressed move the camera in the next frame, and a click of it when
    // what it hit has been found: both are before what follows.
    await frames(page, 2);
    await page.evaluate(async () => {
      if (window.scene4d.bounds()) await window.scene4d.pick(0, 0);
      window.scene4d.setMode("orbit");
      window.scene4d.reset();
    });
    return page;
  };
}

/** How a scene that is opened on the page fails: a message's kind, its heading and its words. */
export async function failureOf(page: Page, url: string): Promise<Record<string, string>> {
  return page.evaluate(async (address) => {
    await window.scene4d.open(address).catch(() => {});
    const message = document.querySelector<HTMLElement>("#message");
    const text = (part: string) => message?.querySelector(part)?.textContent ?? "";
    return { kind: message?.dataset.kind ?? "", heading: text("h2"), words: text("p") };
  }, url);
}

/** Waits for a condition in the page (the page's policy forbids Playwright's own way, eval). */
export async function until(page: Page, condition: () => boolean, ms = 20_000): Promise<void> {
  const end = Date.now() + ms;
  while (!(await page.evaluate(condition))) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
    await page.waitForTimeout(50);
  }
}

/** Waits for so many more of the browser's frames. */
export const frames = (page: Page, count: number) =>
  page.evaluate(async (n) => {
    for (let i = 0; i < n; i++) await new Promise(requestAnimationFrame);
  }, count);

/** Nothing is drawn from now on but what is captured: software drawing is slow. */
export const still = (page: Page) =>
  page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });

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
