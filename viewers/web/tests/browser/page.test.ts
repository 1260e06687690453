import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { kinds } from "../../src/decode/bundle/kinds";
import { apart, distance, sizes } from "./gestures";
import { DIST, ROOT, serve } from "./harness";
import { bench, frames, open, SMALL, shared, until, view } from "./pages";

const b = bench();
const CHAIR = "content=/fixtures/chair.s4d&noanim";
const PHONE = { viewport: { width: 390, height: 700 }, hasTouch: true, isMobile: true };

/** A busy machine draws a frame in seconds. */
const SOON = { timeout: 15_000 };
const label = (page: Page, name: string) => page.click(`button[aria-label="${name}"]`);

const chair = shared(b, CHAIR);
/** Few splats, coarsely: software draws so many pixels slowly. */
const phone = shared(b, `${CHAIR}&quality=1`, PHONE);

describe("cameras", () => {
  it("orbit by dragging, zoom by the wheel, shift by the right button", async () => {
    const page = await chair();
    const start = await view(page);
    await page.mouse.move(300, 200);
    await page.mouse.down();
    await page.mouse.move(400, 200, { steps: 4 });
    await page.mouse.up();
    const turned = await view(page);
    expect(apart(turned.target, start.target)).toBeLessThan(1e-6);
    expect(distance(turned)).toBeCloseTo(distance(start), 5);
    expect(apart(turned.position, start.position)).toBeGreaterThan(0.2);
    await page.mouse.wheel(0, 300);
    await expect
      .poll(async () => distance(await view(page)), SOON)
      .toBeGreaterThan(1.2 * distance(turned));
    await page.mouse.down({ button: "right" });
    await page.mouse.move(460, 260, { steps: 4 });
    await page.mouse.up({ button: "right" });
    expect(apart((await view(page)).target, turned.target)).toBeGreaterThan(0.1);
  });

  it("fly and walk by keys, and come back by R and F", async () => {
    const page = await chair();
    const start = await view(page);
    await page.keyboard.press("2");
    expect(await page.getAttribute('[aria-label="Fly"]', "aria-checked")).toBe("true");
    await page.keyboard.down("KeyW");
    await expect
      .poll(async () => apart((await view(page)).position, start.position), SOON)
      .toBeGreaterThan(0.05);
    await page.keyboard.up("KeyW");
    await frames(page, 2);
    const flown = await view(page);
    await page.keyboard.press("3");
    await page.keyboard.down("KeyE");
    await frames(page, 4);
    await page.keyboard.up("KeyE");
    // Walking keeps its level.
    expect((await view(page)).position[2]).toBeCloseTo(flown.position[2], 5);
    await page.keyboard.press("r");
    expect(apart((await view(page)).position, start.position)).toBeLessThan(1e-6);
    await page.keyboard.press("1");
    await page.keyboard.press("f");
    expect(distance(await view(page))).toBeGreaterThan(0.5);
  });

  it("focus on a click and fly there on a double click", async () => {
    const page = await chair();
    const start = await view(page);
    const hit = await page.evaluate(() => window.scene4d.pick(300, 260));
    expect(hit).not.toBeNull();
    await page.mouse.click(300, 260);
    await expect.poll(async () => apart((await view(page)).target, hit!), SOON).toBeLessThan(1e-3);
    const focused = await view(page);
    expect(apart(focused.position, start.position)).toBeLessThan(1e-6);
    // What has the focus stands in the middle of what the toolbar leaves, far from the first click.
    const { K } = await page.evaluate(() => window.scene4d.camera());
    await page.mouse.dblclick(K[2]!, K[5]!);
    await expect
      .poll(async () => distance(await view(page)), SOON)
      .toBeLessThan(0.6 * distance(focused));
    // A click into the void changes nothing.
    const before = await view(page);
    await page.keyboard.press("r");
    const home = await view(page);
    await page.mouse.click(3, 3);
    // Answered in the order of asking: then the click's own has been.
    expect(await page.evaluate(() => window.scene4d.pick(3, 3))).toBeNull();
    expect(before).not.toEqual(home);
    expect(await view(page)).toEqual(home);
  });

  it("take a touch to turn, two to pinch", async () => {
    const page = await phone();
    const session = await page.context().newCDPSession(page);
    const touch = (type: string, points: [number, number][]) =>
      session.send("Input.dispatchTouchEvent", {
        type: type as "touchStart",
        touchPoints: points.map(([x, y], id) => ({ x, y, id })),
      });
    const start = await view(page);
    await touch("touchStart", [[200, 300]]);
    await touch("touchMove", [[240, 300]]);
    await touch("touchMove", [[280, 320]]);
    await touch("touchEnd", []);
    const turned = await view(page);
    expect(apart(turned.position, start.position)).toBeGreaterThan(0.1);
    await touch("touchStart", [
      [180, 300],
      [220, 300],
    ]);
    await touch("touchMove", [
      [150, 300],
      [250, 300],
    ]);
    await touch("touchMove", [
      [100, 300],
      [300, 300],
    ]);
    await touch("touchEnd", []);
    expect(distance(await view(page))).toBeLessThan(0.5 * distance(turned));
  });

  it("show a joystick on phones that walks", async () => {
    const page = await phone();
    expect(await page.isVisible("#stick")).toBe(false);
    await page.tap('[aria-label="Walk"]');
    const start = await view(page);
    const box = (await page.locator("#stick").boundingBox())!;
    await page.mouse.move(box.x + 56, box.y + 56);
    await page.mouse.down();
    await page.mouse.move(box.x + 56, box.y + 10, { steps: 3 });
    await expect
      .poll(async () => apart((await view(page)).position, start.position), SOON)
      .toBeGreaterThan(0.03);
    await page.mouse.up();
  });

  it("obey a gamepad", async () => {
    const page = await chair();
    await page.evaluate(() => window.scene4d.setMode("fly"));
    const start = await view(page);
    await page.evaluate(() => {
      const pad = { connected: true, axes: [0, -1, 0.5, 0], buttons: [] };
      navigator.getGamepads = () => [pad as unknown as Gamepad];
    });
    const away = async () => apart((await view(page)).position, start.position);
    await expect.poll(away, SOON).toBeGreaterThan(0.05);
    await page.evaluate(() => {
      navigator.getGamepads = () => [];
    });
  });

  it("look through the training cameras, with their lens", async () => {
    const page = await chair();
    await page.keyboard.press("]");
    expect(await page.textContent("#through span")).toContain("view 0");
    await page.keyboard.press("]");
    expect(await page.textContent("#through span")).toContain("view 1");
    await page.keyboard.press("[");
    await page.keyboard.press("[");
    expect(await page.textContent("#through span")).toContain("view 3");
    await page.keyboard.press("Escape");
    expect(await page.isVisible("#through")).toBe(false);
    await page.keyboard.press("]");
    await page.mouse.move(300, 200);
    await page.mouse.down();
    await page.mouse.move(340, 200, { steps: 3 });
    await page.mouse.up();
    expect(await page.isVisible("#through")).toBe(false);
  });
});

describe("page", () => {
  it("has a name on every control, and a help that opens and closes by keys", async () => {
    const page = await chair();
    const names = await page.$$eval("button", (all) =>
      all.map((x) => x.getAttribute("aria-label") ?? x.textContent),
    );
    expect(names.every((name) => name && name.length > 2)).toBe(true);
    await page.keyboard.press("h");
    expect(await page.isVisible("#help")).toBe(true);
    await page.keyboard.press("Escape");
    expect(await page.isVisible("#help")).toBe(false);
    // From the page's start.
    await page.evaluate(() => {
      document.body.tabIndex = -1;
      document.body.focus();
      document.body.removeAttribute("tabindex");
    });
    await page.keyboard.press("Tab");
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
    expect(await focused()).toContain("3D scene");
    await page.keyboard.press("Tab");
    expect(await focused()).toBe("Orbit");
  });

  it("has figures, settings and a quality slider that takes effect", async () => {
    const page = await chair();
    await page.keyboard.press("i");
    expect(await page.textContent("#stats")).toContain("5,000 / 5,000");
    await label(page, "Settings");
    const level = await page.inputValue("#quality");
    await page.fill("#quality", "1");
    const low = await page.evaluate(() => window.scene4d.stats());
    // A fifth of the splats (the first stage) at half the resolution.
    expect([low.splats, low.width]).toEqual([1000, 320]);
    await page.fill("#quality", "5");
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    await page.selectOption("#theme", "dark");
    const dark = await page.evaluate(
      () => getComputedStyle(document.querySelector("#toolbar")!).color,
    );
    await page.selectOption("#theme", "light");
    const light = await page.evaluate(
      () => getComputedStyle(document.querySelector("#toolbar")!).color,
    );
    expect(dark).not.toBe(light);
    await page.selectOption("#theme", "auto");
    await page.fill("#quality", level);
    await page.keyboard.press("Escape");
    await page.keyboard.press("i");
    expect(await page.isVisible("#stats")).toBe(false);
  });

  it("follows the system's light or dark, and reduced motion", async () => {
    const page = await open(b, "content=/fixtures/chair.s4d", {
      ...SMALL,
      colorScheme: "light",
      reducedMotion: "reduce",
    });
    const colours = () =>
      page.evaluate(async () => {
        const { data } = await window.scene4d.capture({ width: 16, height: 12 });
        return [getComputedStyle(document.querySelector("#toolbar")!).color, ...data.slice(0, 3)];
      });
    const light = await colours();
    // A grey behind the scene, from which dark and light things both stand out.
    expect(light.slice(1)).toEqual([204, 207, 212]);
    await page.emulateMedia({ colorScheme: "dark" });
    await expect.poll(async () => (await colours())[0], SOON).not.toBe(light[0]);
    expect((await colours()).slice(1)).toEqual([69, 71, 77]);
    /** Presses a key: how far the camera is drawn from where it goes, one frame later. */
    const behind = (key: string) =>
      page.evaluate(async (pressed) => {
        window.scene4d.setView({ position: [1, 3, 2.5], target: [0, 0, 0] }, true);
        window.dispatchEvent(new KeyboardEvent("keydown", { key: pressed }));
        await new Promise(requestAnimationFrame);
        const { position } = window.scene4d.getView();
        const { c2w } = window.scene4d.camera();
        return Math.hypot(...position.map((x, a) => x - c2w[4 * a + 3]!));
      }, key);
    expect(await behind("f")).toBeLessThan(1e-6);
    expect(await behind("r")).toBeLessThan(1e-6);
    await page.emulateMedia({ reducedMotion: "no-preference" });
    await expect.poll(() => behind("r"), SOON).toBeGreaterThan(0.05);
  });

  it("fits a phone: nothing sticks out of the screen", async () => {
    const page = await phone();
    await page.keyboard.press("i");
    const wide = await page.evaluate(() => {
      const toolbar = document.querySelector("#toolbar")!;
      return [document.documentElement.scrollWidth, toolbar.scrollWidth - toolbar.clientWidth];
    });
    await page.keyboard.press("i");
    expect(wide).toEqual([390, 0]);
  });

  it("measures between two clicks", async () => {
    const page = await chair();
    const points = await page.evaluate(async () => [
      await window.scene4d.pick(300, 260),
      await window.scene4d.pick(340, 200),
    ]);
    await page.keyboard.press("m");
    await page.mouse.click(300, 260);
    // Answered in the order of asking: the first click has found its point.
    await page.evaluate(() => window.scene4d.pick(3, 3));
    await page.mouse.click(340, 200);
    await until(page, () => /\d units/.test(document.querySelector("#toast")!.textContent!));
    const shown = Number.parseFloat((await page.textContent("#toast"))!);
    expect(shown).toBeCloseTo(apart(points[0]!, points[1]!), 2);
  });

  it("compares itself with the trainer's pictures", async () => {
    const page = await chair();
    const before = await view(page);
    await label(page, "Settings");
    await page.click("#fidelity");
    await until(page, () =>
      /^\d\d\.\d - \d\d\.\d dB/.test(document.querySelector("#toast")!.textContent!),
    );
    expect(Number.parseFloat((await page.textContent("#toast"))!)).toBeGreaterThan(52);
    expect(await view(page)).toEqual(before);
  });

  it("goes through notes of a settings file", async () => {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    const settings = {
      version: 1,
      content: "/fixtures/chair.s4d",
      noanim: true,
      annotations: [
        { title: "Seat", text: "Soft.", position: [0, 0, 0] },
        {
          title: "Back",
          position: [0, 0.2, 0.3],
          view: { position: [2, 0, 0], target: [0, 0.2, 0.3] },
        },
      ],
    };
    writeFileSync(join(folder, "settings.json"), JSON.stringify(settings));
    const server = await serve({
      "/": DIST,
      "/s/": folder,
      "/fixtures/": `${ROOT}/tests/fixtures/`,
    });
    const page = await open({ ...b, url: server.url }, "settings=/s/settings.json", SMALL);
    expect(await page.locator(".note").count()).toBe(2);
    await page.evaluate(() => window.scene4d.nextNote(1));
    expect(await page.textContent("#note-card")).toContain("Soft.");
    await page.click('#note-card [aria-label="Next"]');
    expect(await page.textContent("#note-card")).toContain("2. Back");
    expect(apart((await view(page)).position, [2, 0, 0])).toBeLessThan(1e-6);
    await server.close();
  });

  it("takes a picture that is not blank", async () => {
    const page = await open(b, CHAIR, SMALL);
    await page.evaluate(() => {
      const toast = document.querySelector("#toast")!;
      const said: (string | null)[] = [];
      new MutationObserver(() => said.push(toast.textContent)).observe(toast, { childList: true });
      Object.assign(window, { said });
    });
    const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("p")]);
    expect(download.suggestedFilename()).toBe("scene.png");
    const said = () => page.evaluate(() => (window as unknown as { said: string[] }).said);
    await expect.poll(said, SOON).toEqual(["Drawing the picture", "Picture saved"]);
    const { size, colours } = await page.evaluate(async () => {
      const bitmap = await createImageBitmap(await window.scene4d.screenshot());
      const { width, height } = bitmap;
      const context = new OffscreenCanvas(width, height).getContext("2d")!;
      context.drawImage(bitmap, 0, 0);
      const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
      return { size: [width, height], colours: new Set(pixels).size };
    });
    expect(size).toEqual([240, 180]);
    expect(colours).toBeGreaterThan(100);
  });

  it("shares a link with the view, lens, up, background and quality", async () => {
    const page = await open(b, CHAIR, { viewport: { width: 400, height: 300 } });
    await label(page, "Settings");
    await page.fill("#fov", "40");
    await page.fill("#quality", "2");
    await page.selectOption("#up", "x");
    await page.fill("#colour", "#336699");
    await page.evaluate(() =>
      window.scene4d.setView({ position: [1, 2, 1.5], target: [0.1, 0, 0.2] }, true),
    );
    const link = await page.evaluate(() => window.scene4d.link());
    for (const part of ["view=1,2,1.5,0.1,0,0.2", "fov=40", "quality=2", "up=x", "bg=336699"])
      expect(link).toContain(part);
    const told = () =>
      page.evaluate(() => {
        const { K } = window.scene4d.camera();
        const { width } = window.scene4d.stats();
        return [K[0], width, document.documentElement.style.getPropertyValue("--backdrop")];
      });
    const before = await told();
    // This computer serves it, and will not always.
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await label(page, "Share this view");
    await until(page, () => /^Link copied/.test(document.querySelector("#toast")!.textContent!));
    expect(await page.textContent("#toast")).toContain("only on this network");
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(link);
    await page.goto(link);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    expect(await told()).toEqual(before);
    expect(apart((await view(page)).position, [1, 2, 1.5])).toBeLessThan(1e-4);
  });

  it("refuses a mode that there is not", async () => {
    const page = await chair();
    const told = await page.evaluate(() => {
      try {
        window.scene4d.setMode("swim" as never);
        return "";
      } catch (error) {
        return `${error}`;
      }
    });
    expect(told).toContain('mode must be one of orbit, fly, walk, not "swim"');
    expect(await page.getAttribute('[aria-label="Orbit"]', "aria-checked")).toBe("true");
  });

  it("goes full screen and back", async () => {
    const page = await chair();
    const whole = async () => {
      const { window, element, pixels } = await sizes(page);
      return [element, pixels].every(([w, h]) => w === window[0] && h === window[1]);
    };
    await label(page, "Full screen");
    await until(page, () => document.fullscreenElement !== null);
    await expect.poll(whole, SOON).toBe(true);
    await label(page, "Full screen");
    await until(page, () => document.fullscreenElement === null);
    await expect.poll(whole, SOON).toBe(true);
  });

  it("shows nothing but the scene with noui", async () => {
    const page = await open(b, `${CHAIR}&noui`, SMALL);
    expect(await page.locator("#toolbar").count()).toBe(0);
    await page.keyboard.press("h");
    expect(await page.isVisible("#help")).toBe(false);
  });

  it("rests when nothing moves, and in the background", async () => {
    const page = await chair();
    const frames = () => page.evaluate(() => window.scene4d.stats().frames);
    // Some frames follow the last change; then there are none.
    let still = await frames();
    for (let rest = 0; rest < 3; rest++) {
      await page.waitForTimeout(300);
      const now = await frames();
      if (now !== still) rest = -1;
      still = now;
    }
    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", { value: true, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
      window.scene4d.frame();
    });
    await page.waitForTimeout(300);
    expect(await frames()).toBe(still);
    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", { value: false, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await expect.poll(frames, SOON).toBeGreaterThan(still);
  });

  it("works from any path, with its policy in force", async () => {
    const server = await serve({ "/deep/er/": DIST, "/fixtures/": `${ROOT}/tests/fixtures/` });
    const page = await open({ ...b, url: server.url }, CHAIR, { ...SMALL, path: "/deep/er/" });
    expect((await page.evaluate(() => window.scene4d.stats())).splats).toBe(5000);
    // It names what it draws, so that nothing else is exported for it.
    const named = await page.getAttribute('meta[name="scene4d-kinds"]', "content");
    expect(named?.split(" ").sort()).toEqual(Object.keys(kinds).sort());
    expect(page.problems).toEqual([]);
    await server.close();
  });

  it("is at most 430 kB of JavaScript, packed", () => {
    const folder = join(DIST, "assets");
    const scripts = readdirSync(folder).filter((name) => name.endsWith(".js"));
    const sizes = scripts.map((name) => gzipSync(readFileSync(join(folder, name))).length);
    expect(scripts.length).toBeGreaterThan(1);
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(430_000);
  });
});

describe("embedding", () => {
  it("answers messages of the page around it, and only the listed methods", async () => {
    const folder = mkdtempSync(join(tmpdir(), "scene4d-"));
    writeFileSync(
      join(folder, "index.html"),
      `<iframe style="width:400px;height:300px" src="/?backend=webgl2&${CHAIR}" allow="fullscreen"></iframe>
       <script>
         window.events = []; window.replies = {};
         addEventListener("message", (e) => {
           if (e.data?.scene4d !== 1) return;
           if (e.data.event) events.push(e.data.event); else replies[e.data.id] = e.data;
         });
         window.call = (id, method, args) =>
           document.querySelector("iframe").contentWindow.postMessage({ scene4d: 1, id, method, args }, "*");
       </script>`,
    );
    const server = await serve({
      "/": DIST,
      "/host/": folder,
      "/fixtures/": `${ROOT}/tests/fixtures/`,
    });
    const page = await (await b.browser.newContext()).newPage();
    await page.goto(`${server.url}/host/index.html`);
    type Host = {
      events: string[];
      replies: Record<string, { result?: never; error?: string }>;
      call: (...a: unknown[]) => void;
    };
    await until(page, () => (window as unknown as Host).events.includes("ready"));
    await page.evaluate(() => {
      const host = window as unknown as Host;
      host.call("a", "setView", [{ position: [1, 2, 3], target: [0, 0, 0] }, true]);
      host.call("b", "getView");
      host.call("c", "capture");
      host.call("d", "stats");
    });
    await until(page, () => Object.keys((window as unknown as Host).replies).length === 4);
    const replies = await page.evaluate(() => (window as unknown as Host).replies);
    const { position } = replies.b!.result as unknown as { position: number[] };
    expect(apart(position, [1, 2, 3])).toBeLessThan(1e-6);
    expect(replies.c!.error).toContain("no method");
    expect(replies.d!.result).toMatchObject({ splats: 5000 });
    await server.close();
  });
});
