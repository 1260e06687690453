import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openFile } from "../../src/decode/bundle/container";
import { lightslabKind } from "../../src/decode/bundle/lightslab";
import { fieldLayers } from "../../src/decode/field/field";
import { fieldDistance, fieldPicture, pixelOf } from "../../src/decode/field/picture";
import { MemorySource } from "../../src/decode/remote";
import { sigmoid } from "../../src/decode/splats";
import { failures } from "../../src/ui/strings";
import { readBytes } from "../browser/harness";
import { readField } from "./read-field";

const good = join(import.meta.dirname, "../../../../mobile_export/conformance/good");
const names = readdirSync(good).filter((name) => /^lightslab.*\.s4d$/.test(name));

/** With MPIs: colours and alpha as they are shown, and of the MPIs alone alpha and distance. */
type Maps = Record<"r" | "g" | "b" | "a" | "coverage", number[]> & {
  z?: number[];
  seen?: number[];
  distance?: number[];
  camera: number;
  stages: number | null;
};

describe("pictures of the conformance bundles", () => {
  it("are there", () => expect(names.length).toBeGreaterThan(4));

  for (const name of names) {
    it(`agree: ${name}`, async () => {
      const path = join(good, name);
      const { maps } = JSON.parse(readFileSync(path.replace(".s4d", ".json"), "utf8"));
      for (const wanted of maps as Maps[]) {
        const { field, cameras } = await readField(path, wanted.stages ?? undefined);
        const camera = cameras[wanted.camera]!;
        const found = fieldPicture(field, camera);
        const shown = wanted.coverage.map((_, n) => pixelOf(found, n));
        const [r, g, b, a] = found.maps.map((map, c) =>
          found.mpi ? shown.map((pixel) => pixel[c]!) : map.map(sigmoid),
        );
        const off = (wish: number[], have: ArrayLike<number>) => {
          expect(have.length).toBe(wish.length);
          return Math.max(...wish.map((v, i) => Math.abs(v - have[i]!)));
        };
        // SPEC.md's tolerance is 1e-3 (2e-3 with MPIs) and 1e-2 for z. Doubles against float32 and the five digits
        // of the file leave a tenth of it.
        const worst = [
          off(wanted.r, r!),
          off(wanted.g, g!),
          off(wanted.b, b!),
          off(wanted.a, a!),
          off(wanted.coverage, found.coverage),
        ];
        expect(Math.max(...worst), `${worst}`).toBeLessThan(1e-4);
        if (wanted.z) expect(off(wanted.z, found.maps[4]!)).toBeLessThan(1e-3);
        if (!found.mpi) continue;
        expect(off(wanted.seen!, found.mpi.maps[3]!)).toBeLessThan(1e-4);
        for (const [n, distance] of wanted.distance!.entries()) {
          // A quotient of two sums, which means nothing where the MPIs show next to nothing.
          if (wanted.seen![n]! < 1 / 16) continue;
          const [u, v] = [n % camera.width, Math.floor(n / camera.width)];
          const have = Math.max(0, fieldDistance(field, camera, found, u, v));
          expect(Math.abs(have - distance)).toBeLessThan(1e-3);
        }
      }
    });
  }
});

describe("a network beyond what is drawn", () => {
  it("is refused, with an advice that is not about splats", async () => {
    const path = join(good, "lightslab_one.s4d");
    const { manifest, size } = await openFile(new MemorySource(readBytes(path) as never));
    const shape = structuredClone(manifest.lightslab!);
    const check = (width: number) => {
      shape.decoder.width = width;
      const layers = new Map(Object.entries(fieldLayers(shape)));
      const arrays = manifest.arrays.map((array) => {
        const [, name, part] = /^net_(.*)_(weight|bias)$/.exec(array.name) ?? [];
        const [outputs, inputs] = layers.get(name ?? "") ?? [0, 0];
        if (!part) return array;
        return { ...array, items: part === "bias" ? outputs : outputs * inputs };
      });
      lightslabKind.check({ ...manifest, lightslab: shape, arrays }, size);
    };
    check(shape.decoder.width);
    expect(() => check(2 ** 24)).toThrow(expect.objectContaining({ kind: "field-too-big" }));
    expect(failures["field-too-big"].join(" ")).not.toMatch(/splat/);
  });
});
