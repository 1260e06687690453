/** The splats of a bundle in which some move as they are at a time, and as a file of that moment. */
import type { Bundle } from "../../src/decode/bundle/container";
import type { SplatKind } from "../../src/decode/bundle/kind";
import { kindOf } from "../../src/decode/bundle/kinds";
import { StageDecoder } from "../../src/decode/bundle/stages";
import { type Followers, movedSplats } from "../../src/decode/motion/followers";
import { Splines } from "../../src/decode/motion/splines";
import { coefficients, rowsOf, type SplatData } from "../../src/decode/splats";

/** Stage by stage, each in coding order. */
export type Arrangement = (time: number) => SplatData[];

/** Reads the whole bundle. */
export async function arrangementOf(bundle: Bundle): Promise<Arrangement> {
  const decoder = await StageDecoder.open(bundle);
  const kind = kindOf(bundle.manifest) as SplatKind;
  const reader = kind.open(decoder, bundle.manifest.sh_degree);
  const motion = reader.motion!;
  const parts: { data: SplatData; rows: Uint32Array; followers: Followers }[] = [];
  let splines: Splines | null = null;
  for (const [number, stage] of bundle.manifest.stages.entries()) {
    const decoded = decoder.decode(number, await bundle.read(stage.member));
    const chunk = motion.chunkStages.indexOf(number);
    if (number === 0) {
      const shape = motion.shape();
      splines = shape && new Splines(shape);
    }
    if (chunk >= 0) splines!.add(chunk, motion.knots(chunk));
    if (stage.points === 0) continue;
    const all = { from: 0, to: stage.points, stride: 1 };
    parts.push({ data: reader.read(decoded, all), ...motion.followers(decoded, all) });
  }
  return (time) => {
    if (!splines?.evaluate(time)) return parts.map((p) => p.data);
    const seconds = splines.clamp(time) - splines.shape.start;
    const { duals } = splines;
    return parts.map(({ data, rows, followers }) => {
      const moved = movedSplats(rowsOf(data, rows), followers, duals, seconds);
      const [means, quats] = [data.means.slice(), data.quats.slice()];
      const opacities = data.opacities.slice();
      for (const [i, row] of rows.entries()) {
        means.set(moved.means.subarray(3 * i, 3 * i + 3), 3 * row);
        quats.set(moved.quats.subarray(4 * i, 4 * i + 4), 4 * row);
        opacities[row] = moved.opacities[i]!;
      }
      return { ...data, means, quats, opacities };
    });
  };
}

/** A PLY of 3DGS' properties. */
export function plyOf(parts: readonly SplatData[]): Uint8Array {
  const higher = coefficients(parts[0]!.degree) - 1;
  const names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"];
  for (let k = 0; k < 3 * higher; k++) names.push(`f_rest_${k}`);
  names.push("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3");
  const rows = parts.flatMap((data) =>
    Array.from({ length: data.count }, (_, i) => {
      const sh = data.sh.subarray(3 * (higher + 1) * i, 3 * (higher + 1) * (i + 1));
      const rest = Array.from({ length: 3 * higher }, (_, k) => {
        return sh[3 * (1 + (k % higher)) + Math.floor(k / higher)]!;
      });
      const alpha = Math.max(1e-7, Math.min(1 - 1e-7, data.opacities[i]!));
      const scales = [...data.scales.subarray(3 * i, 3 * i + 3)].map(Math.log);
      const turn = data.quats.subarray(4 * i, 4 * i + 4);
      const place = data.means.subarray(3 * i, 3 * i + 3);
      return [
        ...place,
        ...sh.subarray(0, 3),
        ...rest,
        Math.log(alpha / (1 - alpha)),
        ...scales,
        ...turn,
      ];
    }),
  );
  const head = ["ply", "format binary_little_endian 1.0", `element vertex ${rows.length}`];
  const text = [...head, ...names.map((n) => `property float ${n}`), "end_header\n"].join("\n");
  const numbers = Float32Array.from(rows.flat());
  const out = new Uint8Array(text.length + numbers.byteLength);
  out.set(new TextEncoder().encode(text));
  out.set(new Uint8Array(numbers.buffer), text.length);
  return out;
}
