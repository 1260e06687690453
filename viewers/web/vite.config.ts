import { defineConfig } from "vite";
import { enginePatches } from "./build/engine-patches.ts";

export default defineConfig({
  base: "./",
  plugins: [enginePatches()],
  worker: { format: "es" },
  optimizeDeps: { exclude: ["playcanvas"] },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 3000,
  },
});
