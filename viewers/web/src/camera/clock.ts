import type { TimeSpan } from "../decode/protocol";

/** Whether what has a span is there at a time in seconds; without one it always is. */
export function isThere(span: TimeSpan | null, seconds: number): boolean {
  return !span || (seconds >= span.start && seconds < span.end);
}

/** Seconds between the frames of a video of which nothing is known. */
const FRAME_S = 1 / 30;
/** Times that are nearer than this are the same. */
const SAME_S = 1e-6;

/** What time it is in a scene that moves: pure state, no events, no engine. */
export class Clock {
  /** Seconds, within the span. */
  time = 0;
  playing = false;
  /** Seconds of the scene in a second of the viewer's; at 0 it stands. */
  speed = 1;
  loop = true;
  private span: TimeSpan | null = null;
  /** Times that were captured, each once, in order. */
  private frames: number[] = [];

  /**
   * A scene's span; null: nothing moves. It stands at the beginning. `frames`: seconds at which it
   * was captured, in any order.
   */
  setSpan(span: TimeSpan | null, frames: readonly number[] = []): void {
    this.span = span && span.end > span.start ? span : null;
    const within = span ? frames.filter((t) => t >= span.start && t <= span.end) : [];
    this.frames = [...new Set(within)].sort((a, b) => a - b);
    this.playing = false;
    this.time = this.span?.start ?? 0;
  }

  /** When something happens; null where nothing moves. */
  get range(): TimeSpan | null {
    return this.span;
  }

  /** Seconds from the first to the last; 0 where nothing moves. */
  get duration(): number {
    return this.span ? this.span.end - this.span.start : 0;
  }

  /**
   * A scene is seen for the first time: at a time that was asked for it stands, else it plays by
   * itself, but never where rest is asked for (reduced motion).
   */
  begin(time: number | null, rest: boolean): void {
    if (time !== null) this.seek(time);
    else if (!rest) this.play();
  }

  /** Begins at the beginning where it stood at the end. Nothing where nothing moves. */
  play(): void {
    if (!this.span) return;
    if (!this.loop && this.time >= this.span.end) this.time = this.span.start;
    this.playing = true;
  }

  pause(): void {
    this.playing = false;
  }

  /** Goes to a time, or as near as the span lets. */
  seek(seconds: number): void {
    const { start, end } = this.span ?? { start: 0, end: 0 };
    this.time = Math.max(start, Math.min(end, Number.isFinite(seconds) ? seconds : start));
  }

  /**
   * Stands at the next (1) or the previous (-1) captured time, or a frame of usual video further
   * where none are known; after the end comes the beginning.
   */
  step(by: 1 | -1): void {
    if (!this.span) return;
    this.playing = false;
    const { start, end } = this.span;
    const { frames, time } = this;
    const next =
      frames.length < 2
        ? time + by * FRAME_S
        : by > 0
          ? frames.find((t) => t > time + SAME_S)
          : frames.findLast((t) => t < time - SAME_S);
    const [first, last] = frames.length < 2 ? [start, end] : [frames[0]!, frames.at(-1)!];
    const beyond = next === undefined || next > end + SAME_S || next < start - SAME_S;
    this.seek(beyond ? (by > 0 ? first : last) : next);
  }

  /** Advances by dt seconds of the viewer's; whether the time is another one now. */
  update(dt: number): boolean {
    const step = dt * this.speed;
    if (!this.playing || !this.span || !(step > 0)) return false;
    const { start, end } = this.span;
    const next = this.time + step;
    if (next < end) this.time = next;
    else if (this.loop) this.time = start + ((next - start) % (end - start));
    else {
      this.time = end;
      this.playing = false;
    }
    return true;
  }
}
