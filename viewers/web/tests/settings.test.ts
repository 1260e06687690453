import { describe, expect, it } from "vitest";
import { DEFAULTS, fromFile, leftOut } from "../src/settings";

describe("a settings file", () => {
  it.each([
    [[1, 2], "not an object of settings"],
    [{ content: "a.s4d" }, '"version" must be 1'],
    [{ version: 2 }, '"version" must be 1, not 2'],
    [{ version: 1, quality: "best" }, '"quality" cannot be best'],
    [{ version: 1, view: [1, 2, 3] }, '"view" cannot be 1,2,3'],
    [{ version: 1, annotations: {} }, '"annotations" must be a list'],
    [
      { version: 1, annotations: [{ title: "a", position: [0, 0, 0] }, { title: "b" }] },
      '"annotations", entry 2',
    ],
    [{ version: 1, captureCameras: [{ c2w: [1] }] }, '"captureCameras", entry 1'],
  ])("that is broken is refused by name: %j", (file, words) => {
    expect(() => fromFile(file, DEFAULTS)).toThrow(words);
  });

  it("has the address' names, with values of JSON", () => {
    const file = { version: 1, up: "z", view: [1, 2, 3, 4, 5, 6], noanim: true, bg: "ff0000" };
    const settings = fromFile(file, DEFAULTS);
    expect(settings.view).toEqual({ position: [1, 2, 3], target: [4, 5, 6] });
    expect([settings.up, settings.background]).toEqual([
      [0, 0, 1],
      [1, 0, 0],
    ]);
    expect(settings.animation).toBe(false);
  });
});

it("what of an address does not parse is named, and the rest is not", () => {
  const address = new URLSearchParams("view=1,2,x&fov=30&bg=red&title=&up=-z&quality=6");
  expect(leftOut(address)).toEqual(["bg=red", "view=1,2,x"]);
});
