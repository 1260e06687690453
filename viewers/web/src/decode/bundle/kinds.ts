import type { Kind } from "./kind";
import { lightslabKind } from "./lightslab";
import { lpgsKind } from "./lpgs";
import { splatsKind } from "./plain";
import { splats4dKind } from "./splats4d";

/** Every kind that the player can draw. */
export const kinds = {
  splats: splatsKind,
  lpgs: lpgsKind,
  lightslab: lightslabKind,
  splats4d: splats4dKind,
} satisfies Record<string, Kind>;
