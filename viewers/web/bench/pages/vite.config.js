import { defineConfig } from "vite";
import { applyPatches, patches } from "../../build/engine-patches.ts";

/** The player's patches of the engine's WebGL 2 shaders, by what they do. */
const GROUPS = {
  lowpass: /\+ 0\.3/,
  kernel: /normExp|exp\(x/,
  jacobian: /vec3 vp =/,
  sort: /Math\.log2/,
  rest: /1024|centerView/,
};
/** For patches.mjs: the bare page with some of the patches, and nothing else. */
const wanted = process.env.PATCHES?.split(",").filter(Boolean);
const chosen = patches.filter(
  (p) => !p.file.includes("wgsl") && wanted?.some((name) => GROUPS[name].test(p.find)),
);
const patched = {
  name: "some-engine-patches",
  transform(code, id) {
    const mine = chosen.filter((p) => id.split("?")[0].endsWith(`/src/${p.file}`));
    return mine.length > 0 ? { code: applyPatches(code, mine), map: null } : null;
  },
};

export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  plugins: [patched],
  build: {
    target: "es2022",
    outDir: process.env.OUT ?? "../../node_modules/.benchmark-pages",
    emptyOutDir: true,
    chunkSizeWarningLimit: 8000,
    rollupOptions: {
      input: (wanted ? ["bare"] : ["spark", "bare"]).map((n) => `${import.meta.dirname}/${n}.html`),
    },
  },
});
