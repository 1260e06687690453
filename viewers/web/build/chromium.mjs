/** The Chromium of tests, benchmarks and pictures: SCENE4D_CHROMIUM, or one of chromium-paths.txt. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const PATHS = readFileSync(join(import.meta.dirname, "chromium-paths.txt"), "utf8").split("\n");
const WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
/** With fewer, the device is lost at the first picture that is shown. */
const WEBGPU = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-angle=swiftshader",
  "--use-vulkan=swiftshader",
  "--ignore-gpu-blocklist",
  "--disable-vulkan-surface",
  "--use-webgpu-adapter=swiftshader",
];

export function chromiumPath() {
  const found = [process.env.SCENE4D_CHROMIUM, ...PATHS].find((path) => path && existsSync(path));
  if (!found) throw new Error("no Chromium; install it or set SCENE4D_CHROMIUM");
  return found;
}

/**
 * Headless, drawing in software with one back end.
 * @param {"webgl2" | "webgpu"} backend
 */
export function launchChromium(backend = "webgl2") {
  const args = backend === "webgpu" ? WEBGPU : WEBGL;
  return chromium.launch({ executablePath: chromiumPath(), args, headless: true });
}
