import { describe, expect, it } from "vitest";
import { Clock } from "../src/camera/clock";
import type { PackedSplats } from "../src/decode/pack";
import { Layer, type Piece } from "../src/engine/layer";

describe("the clock", () => {
  const started = () => {
    const clock = new Clock();
    clock.setSpan({ start: 2, end: 6 });
    clock.play();
    return clock;
  };

  it("goes on while it plays, at its rate, and begins again", () => {
    const clock = started();
    expect([clock.update(1), clock.time]).toEqual([true, 3]);
    clock.rate = 2;
    clock.update(1);
    expect(clock.time).toBe(5);
    clock.update(1.5);
    expect(clock.time).toBe(4); // 8 is 2 after the end
    clock.pause();
    expect([clock.update(1), clock.time]).toEqual([false, 4]);
  });

  it("stands at the end without a loop, and plays from the beginning then", () => {
    const clock = started();
    clock.loop = false;
    clock.update(10);
    expect([clock.time, clock.playing]).toEqual([6, false]);
    clock.play();
    expect([clock.time, clock.playing]).toEqual([2, true]);
  });

  it("stays within its span wherever it is put", () => {
    const clock = started();
    const at = (seconds: number) => {
      clock.seek(seconds);
      return clock.time;
    };
    expect([-1, 3.5, 9, Number.NaN].map(at)).toEqual([2, 3.5, 6, 2]);
  });

  it("does nothing where nothing moves", () => {
    const clock = new Clock();
    for (const span of [null, { start: 1, end: 1 }]) {
      clock.setSpan(span);
      clock.play();
      expect([clock.range, clock.playing, clock.update(1)]).toEqual([null, false, false]);
    }
  });
});

describe("a layer", () => {
  const piece = (x: number, stage: number, span: Piece["span"]): Piece => ({
    entity: { enabled: false } as Piece["entity"],
    resource: null as unknown as Piece["resource"],
    count: 10,
    bytes: 0,
    bounds: Float32Array.of(x, 0, 0, x + 1, 1, 1) as PackedSplats["bounds"],
    stage,
    span,
  });
  const layer = (...pieces: Piece[]) => {
    const made = new Layer();
    for (const p of pieces) made.add(p);
    made.setShown(true);
    return made;
  };
  const drawn = (l: Layer) => l.pieces.map((p) => p.entity.enabled);

  it("draws what is there at a time, from its first second and before its last", () => {
    const l = layer(piece(0, 0, { start: 0, end: 2 }), piece(5, 0, { start: 2, end: 4 }));
    expect(drawn(l)).toEqual([true, false]);
    expect([l.setTime(1.9), l.setTime(2)]).toEqual([false, true]);
    expect(drawn(l)).toEqual([false, true]);
  });

  it("keeps times and stages of quality apart", () => {
    const span = { start: 0, end: 2 };
    const l = layer(piece(0, 0, null), piece(0, 0, span), piece(0, 1, span));
    l.limit(0);
    expect(drawn(l)).toEqual([true, true, false]);
    l.setTime(3);
    l.limit(1);
    expect(drawn(l)).toEqual([true, false, false]);
    l.setTime(1);
    expect(drawn(l)).toEqual([true, true, true]);
  });

  it("tells its parts that move the time, and whether any of them did", () => {
    const l = layer();
    const heard: number[] = [];
    l.timed.push({ setTime: (t) => heard.push(t) > 1 });
    expect([l.setTime(1), l.setTime(2)]).toEqual([false, true]);
    expect(heard).toEqual([1, 2]);
  });

  it("has the box of what is there; none of its own where nothing comes or goes", () => {
    const l = layer(piece(0, 0, { start: 0, end: 3 }), piece(5, 0, { start: 2, end: 4 }));
    expect(l.boxAt(1)).toEqual({ low: [0, 0, 0], high: [1, 1, 1] });
    expect(l.boxAt(2)).toEqual({ low: [0, 0, 0], high: [6, 1, 1] });
    expect(l.boxAt(3)).toEqual({ low: [5, 0, 0], high: [6, 1, 1] });
    expect(l.boxAt(9)).toBeNull();
    expect(layer(piece(0, 0, null)).boxAt(0)).toBeNull();
  });
});
