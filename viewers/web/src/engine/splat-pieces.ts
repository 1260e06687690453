import type { Entity } from "playcanvas";
import { isThere } from "../camera/clock";
import type { Box, TimeSpan } from "../decode/protocol";
import type { DrawableStatistics } from "./drawable";
import { EngineDrawable } from "./engine-drawable";
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

/** Splats in pieces, which the engine draws. */
export class SplatPieces extends EngineDrawable {
  readonly pieces: Piece[] = [];
  private shown = false;
  private most = Number.POSITIVE_INFINITY;
  private time = 0;

  add(piece: Piece): void {
    this.pieces.push(piece);
    this.apply();
    this.redraw();
  }

  setShown(shown: boolean): void {
    this.shown = shown;
    this.apply();
  }

  override setTime(seconds: number): boolean {
    this.time = seconds;
    return this.apply();
  }

  /** Draws only the first stages that together have at most `splats`, at least one. */
  override limit(splats: number): boolean {
    this.most = splats;
    return this.apply();
  }

  override boxAt(seconds: number): Box | null {
    if (!this.pieces.some((p) => p.span)) return null;
    const there = this.pieces.filter((p) => isThere(p.span, seconds));
    const end = (pick: (...x: number[]) => number, from: number) =>
      [0, 1, 2].map((a) => pick(...there.map((p) => p.bounds[from + a]!))) as Box["low"];
    return there.length > 0 ? { low: end(Math.min, 0), high: end(Math.max, 3) } : null;
  }

  statistics(): DrawableStatistics {
    const splats = this.pieces.reduce((sum, p) => sum + (p.entity.enabled ? p.count : 0), 0);
    return { splats, field: null, last: null };
  }

  /** The pieces, and the engine's copy of the visible ones. */
  get bytes(): number {
    return this.pieces.reduce((sum, p) => sum + p.bytes + (p.entity.enabled ? 48 * p.count : 0), 0);
  }

  destroy(): void {
    for (const { entity, resource } of this.pieces.splice(0)) {
      entity.destroy();
      resource.destroy();
    }
  }

  /** Enables what is to be drawn; whether that changed. */
  private apply(): boolean {
    let changed = false;
    const last = limited(this.pieces, this.most);
    for (const { entity, stage, span } of this.pieces) {
      const enabled = this.shown && stage <= last && isThere(span, this.time);
      if (entity.enabled === enabled) continue;
      entity.enabled = enabled;
      changed = true;
    }
    return changed;
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
