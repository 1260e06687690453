import type { Entity } from "playcanvas";
import { isThere } from "../camera/clock";
import type { Box, TimeSpan } from "../decode/protocol";
import type { FieldView } from "../draw/field-view";
import type { SplatResource } from "./splat-resource";

/** A part of a scene's splats. */
export interface Piece {
  entity: Entity;
  resource: SplatResource;
  count: number;
  bytes: number;
  /** Encloses it: x, y, z smallest, then largest. */
  bounds: ArrayLike<number>;
  /** Of quality: coarse ones first. */
  stage: number;
  /** When it is there; null: always. Independent of the stage. */
  span: TimeSpan | null;
}

/** What follows the time by itself: a kind of scene whose parts move. */
export interface Timed {
  /** Seconds. Whether the picture is another one now. */
  setTime(seconds: number): boolean;
}

/** All that the engine holds of one scene. Two may be there while one takes the other's place. */
export class Layer {
  readonly pieces: Piece[] = [];
  field: FieldView | null = null;
  fieldShare = 1;
  antialiased = false;
  /** Parts that move by themselves. */
  readonly timed: Timed[] = [];
  private shown = false;
  private stages = Number.POSITIVE_INFINITY;
  private time = 0;

  add(piece: Piece): void {
    this.pieces.push(piece);
    this.apply();
  }

  /** Whether anything has changed. */
  setShown(shown: boolean): boolean {
    this.shown = shown;
    return this.apply();
  }

  /** Draws stages up to this one only. */
  limit(stages: number): boolean {
    this.stages = stages;
    return this.apply();
  }

  setTime(seconds: number): boolean {
    this.time = seconds;
    const moved = this.timed.filter((part) => part.setTime(seconds)).length > 0;
    return this.apply() || moved;
  }

  /** Enables what is to be drawn; whether that changed. */
  apply(): boolean {
    let changed = false;
    for (const piece of this.pieces) {
      const { entity, stage } = piece;
      const enabled = this.shown && stage <= this.stages && isThere(piece.span, this.time);
      if (entity.enabled === enabled) continue;
      entity.enabled = enabled;
      changed = true;
    }
    this.field?.setShown(this.shown);
    return changed;
  }

  /** The box of what is there at a time, in seconds; null where nothing comes or goes. */
  boxAt(seconds: number): Box | null {
    if (!this.pieces.some((p) => p.span)) return null;
    const there = this.pieces.filter((p) => isThere(p.span, seconds));
    const end = (pick: (...x: number[]) => number, from: number) =>
      [0, 1, 2].map((a) => pick(...there.map((p) => p.bounds[from + a]!))) as Box["low"];
    return there.length > 0 ? { low: end(Math.min, 0), high: end(Math.max, 3) } : null;
  }

  get splatCount(): number {
    return this.pieces.reduce((sum, p) => sum + (p.entity.enabled ? p.count : 0), 0);
  }

  get bytes(): number {
    const own = this.field?.bytes ?? 0;
    return this.pieces.reduce(
      (sum, p) => sum + p.bytes + (p.entity.enabled ? 48 * p.count : 0),
      own,
    );
  }

  destroy(): void {
    for (const { entity, resource } of this.pieces.splice(0)) {
      entity.destroy();
      resource.destroy();
    }
    this.field?.destroy();
    this.field = null;
  }
}

/** The last of the first stages that together have at most `count` splats, or the first one. */
export function limited(
  pieces: readonly { stage: number; count: number }[],
  count: number,
): number {
  const sizes = new Map<number, number>();
  for (const { stage, count: n } of pieces) sizes.set(stage, (sizes.get(stage) ?? 0) + n);
  let sum = 0;
  // A stage covers the whole scene, a piece of it a part of the scene: no stage is halved.
  const last = [...sizes].filter(([, n], i) => {
    sum += n;
    return i === 0 || sum <= count;
  });
  return last.at(-1)?.[0] ?? 0;
}
