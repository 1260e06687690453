import { describe, expect, it } from "vitest";
import { Clock } from "../src/camera/clock";
import type { PackedSplats } from "../src/decode/pack";
import { Layer } from "../src/engine/layer";
import { type Piece, SplatPieces } from "../src/engine/splat-pieces";

describe("the clock", () => {
  const started = () => {
    const clock = new Clock();
    clock.setSpan({ start: 2, end: 6 });
    clock.play();
    return clock;
  };

  it("goes on while it plays, at its speed, and begins again", () => {
    const clock = started();
    expect([clock.update(1), clock.time]).toEqual([true, 3]);
    clock.speed = 2;
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

  it("stands at speed 0, and goes on from there", () => {
    const clock = started();
    for (const speed of [0, -1, Number.NaN]) {
      clock.speed = speed;
      expect([clock.update(1), clock.time, clock.playing]).toEqual([false, 2, true]);
    }
    clock.speed = 0.5;
    expect([clock.update(1), clock.time]).toEqual([true, 2.5]);
  });

  it("begins by itself, but not where rest is asked for, nor at a time that was", () => {
    const begun = (time: number | null, rest: boolean) => {
      const clock = new Clock();
      clock.setSpan({ start: 2, end: 6 });
      expect(clock.duration).toBe(4);
      clock.begin(time, rest);
      return [clock.playing, clock.time];
    };
    expect(begun(null, false)).toEqual([true, 2]);
    expect(begun(null, true)).toEqual([false, 2]);
    expect(begun(3, false)).toEqual([false, 3]);
    expect(begun(9, true)).toEqual([false, 6]);
  });

  it("steps to captured times, each once, or by frames of video, and round", () => {
    const clock = started();
    clock.setSpan({ start: 2, end: 6 }, [5, 3, 3, 9, 2.5]);
    const steps = (by: 1 | -1, count: number) =>
      Array.from({ length: count }, () => {
        clock.step(by);
        return clock.time;
      });
    clock.play();
    expect(steps(1, 4)).toEqual([2.5, 3, 5, 2.5]);
    expect(clock.playing).toBe(false);
    expect(steps(-1, 2)).toEqual([5, 3]);
    clock.setSpan({ start: 2, end: 6 }, [3]);
    expect(steps(1, 1)[0]).toBeCloseTo(2 + 1 / 30, 9);
    expect(steps(-1, 2)).toEqual([2, 6]);
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
      clock.begin(null, false);
      expect([clock.range, clock.duration, clock.playing]).toEqual([null, 0, false]);
      expect(clock.update(1)).toBe(false);
    }
  });
});

describe("a scene in pieces", () => {
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
    const made = new SplatPieces();
    for (const p of pieces) made.add(p);
    made.setShown(true);
    return made;
  };
  const drawn = (l: SplatPieces) => l.pieces.map((p) => p.entity.enabled);

  it("draws what is there at a time, from its first second and before its last", () => {
    const l = layer(piece(0, 0, { start: 0, end: 2 }), piece(5, 0, { start: 2, end: 4 }));
    expect(drawn(l)).toEqual([true, false]);
    expect([l.setTime(1.9), l.setTime(2)]).toEqual([false, true]);
    expect(drawn(l)).toEqual([false, true]);
  });

  it("keeps times and stages of quality apart", () => {
    const span = { start: 0, end: 2 };
    const l = layer(piece(0, 0, null), piece(0, 0, span), piece(0, 1, span));
    l.limit(20);
    expect(drawn(l)).toEqual([true, true, false]);
    l.setTime(3);
    l.limit(30);
    expect(drawn(l)).toEqual([true, false, false]);
    l.setTime(1);
    expect(drawn(l)).toEqual([true, true, true]);
  });

  it("is drawn anew for some frames after a change, and then rests", () => {
    const l = layer(piece(0, 0, null));
    let rendered = 0;
    const target = { width: 1, height: 1, background: [0, 0, 0] } as const;
    const frames = () => {
      for (let n = 0; n < 5; n++) l.update({ view: null, target, render: () => rendered++ });
      return rendered;
    };
    expect([frames(), frames()]).toEqual([2, 2]);
    l.redraw();
    expect(frames()).toBe(4);
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

describe("a layer", () => {
  it("gives what takes another's place its time, whether it is shown, and the other one back", () => {
    const heard: unknown[] = [];
    const made = new Layer();
    const moving = new SplatPieces();
    moving.setTime = (seconds) => heard.push(seconds) > 1;
    moving.setShown = (shown) => void heard.push(shown);
    made.setShown(true);
    made.setTime(3);
    made.drawable.destroy = () => void heard.push("gone");
    made.replace(moving);
    expect(heard).toEqual(["gone", true, 3]);
    expect([made.setTime(4), heard.at(-1)]).toEqual([true, 4]);
  });
});
