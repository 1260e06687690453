import { defineConfig, type Plugin } from "vite";
import { enginePatches } from "./build/engine-patches.ts";
import { drawnKinds } from "./build/kinds.ts";
import { writeManifestTypes } from "./build/manifest-types.mjs";
import { thirdPartyNotices } from "./build/notices.ts";

const manifestTypes: Plugin = { name: "scene4d-manifest-types", buildStart: writeManifestTypes };

export default defineConfig({
  base: "./",
  plugins: [manifestTypes, drawnKinds, enginePatches(), thirdPartyNotices()],
  worker: { format: "es" },
  optimizeDeps: { exclude: ["playcanvas"] },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 3000,
  },
});
