/** How scenes stand that nobody photographed: rooms. Python's own test has the same numbers. */
import { describe, expect, it } from "vitest";
import { sub } from "../../src/camera/vec";
import { clearDirection, contentBox, standOf } from "../../src/decode/stand";
import { randomFrom } from "../browser/splat-files";

type V3 = [number, number, number];

/** Places on a box' sides; `open`: an end of an axis without its side. */
function sides(count: number, low: V3, high: V3, next: () => number): V3[] {
  return Array.from({ length: count }, (_, n) => {
    const row = low.map((x, a) => x + (high[a]! - x) * next()) as V3;
    row[n % 3] = next() < 0.5 ? low[n % 3]! : high[n % 3]!;
    return row;
  });
}

/** 6 x 5 x 2.6, y down, with a bed and a table. */
function room(): V3[] {
  const next = randomFrom(5);
  return [
    ...sides(3000, [0, -2.6, 0], [6, 0, 5], next),
    ...sides(700, [0.2, -0.6, 2.8], [2.2, 0, 4.8], next),
    ...sides(400, [3.6, -0.8, 0.4], [4.8, 0, 1.2], next),
  ];
}

describe("a room", () => {
  it("is stood in, where Python stands", () => {
    const { up, inside } = standOf(room().flat())!;
    expect(up).toEqual([0, -1, 0]);
    const { position, target } = inside!;
    const ahead = sub(target, position);
    expect(position.map((x) => Number(x.toFixed(4)))).toEqual([4.8, -1.2854, 3]);
    expect(ahead.map((x) => x / Math.hypot(...ahead))).toEqual(
      [-1, 0, 0].map((x) => expect.closeTo(x, 4)),
    );
  });

  it("stands upright in files of every convention", () => {
    const turns: [(p: V3) => V3, V3][] = [
      [([x, y, z]) => [x, z, -y], [0, 0, 1]],
      [([x, y, z]) => [x, -y, -z], [0, 1, 0]],
    ];
    for (const [turn, up] of turns) {
      const stand = standOf(room().flatMap(turn))!;
      expect(stand.up).toEqual(up);
      expect(stand.inside).not.toBeNull();
    }
  });

  it("of three walls is looked at through the open side", () => {
    const shell = sides(4000, [0, -2.6, 0], [6, 0, 5], randomFrom(9));
    for (const [axis, end, sign] of [
      [0, 0, 1],
      [0, 6, -1],
      [2, 0, 1],
      [2, 5, -1],
    ] as const) {
      const open = shell.filter((p) => Math.abs(p[axis] - end) > 0.15).flat();
      const forward = clearDirection(open, contentBox(open)!, [0, -1, 0]);
      expect([axis, end, sign * forward[axis]! > 0.5]).toEqual([axis, end, true]);
    }
  });
});

describe("a thing", () => {
  it("is seen from outside: a ball, a crate of which nobody saw the bottom, a block", () => {
    const next = randomFrom(3);
    const ball = Array.from({ length: 4000 }, () => {
      const p = [next(), next(), next()].map((x) => x - 0.5) as V3;
      return p.map((x) => x / Math.hypot(...p)) as V3;
    });
    const crate = sides(4000, [-1, -1.5, -1], [1, 0, 1], next).filter((p) => p[1] < -1e-9);
    const block = Array.from({ length: 4000 }, (): V3 => [8 * next(), next(), next()]);
    for (const places of [ball, crate, block]) expect(standOf(places.flat())!.inside).toBeNull();
  });
});
