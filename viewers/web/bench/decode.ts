/** Decodes a bundle as the player's worker does, without drawing; for benchmarks. */
import { deliverBundle } from "../src/decode/bundle";
import { openFile } from "../src/decode/bundle/container";
import { kindOf } from "../src/decode/bundle/kinds";
import { StageDecoder } from "../src/decode/bundle/stages";
import { MemorySource } from "../src/decode/remote";
import type { Sink } from "../src/decode/sink";

export interface Decoded {
  splats: number;
  /** Of reading, hashing, entropy decoding, networks and values. */
  seconds: number;
  /** With the packing into textures. */
  packed: number;
}

const nowhere: Sink = {
  info: () => {},
  poster: () => {},
  extent: () => {},
  piece: () => {},
  field: () => {},
  planes: () => {},
  mesh: () => {},
  progress: () => {},
  motion: () => {},
  knots: () => {},
  chunks: () => {},
  fail: () => {},
  references: () => {},
  breathe: () => Promise.resolve(),
};

/** The best of `times` runs. */
export async function decodeTimes(bytes: ArrayBuffer, times: number): Promise<Decoded> {
  const best = { splats: 0, seconds: Infinity, packed: Infinity };
  for (let run = 0; run < times; run++) {
    let start = performance.now();
    best.splats = await decodeOnce(new Uint8Array(bytes));
    best.seconds = Math.min(best.seconds, (performance.now() - start) / 1000);
    start = performance.now();
    const request = { type: "open", id: 0, budget: 1e9, degree: 3 } as const;
    const bundle = await openFile(new MemorySource(new Uint8Array(bytes)));
    await deliverBundle(bundle, request, nowhere, () => Promise.reject(new Error("no pictures")));
    best.packed = Math.min(best.packed, (performance.now() - start) / 1000);
  }
  return best;
}

async function decodeOnce(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
  const bundle = await openFile(new MemorySource(bytes));
  const { manifest } = bundle;
  const decoder = await StageDecoder.open(bundle);
  const kind = kindOf(manifest);
  if (kind?.drawable !== "splats") throw new Error("a bundle without splats");
  const reader = kind.open(decoder, manifest.sh_degree);
  let count = 0;
  for (const [number, stage] of manifest.stages.entries()) {
    const decoded = decoder.decode(number, await bundle.read(stage.member));
    for (let from = 0; from < stage.points; from += reader.pointsPerPiece) {
      const to = Math.min(stage.points, from + reader.pointsPerPiece);
      count += reader.read(decoded, { from, to, stride: 1 }).count;
    }
  }
  return count;
}
