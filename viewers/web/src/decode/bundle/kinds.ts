import type { Kind } from "./kind";
import { lpgsKind } from "./lpgs";
import { splatsKind } from "./plain";

/** Every kind that the player can draw. */
export const kinds: Readonly<Record<string, Kind>> = { splats: splatsKind, lpgs: lpgsKind };
