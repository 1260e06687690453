import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  build: {
    target: "es2022",
    outDir: "../../node_modules/.benchmark-pages",
    emptyOutDir: true,
    chunkSizeWarningLimit: 8000,
    rollupOptions: { input: ["spark", "bare"].map((n) => `${import.meta.dirname}/${n}.html`) },
  },
});
