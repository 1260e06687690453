import type { Kind } from "./kind";
import { lightslabKind } from "./lightslab";
import { lpgsKind } from "./lpgs";
import { splatsKind } from "./plain";

/** Every kind that the player can draw. */
export const kinds = {
  splats: splatsKind,
  lpgs: lpgsKind,
  lightslab: lightslabKind,
} satisfies Record<string, Kind>;
