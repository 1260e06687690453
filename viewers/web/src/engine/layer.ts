import type { Drawable } from "./drawable";
import { SplatPieces } from "./splat-pieces";

/**
 * All that the stage holds of one scene: what is drawn, and how. Two may be there while one takes
 * the other's place. Splats unless something else is put in their place.
 */
export class Layer {
  antialiased = false;
  drawable: Drawable = new SplatPieces();
  private shown = false;
  private time = 0;

  /** Draws something else from now on; what was drawn is given back. */
  replace(drawable: Drawable): void {
    this.drawable.destroy();
    this.drawable = drawable;
    drawable.setShown(this.shown);
    drawable.setTime(this.time);
  }

  setShown(shown: boolean): void {
    this.shown = shown;
    this.drawable.setShown(shown);
  }

  /** Seconds; whether the picture is another one now. */
  setTime(seconds: number): boolean {
    this.time = seconds;
    return this.drawable.setTime(seconds);
  }

  destroy(): void {
    this.drawable.destroy();
  }
}
