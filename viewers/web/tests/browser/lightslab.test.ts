import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { psnr } from "../../src/compare";
import { readField } from "../decode/read-field";
import { bench, open } from "./pages";

const good = join(import.meta.dirname, "../../../../mobile_export/conformance/good");
const NAMES = ["lightslab_one", "lightslab_three", "lightslab_four"];

interface Maps {
  camera: number;
  stages: number | null;
  width: number;
  height: number;
  r: number[];
  g: number[];
  b: number[];
  a: number[];
  coverage: number[];
}

/** RGBA of what the maps say, over a background. */
function composed(maps: Maps, background: number[]): Uint8Array {
  const out = new Uint8Array(4 * maps.r.length).fill(255);
  for (let n = 0; n < maps.r.length; n++) {
    const alpha = maps.a[n]! * maps.coverage[n]!;
    for (const [c, map] of [maps.r, maps.g, maps.b].entries()) {
      out[4 * n + c] = Math.round(255 * (map[n]! * alpha + (1 - alpha) * background[c]!));
    }
  }
  return out;
}

for (const backend of ["webgl2", "webgpu"] as const) {
  describe(`light slabs on ${backend}`, () => {
    const b = bench(backend);

    for (const name of NAMES) {
      it(`draws what the conformance file says: ${name}`, async () => {
        const page = await open(b, `content=/bundles/good/${name}.s4d&bg=204060`, { backend });
        const { cameras, field } = await readField(join(good, `${name}.s4d`));
        const { maps } = JSON.parse(readFileSync(join(good, `${name}.json`), "utf8"));
        for (const wanted of (maps as Maps[]).filter((m) => m.stages === null)) {
          const camera = cameras[wanted.camera]!;
          // Decoded at its own scale only where its focal length is the field's.
          expect(Math.abs(camera.K[0]! / field.shape.focal - 1)).toBeLessThan(0.05);
          const { data } = await page.evaluate(async ({ c2w, K, width, height }) => {
            window.scene4d.setCamera(c2w, K, width, height);
            const pixels = await window.scene4d.capture();
            return { data: Array.from(pixels.data) };
          }, camera);
          const background = [0x20, 0x40, 0x60].map((v) => v / 255);
          const found = psnr(data, composed(wanted, background));
          console.log(name, backend, wanted.camera, found.toFixed(1));
          expect(found).toBeGreaterThan(45);
        }
        expect(page.problems).toEqual([]);
      });
    }
  });
}
