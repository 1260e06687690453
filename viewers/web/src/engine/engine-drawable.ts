import type { PinholeCamera } from "../camera/projection";
import type { Box } from "../decode/protocol";
import type { Drawable, DrawableStatistics, Frame, Picture } from "./drawable";
import type { EngineReader } from "./reader";

/** Frames drawn after a change: what the engine copies in one frame is drawn in the next. */
const FRAMES_AFTER_CHANGE = 2;

/** What the engine draws on its own canvas, when it is asked to. */
export abstract class EngineDrawable implements Drawable {
  readonly standalone = false;
  readonly solid: boolean = false;
  /** Frames that are still to be drawn. */
  protected pending = 0;

  abstract readonly bytes: number;
  abstract statistics(): DrawableStatistics;
  abstract setShown(shown: boolean): void;
  abstract destroy(): void;

  depthsIn(_view: PinholeCamera): readonly [number, number] | null {
    return null;
  }

  setTime(_seconds: number): boolean {
    return false;
  }

  hasTime(_seconds: number): boolean {
    return true;
  }

  limit(_splats: number): boolean {
    return false;
  }

  /** The engine's canvas has all its pixels or none: it is sized by its own governor. */
  setShare(): void {}

  boxAt(_seconds: number): Box | null {
    return null;
  }

  redraw(): void {
    this.pending = FRAMES_AFTER_CHANGE;
  }

  update(frame: Frame): boolean {
    if (this.pending === 0) return false;
    this.pending--;
    frame.render();
    return false; // the engine counts its own frames
  }

  async read({ target, screen }: Picture, engine: EngineReader): Promise<Uint8Array> {
    const { solid } = this;
    try {
      return await engine.read(target, { screen, solid, sorted: this.statistics().splats > 0 });
    } finally {
      this.redraw();
    }
  }

  /** The engine uploads everything again by itself. */
  remake(): void {}
}
