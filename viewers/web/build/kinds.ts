import type { Plugin } from "vite";
import { kinds } from "../src/decode/bundle/kinds";

/**
 * The build's page names the kinds of bundle that it draws, so that scene4d does not export a scene
 * for a player without code for it (src/scene4d/player/player_files.py).
 */
export const drawnKinds: Plugin = {
  name: "scene4d-kinds",
  transformIndexHtml: () => [
    {
      tag: "meta",
      attrs: { name: "scene4d-kinds", content: Object.keys(kinds).join(" ") },
      injectTo: "head",
    },
  ],
};
