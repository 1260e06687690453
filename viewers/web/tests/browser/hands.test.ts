/** The player in human hands: windows that change, clicks as slow as people's, second scenes. */
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { MemorySource } from "../../src/decode/remote";
import { apart, distance, pressTwice, sizes } from "./gestures";
import { bench, frames, open, PHONE, shared, view } from "./pages";
import { boxFile } from "./splat-files";

const CHAIR = "content=/fixtures/chair.s4d&noanim";
const frame = (page: Page) => frames(page, 2);

/** A busy machine draws a frame in seconds. */
const SOON = { timeout: 15_000 };

/** With WebGPU: everyday.test.ts. */
const b = bench();
const chair = shared(b, CHAIR);
/** Few splats, coarsely: software draws so many pixels slowly. */
const phone = shared(b, `${CHAIR}&quality=1`, PHONE);

describe("at a desk", () => {
  it("the canvas has its element's size after each of ten changes of the window", async () => {
    const page = await chair();
    for (const [width, height] of [
      ...[
        [480, 360],
        [200, 300],
        [700, 200],
        [200, 600],
        [385, 288],
      ],
      ...[
        [384, 289],
        [234, 506],
        [506, 234],
        [300, 300],
        [640, 480],
      ],
    ] as [number, number][]) {
      await page.setViewportSize({ width, height });
      const is = [width, height];
      await expect
        .poll(() => sizes(page), SOON)
        .toEqual({ window: is, element: is, pixels: is, drawn: is });
    }
    expect(page.problems).toEqual([]);
  });

  it("flies to where the first of two clicks was, however slow the second", async () => {
    const page = await chair();
    for (const [ms, x, y] of [
      [80, 330, 170],
      [200, 370, 250],
      [350, 290, 235],
    ] as const) {
      await page.keyboard.press("r");
      await frame(page);
      const start = await view(page);
      const hit = await page.evaluate(([px, py]) => window.scene4d.pick(px, py), [x, y] as const);
      expect([ms, hit]).not.toEqual([ms, null]);
      await pressTwice(page, x, y, ms);
      const third = apart(start.position, hit!) / 3;
      const seen = async () => {
        const end = await view(page);
        return [apart(end.target, hit!) < 1e-3, Math.abs(distance(end) - third) < 1e-2];
      };
      await expect.poll(seen, { ...SOON, message: `${ms} ms` }).toEqual([true, true]);
    }
  });
});

describe("on a phone", () => {
  it("turned on its side, the canvas turns too; with Retina pixels", async () => {
    const small = { width: 195, height: 422 };
    const page = await open(b, CHAIR, { ...PHONE, viewport: small, deviceScaleFactor: 1.5 });
    await page.setViewportSize({ width: 422, height: 195 });
    const seen = async () => {
      const { element, drawn } = await sizes(page);
      return [element, drawn];
    };
    await expect.poll(seen, SOON).toEqual([
      [422, 195],
      [633, 293],
    ]);
  });

  it("two taps fly to the first one's place; the finger that stays after a pinch turns", async () => {
    const page = await phone();
    const at = [200, 400] as const;
    const hit = (await page.evaluate(([x, y]) => window.scene4d.pick(x, y), at))!;
    expect(hit).not.toBeNull();
    await pressTwice(page, ...at, 250, true);
    await expect.poll(async () => apart((await view(page)).target, hit), SOON).toBeLessThan(1e-3);
    await page.evaluate(() => window.scene4d.reset());
    // Two fingers apart, then one is lifted: the emulation of touches cannot lift one of two.
    const pinched = await page.evaluate(() => {
      const canvas = document.querySelector<HTMLCanvasElement>("#player > canvas")!;
      canvas.setPointerCapture = () => {};
      const send = (type: string, pointerId: number, clientX: number) =>
        canvas.dispatchEvent(
          new PointerEvent(type, { pointerId, clientX, clientY: 300, pointerType: "touch" }),
        );
      send("pointerdown", 1, 150);
      send("pointerdown", 2, 250);
      for (const x of [10, 20]) {
        send("pointermove", 1, 150 - x);
        send("pointermove", 2, 250 + x);
      }
      send("pointerup", 2, 270);
      const between = window.scene4d.getView();
      for (const x of [150, 180, 220]) send("pointermove", 1, x);
      send("pointerup", 1, 220);
      return between;
    });
    const away = async () => apart((await view(page)).position, pinched.position);
    await expect.poll(away, SOON).toBeGreaterThan(0.2);
    const turned = await view(page);
    expect(distance(turned)).toBeCloseTo(distance(pinched), 4);
  });

  it("held upright it has everything: what is not in the row is in a menu, with words", async () => {
    const page = await phone();
    for (const width of [320, 390]) {
      await page.setViewportSize({ width, height: 700 });
      // The row has been laid out for it.
      await expect.poll(() => page.evaluate(() => window.scene4d.camera().width), SOON).toBe(width);
      const out = await page.$$eval("#toolbar button", (all) =>
        all
          .filter((x) => x.checkVisibility())
          .filter((x) => {
            const box = x.getBoundingClientRect();
            return box.left < 0 || box.right > innerWidth || box.width < 34;
          })
          .map((x) => x.ariaLabel),
      );
      expect([width, out]).toEqual([width, []]);
      const words = await page.$$eval("#toolbar button", (all) =>
        all
          .filter((x) => x.checkVisibility())
          .map((x) => x.querySelector<HTMLElement>(".word")?.innerText),
      );
      expect(words).toEqual(["Orbit", "Fly", "Walk", "Frame", "Share", "Settings", "More"]);
      await page.tap('[aria-label="More"]');
      const items = await page.locator("#menu [role=menuitem]").allInnerTexts();
      for (const name of ["Reset", "Measure", "Picture", "Help", "Full screen", "cameras"])
        expect(items.join()).toContain(name);
      const box = (await page.locator("#menu").boundingBox())!;
      expect(box.x >= 0 && box.x + box.width <= width && box.y >= 0).toBe(true);
      await page.tap("#menu >> text=Measure");
      expect(await page.isVisible("#menu")).toBe(false);
      expect(await page.textContent("#toast")).toContain("two points");
      await page.tap('[aria-label="More"]');
      await page.tap("#menu >> text=Help");
      const help = (await page.textContent("#help"))!;
      expect(help).toContain("Two fingers");
      expect(help).not.toContain("Right drag");
      await page.keyboard.press("Escape");
    }
    await page.setViewportSize(PHONE.viewport);
  });
});

describe("a frame in another page", () => {
  const hosted = (style: string, query = "") =>
    `<!doctype html><body style="margin:0;height:3000px"><iframe allow="fullscreen"
      style="width:400px;height:300px;border:0;${style}" src="/?backend=webgl2&${CHAIR}${query}">
      </iframe></body>`;
  const host = (html: string) => {
    b.options = {
      intercept: (req, res) => {
        if (req.url !== "/host.html") return false;
        res.writeHead(200, { "Content-Type": "text/html" }).end(html);
        return true;
      },
    };
  };

  it("that was hidden at first is drawn when it is shown", async () => {
    host(hosted("display:none"));
    const page = await (
      await b.browser.newContext({ viewport: { width: 480, height: 360 } })
    ).newPage();
    await page.goto(`${b.url}/host.html`);
    const inner = page.frames()[1]!;
    // The whole start happens unseen.
    await expect
      .poll(() => inner.evaluate(() => Boolean(window.scene4d?.getView())), SOON)
      .toBe(true);
    await page.evaluate(() => {
      document.querySelector("iframe")!.style.display = "block";
    });
    const end = Date.now() + 20_000;
    const lit = () =>
      inner.evaluate(async () => {
        if (!window.scene4d?.ready) return [];
        await window.scene4d.ready;
        const { data, width, height } = await window.scene4d.capture();
        const at = (x: number, y: number) => data[4 * (Math.round(y) * width + Math.round(x)) + 1]!;
        const middle = Math.abs(at(width / 2, height * 0.45) - at(3, 3));
        return [width, height, Number(middle > 8)];
      });
    let seen: number[] = [];
    while (seen[0] !== 400 && Date.now() < end) {
      await page.waitForTimeout(100);
      seen = await lit();
    }
    expect(seen).toEqual([400, 300, 1]);
  });

  it("leaves the wheel to the page, and takes it with a modifier; says so", async () => {
    host(hosted(""));
    const page = await (
      await b.browser.newContext({ viewport: { width: 480, height: 360 } })
    ).newPage();
    await page.goto(`${b.url}/host.html`);
    const inner = page.frames()[1]!;
    await expect
      .poll(() => inner.evaluate(() => window.scene4d?.stats().splats ?? 0), SOON)
      .toBeGreaterThan(0);
    await inner.evaluate(() => window.scene4d.ready);
    const start = await inner.evaluate(() => window.scene4d.getView());
    await page.mouse.move(200, 80);
    await page.mouse.wheel(0, 200);
    await expect.poll(() => page.evaluate(() => scrollY), SOON).toBeGreaterThan(50);
    await expect.poll(() => inner.locator("#toast").innerText(), SOON).toContain("Ctrl");
    expect(await inner.evaluate(() => window.scene4d.getView())).toEqual(start);
    await page.evaluate(() => scrollTo(0, 0));
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, 200);
    await page.keyboard.up("Control");
    const now = async () => distance(await inner.evaluate(() => window.scene4d.getView()));
    await expect.poll(now, SOON).toBeGreaterThan(1.1 * distance(start));
    expect(await page.evaluate(() => scrollY)).toBe(0);
  });
});

describe("a second scene", () => {
  const small = { viewport: { width: 400, height: 300 } };
  const settings = {
    version: 1,
    content: "/fixtures/chair.s4d",
    noanim: true,
    bg: "ff0000",
    up: "-z",
    view: [2, 2, 1, 0, 0, 0],
    title: "The first",
    annotations: [{ title: "Seat", position: [0, 0, 0] }],
  };
  const box = boxFile([40, -2, 10], [44, 0, 13]);
  const answer = (body: string | Uint8Array, url: string) => {
    const before = b.options.intercept;
    b.options = {
      intercept: (req, res) => {
        if (!req.url!.startsWith(url)) return before?.(req, res) ?? false;
        res.end(body);
        return true;
      },
    };
  };
  const state = (page: Page) =>
    page.evaluate(() => {
      const root = getComputedStyle(document.documentElement);
      return {
        backdrop: root.getPropertyValue("--backdrop"),
        bounds: window.scene4d.bounds(),
        title: document.title,
        notes: document.querySelectorAll(".note").length,
        splats: window.scene4d.stats().splats,
        view: window.scene4d.getView(),
      };
    });

  it("has nothing of the first: cameras, limits, background, start, notes, title", async () => {
    answer(JSON.stringify(settings), "/first.json");
    answer(box.bytes, "/box.ply");
    const page = await open(b, "settings=/first.json", small);
    const first = await state(page);
    expect([first.backdrop, first.title, first.notes]).toEqual(["rgb(255 0 0)", "The first", 1]);
    await page.keyboard.press("]");
    await page.evaluate(() => window.scene4d.open("/box.ply"));
    const second = await state(page);
    const alone = await open(b, "content=/box.ply&noanim", small);
    expect(second).toEqual(await state(alone));
    expect(await page.isVisible("#through")).toBe(false);
    // No cameras of the first: the button says that there are none.
    await page.keyboard.press("c");
    expect(await page.textContent("#toast")).toContain("no training cameras");
    // And limits of its own: R comes back to it from anywhere.
    await page.keyboard.press("r");
    const away = async () => apart((await view(page)).position, second.view.position);
    await expect.poll(away, SOON).toBeLessThan(1e-3);
  });

  it("that cannot be opened leaves the first as it was, and says why", async () => {
    const damaged = box.bytes.slice(0, 20_000);
    const bundle = new Uint8Array(await (await fetch(`${b.url}/fixtures/chair.s4d`)).arrayBuffer());
    const { manifest } = await openFile(new MemorySource(bundle.slice() as never));
    const { offset } = manifest.members.find(({ name }) => name === "stage2.bin")!;
    bundle.fill(7, offset + 100, offset + 200); // of its last stage
    answer(damaged, "/damaged.ply");
    answer(bundle, "/damaged.s4d");
    const page = await open(b, `${CHAIR}&cameras`, small);
    await page.mouse.move(200, 120);
    const home = await view(page);
    await page.mouse.wheel(0, -200);
    await expect.poll(() => view(page), SOON).not.toEqual(home);
    const before = await state(page);
    for (const url of ["/damaged.ply", "/nowhere.ply", "/damaged.s4d"]) {
      const error = await page.evaluate(
        (u) =>
          window.scene4d.open(u).then(
            () => "",
            (e) => String(e),
          ),
        url,
      );
      expect([url, error]).not.toEqual([url, ""]);
      expect(await page.isVisible("#message")).toBe(true);
      await page.keyboard.press("Escape");
      expect(await page.isVisible("#message")).toBe(false);
      expect([url, await state(page)]).toEqual([url, before]);
    }
    // It still answers, and moves.
    expect(await page.evaluate(() => window.scene4d.pick(200, 130))).not.toBeNull();
    await page.keyboard.press("]");
    expect(await page.textContent("#through span")).toContain("view 0");
  });
});

describe("hands on the scene", () => {
  it("drag a point as far as the mouse goes, at every lens", async () => {
    const page = await open(b, `${CHAIR}&view=3,0,0,0,0,0&up=z&quality=1`);
    for (const fov of ["20", "65", "110"]) {
      await page.click('[aria-label="Settings"]');
      await page.fill("#fov", fov);
      await page.keyboard.press("Escape");
      const place = () =>
        page.evaluate(() => {
          const { c2w, K } = window.scene4d.camera();
          const d = [0, 1, 2].map((a) => -c2w[4 * a + 3]!);
          const along = (c: number) => d.reduce((sum, x, r) => sum + x * c2w[4 * r + c]!, 0);
          return [(K[0]! * along(0)) / -along(2), (-K[4]! * along(1)) / -along(2)];
        });
      const before = await place();
      await page.mouse.move(300, 200);
      await page.mouse.down({ button: "right" });
      await page.mouse.move(360, 230, { steps: 3 });
      await page.mouse.up({ button: "right" });
      const moved = async () => (await place()).map((x, i) => Math.round(x - before[i]!));
      await expect.poll(moved, { ...SOON, message: fov }).toEqual([60, 30]);
    }
  });

  it("click a training camera and stay in it, though a surface lies behind", async () => {
    const page = await chair();
    await page.keyboard.press("c");
    // Where the frusta's apexes are is known to the overlay alone: look along one at the scene.
    await page.keyboard.press("]");
    const { position } = await view(page);
    await page.keyboard.press("Escape");
    await page.evaluate((eye) => {
      const away = eye.map((x) => 1.9 * x) as [number, number, number];
      window.scene4d.setView({ position: away, target: [0, 0, 0] }, true);
    }, position);
    await frame(page);
    const { K } = await page.evaluate(() => window.scene4d.camera());
    expect(
      await page.evaluate(([x, y]) => window.scene4d.pick(x!, y!), [K[2]!, K[5]!]),
    ).not.toBeNull();
    await page.mouse.click(K[2]!, K[5]!, { delay: 60 });
    await expect.poll(() => page.isVisible("#through"), SOON).toBe(true);
    // Answered in the order of asking: whatever else the click asked for has been.
    await page.evaluate(([x, y]) => window.scene4d.pick(x!, y!), [K[2]!, K[5]!]);
    expect(await page.isVisible("#through")).toBe(true);
    expect(apart((await view(page)).position, position)).toBeLessThan(1e-4);
    await page.keyboard.press("c");
  });

  it("reach through a toast, and drag the quality's slider with the mouse", async () => {
    const page = await chair();
    const under = await page.evaluate(() => {
      window.dispatchEvent(new KeyboardEvent("keydown", { key: "m" }));
      const { x, y, width, height } = document.querySelector("#toast")!.getBoundingClientRect();
      return [width > 0, document.elementFromPoint(x + width / 2, y + height / 2)!.tagName];
    });
    expect(under).toEqual([true, "CANVAS"]);
    await page.keyboard.press("Escape");
    await page.click('[aria-label="Settings"]');
    const level = await page.inputValue("#quality");
    const slider = (await page.locator("#quality").boundingBox())!;
    const width = async () => (await page.evaluate(() => window.scene4d.stats())).width;
    const seen: [string, number, number][] = [];
    for (const [share, name] of [
      [0.02, "Fastest"],
      [0.5, "Balanced"],
      [0.98, "Finest"],
    ] as const) {
      await page.mouse.click(slider.x + share * slider.width, slider.y + slider.height / 2);
      const output = () => page.textContent("#settings output");
      await expect.poll(output, SOON).toBe(name);
      const splats = (await page.evaluate(() => window.scene4d.stats())).splats;
      seen.push([name, splats, await width()]);
    }
    await page.fill("#quality", level);
    expect(seen).toEqual([
      ["Fastest", 1000, 320],
      ["Balanced", 2500, 640],
      ["Finest", 5000, 960],
    ]);
  });
});
