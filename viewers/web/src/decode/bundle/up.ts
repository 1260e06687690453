import { cross, dot, length, normalize, scale, type V3 } from "../../camera/vec";
import type { CaptureCamera } from "../protocol";

/** Cameras this near to an axis of the world (2 degrees) were meant to stand along it. */
const AXIS_COSINE = Math.cos((2 * Math.PI) / 180);
/** How much the mean of the upward directions counts, beside the sideways ones' squared cosines. */
const MEAN_WEIGHT = 0.003;
/** Of the power iteration below; each shrinks its error by the ratio of the two least eigenvalues. */
const STEPS = 30;

/**
 * The direction that stands across all of the cameras' sideways axes: people hold cameras level,
 * but point them downwards and walk around half of a thing only, which turns the mean of the
 * upward directions away. That mean decides as far as all cameras look the same way.
 */
export function upOf(cameras: readonly CaptureCamera[]): V3 {
  const columns = (c: number) => cameras.map(({ c2w }): V3 => [c2w[c]!, c2w[4 + c]!, c2w[8 + c]!]);
  const sum = columns(1).reduce((s, u): V3 => [s[0] + u[0], s[1] + u[1], s[2] + u[2]], [0, 0, 0]);
  if (!(length(sum) > 1e-6 * cameras.length)) return [0, 0, 1];
  const mean = normalize(sum);
  const up = across(columns(0), mean);
  const axis = up.findIndex((x) => Math.abs(x) > AXIS_COSINE);
  return axis < 0 ? up : (up.map((x, a) => (a === axis ? Math.sign(x) : 0)) as V3);
}

/**
 * The unit vector u with the least sum of (u . s)^2 / N + MEAN_WEIGHT (1 - (u . mean)^2): the
 * eigenvector of a 3 x 3 matrix's least eigenvalue, by power iteration with its adjugate.
 */
function across(sideways: readonly V3[], mean: V3): V3 {
  const [x, y, z] = ([0, 1, 2] as const).map((r) =>
    ([0, 1, 2] as const).map(
      (c) =>
        sideways.reduce((total, s) => total + s[r] * s[c], 0) / sideways.length +
        MEAN_WEIGHT * ((r === c ? 1 : 0) - mean[r] * mean[c]),
    ),
  ) as [V3, V3, V3];
  const adjugate = [cross(y, z), cross(z, x), cross(x, y)] as const;
  let up = mean;
  for (let step = 0; step < STEPS; step++) {
    const next = normalize(adjugate.map((row) => dot(row, up)) as V3);
    if (length(next) === 0) break;
    up = next;
  }
  return dot(up, mean) < 0 ? scale(up, -1) : up;
}
