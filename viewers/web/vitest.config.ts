import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    fileParallelism: false,
    // One process for all files: they share browsers, and what they import is read once.
    pool: "forks",
    isolate: false,
  },
});
