import type { Kind } from "./kind";
import { lightslabKind } from "./lightslab";
import { lpgsKind } from "./lpgs";
import type { Manifest } from "./manifest.gen";
import { meshKind } from "./mesh";
import { splatsKind } from "./plain";
import { splats4dKind } from "./splats4d";

/** Every kind that the player can draw. */
export const kinds = {
  splats: splatsKind,
  lpgs: lpgsKind,
  lightslab: lightslabKind,
  splats4d: splats4dKind,
  mesh: meshKind,
} satisfies { [kind in Manifest["kind"]]?: Kind };

/** That of a bundle; undefined where the player does not draw it. */
export function kindOf(manifest: Manifest): Kind | undefined {
  return (kinds as { [kind in Manifest["kind"]]?: Kind })[manifest.kind];
}
