import { EXTENT, fromHalf, type PackedSplats, toHalf } from "../pack";
import { type Pickable, pickable } from "../pick";
import type { Places } from "../protocol";
import { quatProduct } from "../rotation";
import { blend, type Followers, movedPlaces, shifted, windowAt } from "./followers";
import type { Splines } from "./splines";

interface Piece {
  still: Pickable;
  /** [n, 3] in the canonical arrangement. */
  places: Float32Array;
  followers: Followers;
  /** How far a splat of it may reach from its place. */
  reach: number;
}

/** The pieces of a scene that move, as the worker knows them: where they are, and what a ray meets. */
export class MovingPieces {
  private readonly pieces: Piece[] = [];
  private picked: { time: number; pieces: Pickable[] } | null = null;

  add(packed: PackedSplats, followers: Followers): void {
    this.pieces.push({
      still: pickable(packed),
      places: packed.centers.slice(),
      reach: reachOf(packed),
      followers: {
        ...followers,
        nodes: followers.nodes.slice(),
        weights: followers.weights.slice(),
        windows: followers.windows?.slice() ?? null,
      },
    });
    this.picked = null;
  }

  /** Null where the chunk of the time is not there. */
  at(splines: Splines, time: number): Places[] | null {
    if (!splines.evaluate(time)) return null;
    return this.pieces.map(({ places, followers, reach }) => {
      const { centers, bounds } = movedPlaces(places, followers, splines.duals);
      return { centers, bounds: bounds.map((x, i) => (i < 3 ? x - reach : x + reach)) };
    });
  }

  /** What a ray meets at a time: where its chunk is not there, as nothing had moved. */
  pickables(splines: Splines | null, time: number): readonly Pickable[] {
    if (this.picked?.time === time) return this.picked.pieces;
    if (!splines?.evaluate(time)) return this.pieces.map((p) => p.still);
    const seconds = splines.clamp(time) - splines.shape.start;
    const pieces = this.pieces.map((p) => movedPickable(p, splines.duals, seconds));
    this.picked = { time, pieces };
    return pieces;
  }
}

function reachOf({ count, transformB }: PackedSplats): number {
  let widest = 0;
  for (let i = 0; i < count; i++) {
    for (let a = 0; a < 3; a++) widest = Math.max(widest, fromHalf(transformB[4 * i + a]!));
  }
  return EXTENT * widest;
}

function movedPickable({ still, places, followers }: Piece, duals: Float64Array, seconds: number) {
  const transformA = still.transformA.slice();
  const transformB = still.transformB.slice();
  const opacity = still.opacity.slice();
  const positions = new Float32Array(transformA.buffer);
  const blended = new Float64Array(7);
  for (let i = 0; i < still.count; i++) {
    blend(followers, i, duals, blended);
    shifted(blended, places[3 * i]!, places[3 * i + 1]!, places[3 * i + 2]!, positions, 4 * i);
    const word = transformA[4 * i + 3]!;
    const x = fromHalf(word & 0xffff);
    const y = fromHalf(word >>> 16);
    const z = fromHalf(transformB[4 * i + 3]!);
    const w = Math.sqrt(Math.max(0, 1 - x * x - y * y - z * z));
    const q = quatProduct(blended, [w, x, y, z]);
    const sign = q[0] < 0 ? -1 : 1;
    transformA[4 * i + 3] = (toHalf(sign * q[1]) | (toHalf(sign * q[2]) << 16)) >>> 0;
    transformB[4 * i + 3] = toHalf(sign * q[3]);
    if (followers.windows) {
      opacity[i] = toHalf(fromHalf(opacity[i]!) * windowAt(followers.windows, i, seconds));
    }
  }
  return { ...still, transformA, transformB, opacity };
}
