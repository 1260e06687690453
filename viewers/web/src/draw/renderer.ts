import type { PinholeCamera } from "../camera/projection";
import type { FieldPlane } from "../decode/field/field";

/** A picture's size and what lies behind it. */
export interface FieldTarget {
  width: number;
  height: number;
  background: readonly [number, number, number];
  /** Of the resolution that the network knows, along each axis: 1, or less while moving. */
  share: number;
}

/** Draws one field of light onto a canvas of its own. */
export interface FieldRenderer {
  /** Bytes on the graphics card. */
  readonly bytes: number;
  /** From the start of the last picture to the first time that it was seen to be done. */
  readonly milliseconds: number;
  /** Pixels of what was drawn or read last, before it was scaled. */
  readonly decoded: { readonly width: number; readonly height: number };
  /** Planes that have arrived; others count as zeros. */
  setPlanes(planes: readonly FieldPlane[]): void;
  /** Whether no picture is being drawn. */
  idle(): boolean;
  /** False: the picture before is still being drawn, try again later. */
  draw(view: PinholeCamera, target: FieldTarget): boolean;
  /** RGBA, 8 bits, top row first, drawn into a texture and read back. */
  read(view: PinholeCamera, target: FieldTarget): Promise<Uint8Array>;
  destroy(): void;
}
