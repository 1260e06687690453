import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { deliverBundle } from "../../src/decode/bundle";
import { crc32 } from "../../src/decode/bundle/bytes";
import { type Bundle, openFile } from "../../src/decode/bundle/container";
import { kinds } from "../../src/decode/bundle/kinds";
import { parseManifest } from "../../src/decode/bundle/schema";
import { StageDecoder } from "../../src/decode/bundle/stages";
import { SceneError } from "../../src/decode/errors";
import { MemorySource } from "../../src/decode/remote";
import { readBytes } from "../browser/harness";

const chair = readBytes(
  join(import.meta.dirname, "../fixtures/chair.s4d"),
) as Uint8Array<ArrayBuffer>;

async function decodeAll(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
  const bundle = await openFile(new MemorySource(bytes));
  const decoder = await StageDecoder.open(bundle);
  const reader = kinds.splats.open(decoder, bundle.manifest.sh_degree);
  let count = 0;
  for (const [number, stage] of bundle.manifest.stages.entries()) {
    const decoded = decoder.decode(number, await bundle.read(stage.member));
    if (stage.points === 0) continue;
    const data = reader.read(decoded, { from: 0, to: stage.points, stride: 1 });
    expect(data.means.every(Number.isFinite) && data.sh.every(Number.isFinite)).toBe(true);
    count += data.count;
  }
  return count;
}

/** The manifest's JSON changed, with its length kept by spaces. */
function changed(edit: (manifest: Record<string, never>) => void): Uint8Array<ArrayBuffer> {
  const view = new DataView(chair.buffer, chair.byteOffset);
  const length = view.getUint32(18, true);
  const start = 30 + view.getUint16(26, true) + view.getUint16(28, true);
  const manifest = JSON.parse(new TextDecoder().decode(chair.subarray(start, start + length)));
  edit(manifest);
  const text = new TextEncoder().encode(JSON.stringify(manifest).padEnd(length).slice(0, length));
  const out = chair.slice();
  out.set(text, start);
  new DataView(out.buffer).setUint32(14, crc32(text), true);
  return out;
}

async function failure(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  try {
    await decodeAll(bytes);
  } catch (error) {
    if (error instanceof SceneError) return `${error.kind}: ${error.detail}`;
    throw error;
  }
  return "none";
}

const member = (bundle: Bundle, name: string) =>
  bundle.manifest.members.find((m) => m.name === name)!;

describe("bundles", () => {
  it("decode completely", async () => {
    expect(await decodeAll(chair)).toBe(5000);
  });

  it("show damage to any member", async () => {
    const bundle = await openFile(new MemorySource(chair));
    for (const name of ["tables.bin", "stage0.bin", "stage2.bin"]) {
      const bytes = chair.slice();
      bytes[member(bundle, name).offset + 20]! ^= 1;
      expect(await failure(bytes)).toContain("SHA-256");
    }
  });

  it("decode to the end or not at all when a coded stream is damaged", async () => {
    const bundle = await openFile(new MemorySource(chair));
    const decoder = await StageDecoder.open(bundle);
    const bytes = await bundle.read("stage0.bin");
    let noticed = 0;
    for (let at = 8; at < bytes.length; at += 97) {
      const broken = bytes.slice();
      broken[at]! ^= 4;
      try {
        decoder.decode(0, broken);
      } catch (error) {
        expect(error).toBeInstanceOf(SceneError);
        noticed++;
      }
    }
    // Flips within plain bits change values alone; those the hash finds.
    expect(noticed).toBeGreaterThan((bytes.length - 8) / 97 / 2);
  });

  it("are refused when cut off, whatever the place", async () => {
    for (const length of [20, 29, 400, 60_000, chair.length - 20_000]) {
      expect(await failure(chair.slice(0, length))).toMatch(/damaged|format/);
    }
  });

  it("are refused for version, kind, structure and impossible counts", async () => {
    const set = (path: string, value: unknown) =>
      changed((manifest) => {
        const keys = path.split(".");
        const last = keys.pop()!;
        let object = manifest as Record<string, unknown>;
        for (const key of keys) object = object[key] as Record<string, unknown>;
        object[last] = value;
      });
    expect(await failure(set("version", "2.0"))).toContain("version:");
    expect(await failure(set("kind", "slab"))).toContain("kind:");
    expect(await failure(set("format", "zip"))).toContain("format:");
    expect(await failure(set("antialiased", 1))).toContain("antialiased must be of type boolean");
    expect(await failure(set("stages.0.points", 200_000_000))).toContain("out of range");
    expect(await failure(set("stages.0.points", 16_000_000))).toContain("declares");
    expect(await failure(set("members.0.offset", 17))).toContain("not aligned");
    expect(await failure(set("members.1.name", "../x"))).toContain("does not match");
    expect(await failure(set("arrays.0.tables.0", 4000))).toContain("frequency tables");
    expect(await failure(set("stages.0.streams.0.depth", 20))).toMatch(/octree|deeper/);
    expect(await failure(set("stages.1.streams", []))).toContain("do not fill");
  });

  it("know later minor versions and ignore what they add", () => {
    const text = new TextDecoder().decode(
      changed((m: Record<string, unknown>) => {
        m.version = "1.7";
        m.news = 1;
        m.generator = "";
      }),
    );
    const start = text.indexOf("{");
    const json = text.slice(start, text.lastIndexOf("}", text.indexOf("PK", start)) + 1);
    expect(parseManifest(new TextEncoder().encode(json)).version).toBe("1.7");
  });
});

it("says so of a kind that it does not draw", async () => {
  const bundle = await openFile(new MemorySource(chair));
  const unknown: Bundle = Object.create(bundle, {
    manifest: { value: { ...bundle.manifest, kind: "field4d" } },
  });
  const request = { type: "open", id: 0, budget: 1e9, degree: 3 } as const;
  const refused = deliverBundle(unknown, request, {} as never, {} as never);
  await expect(refused).rejects.toThrow("kind field4d cannot be drawn");
  await expect(refused).rejects.toBeInstanceOf(SceneError);
});
