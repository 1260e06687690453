import type { PinholeCamera } from "../camera/projection";
import type { Box } from "../decode/protocol";
import type { FieldStatistics, MeshStatistics, MotionStatistics } from "../events";
import type { EngineReader } from "./reader";

/** What is drawn on: pixels, and the colour behind the scene. */
export interface Backdrop {
  width: number;
  height: number;
  background: readonly [number, number, number];
}

/** One frame of the page. */
export interface Frame {
  /** Null before the first one. */
  view: PinholeCamera | null;
  target: Backdrop;
  /** Lets the engine draw. */
  render(): void;
}

/** One picture that is asked for. */
export interface Picture {
  view: PinholeCamera;
  target: Backdrop;
  /** With the canvas' 8 bits instead of the best precision. */
  screen: boolean;
}

export interface DrawableStatistics {
  /** Splats that are drawn now. */
  splats: number;
  /** Of a field of light. */
  field: FieldStatistics | null;
  /** Of a mesh. */
  mesh?: MeshStatistics;
  /** Of splats that move. */
  motion?: MotionStatistics;
  /** Of the last picture of what draws itself: how long it took, at which share of its resolution. */
  last: { milliseconds: number; share: number } | null;
}

/**
 * A scene of some kind, as the stage draws it. The stage knows no kind: another one, as of splats
 * that move, is another class. Pieces reach it from who made it.
 */
export interface Drawable {
  /**
   * Draws itself on a canvas over the engine's: how long its picture takes does not depend on the
   * canvas' size, and no headset shows it.
   */
  readonly standalone: boolean;
  /**
   * Hides what is behind it, and ends sharply: the engine's canvas has depths and several samples
   * in a pixel while it is shown. Splats, which are sorted and soft, need neither.
   */
  readonly solid: boolean;
  /** Of textures and sorting data. */
  readonly bytes: number;
  statistics(): DrawableStatistics;
  /** Between which depths the engine draws it; null: as it draws splats. */
  depthsIn(view: PinholeCamera): readonly [number, number] | null;
  /** Hidden while another scene is shown. */
  setShown(shown: boolean): void;
  /** Shows another time, in seconds; whether the picture is another one now. */
  setTime(seconds: number): boolean;
  /** Whether a time can be drawn, or is still on its way. */
  hasTime(seconds: number): boolean;
  /** Draws about so many splats at most; whether the picture is another one now. */
  limit(splats: number): boolean;
  /** Pictures have this share of their resolution, along each axis, from now on. */
  setShare(share: number): void;
  /** The box of what is there at a time, in seconds; null where that hangs on no time. */
  boxAt(seconds: number): Box | null;
  /** Something has changed: what is seen is drawn again. */
  redraw(): void;
  /** Draws where something has changed; whether it has drawn itself a picture. */
  update(frame: Frame): boolean;
  /** RGBA, 8 bits, top row first, of the target's size. */
  read(picture: Picture, engine: EngineReader): Promise<Uint8Array>;
  /** The graphics device is another one now. */
  remake(): void;
  destroy(): void;
}
