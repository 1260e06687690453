/**
 * Makes PlayCanvas' splat shaders draw what scene4d's rasteriser (and gsplat) draw.
 *
 * The engine measures footprints in half pixels, so its low-pass of 0.3 is 0.075 px^2; it shifts
 * the kernel so that it is zero where it ends, at 2.83 standard deviations; it does not clamp the
 * Jacobian outside the image; it sorts small scenes into few buckets. The end of the kernel stays:
 * the trainer's, at 3.33, would draw 28% more pixels for 60 dB instead of 55. The compute shaders
 * cannot be replaced at run time, so all of this is one list of text replacements at build time.
 * A replacement that does not find its text exactly as often as stated stops the build, which is
 * what should happen when the pinned engine version changes.
 */
import type { Plugin } from "vite";

/** 0.3 px^2 in the engine's half-pixel units. */
const LOW_PASS = "1.2";
const NEAR = "-0.01";
const MAX_RADIUS = "16384.0";
/** The Jacobian is evaluated at most 30% of the half field of view outside the image. */
const NDC_LIMIT = "1.3";

export interface Patch {
  file: string;
  find: string;
  replace: string;
  times: number;
}

const chunks = "scene/shader-lib";
const glslCorner = `${chunks}/glsl/chunks/gsplat/vert/gsplatCorner.js`;
const wgslCommon = `${chunks}/wgsl/chunks/gsplat/compute-gsplat-common.js`;
const wgslProjector = `${chunks}/wgsl/chunks/gsplat/compute-gsplat-projector.js`;
const unified = "scene/gsplat-unified";

function patch(file: string, find: string, replace: string, times = 1): Patch {
  return { file, find, replace, times };
}

export const patches: Patch[] = [
  patch(glslCorner, " + 0.3", ` + ${LOW_PASS}`, 4),
  patch(
    glslCorner,
    "vec3 vp = camera_params.w == 1.0 ? vec3(0.0, 0.0, 1.0) : v;",
    `vec2 ndcHere = center.proj.xy / center.proj.w;
		vec2 slope = v.xy / -v.z + (clamp(ndcHere, -${NDC_LIMIT}, ${NDC_LIMIT}) - ndcHere) / vec2(center.projMat00, center.projMat11);
		vec3 vp = camera_params.w == 1.0 ? vec3(0.0, 0.0, 1.0) : vec3(slope * -v.z, v.z);`,
  ),
  patch(glslCorner, "min(1024.0, min(viewport_size.x, viewport_size.y))", MAX_RADIUS),
  patch(
    `${chunks}/glsl/chunks/gsplat/vert/gsplatCenter.js`,
    "centerView.z > 0.0",
    `centerView.z > ${NEAR}`,
  ),
  patch(
    `${chunks}/glsl/chunks/gsplat/frag/gsplat.js`,
    "return (exp(x * -4.0) - EXP4) * INV_EXP4;",
    "return exp(x * -4.0);",
  ),
  patch(
    `${chunks}/glsl/chunks/gsplat/frag/gsplat.js`,
    "mediump float alpha = normExp(A) * gaussianColor.a;",
    "mediump float alpha = min(0.999, normExp(A) * gaussianColor.a);",
  ),
  patch(
    `${chunks}/wgsl/chunks/gsplat/frag/gsplat.js`,
    "return (exp(x * half(-4.0)) - EXP4) * INV_EXP4;",
    "return exp(x * half(-4.0));",
  ),
  patch(
    `${chunks}/wgsl/chunks/gsplat/frag/gsplat.js`,
    "var alpha: half = normExp(A) * gaussianColor.a;",
    "var alpha: half = min(half(0.999), normExp(A) * gaussianColor.a);",
  ),
  patch(wgslCommon, "aRaw + 0.3", `aRaw + ${LOW_PASS}`),
  patch(wgslCommon, "cRaw + 0.3", `cRaw + ${LOW_PASS}`),
  patch(wgslCommon, "viewCenter.z > 0.0", `viewCenter.z > ${NEAR}`),
  patch(wgslCommon, "min(1024.0, min(viewportWidth, viewportHeight))", MAX_RADIUS),
  patch(
    wgslCommon,
    "let J2 = -J1 / vz * v.xy;",
    `let slope = v.xy / -vz + (clamp(ndc, vec2f(-${NDC_LIMIT}), vec2f(${NDC_LIMIT})) - ndc) * vec2f(viewportWidth, viewportHeight) / focal;
		let J2 = -J1 / vz * select(slope * -vz, v.xy, ortho);`,
  ),
  patch(
    wgslProjector,
    "min(1024.0, min(uniforms.viewportWidth, uniforms.viewportHeight))",
    MAX_RADIUS,
  ),
  patch(
    `${unified}/gsplat-unified-sort-worker.js`,
    "Math.log2(numVertices / 4)",
    "Math.log2(numVertices * 16)",
  ),
  patch(
    `${unified}/gsplat-hybrid-renderer.js`,
    "Math.log2(elementCount / 4)",
    "Math.log2(elementCount * 16)",
  ),
];

/** The text of one engine module after its patches. Throws when one does not fit. */
export function applyPatches(code: string, list: readonly Patch[]): string {
  return list.reduce((text, { file, find, replace, times }) => {
    const found = text.split(find).length - 1;
    if (found !== times) {
      throw new Error(`engine patch: ${file}: found ${found} times, expected ${times}: ${find}`);
    }
    return text.split(find).join(replace);
  }, code);
}

/** A module of shader text without the text; what it exports keeps its names. */
function emptied(code: string): string {
  return code.replace(/`(?:[^`\\]|\\.)*`/g, "``");
}

/** Shader text for lit and textured surfaces, particles, light maps and skies: none of them is here. */
const UNUSED =
  /\/shader-lib\/(?:glsl|wgsl)\/chunks\/(?:lit|standard|particle|lightmapper|skybox)\//;

/** Vite plugin; fails the build when a patched module was never loaded. */
export function enginePatches(): Plugin {
  const seen = new Set<string>();
  return {
    name: "scene4d-engine-patches",
    transform(code, id) {
      const path = id.split("?")[0]!.replaceAll("\\", "/");
      if (!path.includes("/playcanvas/build/")) return null;
      if (UNUSED.test(path)) return { code: emptied(code), map: null };
      const mine = patches.filter((p) => path.endsWith(`/src/${p.file}`));
      if (mine.length === 0) return null;
      for (const p of mine) seen.add(p.file);
      return { code: applyPatches(code, mine), map: null };
    },
    buildEnd(error) {
      const missed = patches.filter((p) => !seen.has(p.file));
      if (!error && missed.length > 0 && seen.size > 0) {
        throw new Error(`engine patches not applied: ${missed.map((p) => p.file).join(", ")}`);
      }
    },
  };
}
