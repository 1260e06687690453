import type { TimeSpan } from "../decode/protocol";

/** Whether what has a span is there at a time in seconds; without one it always is. */
export function isThere(span: TimeSpan | null, seconds: number): boolean {
  return !span || (seconds >= span.start && seconds < span.end);
}

/** What time it is in a scene that moves: pure state, no events, no engine. */
export class Clock {
  /** Seconds, within the span. */
  time = 0;
  playing = false;
  /** Seconds of the scene in a second of the viewer's; at 0 it stands. */
  speed = 1;
  loop = true;
  private span: TimeSpan | null = null;

  /** A scene's span; null: nothing moves. It stands at the beginning. */
  setSpan(span: TimeSpan | null): void {
    this.span = span && span.end > span.start ? span : null;
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
