import { cross, dot, length, normalize, scale, sub, type V3 } from "./vec";

/** Where a person stands in the scene: the eyes, where they look, and which way is up. */
export interface Stand {
  position: V3;
  forward: V3;
  up: V3;
  /** Units a second that a controller's stick moves. */
  speed: number;
}

/** WebXR's origin in the scene (y up, looking along -z), row-major 4 x 4: upright, whatever the look. */
export function standMatrix({ position, forward, up }: Stand): number[] {
  const y = normalize(up);
  const level = (v: V3): V3 => sub(v, scale(y, dot(v, y)));
  const ahead = level(forward);
  // Looking straight up or down: any direction will do.
  const back = scale(normalize(length(ahead) > 1e-3 ? ahead : level([y[1], y[2], y[0]])), -1);
  const x = cross(y, back);
  return [0, 1, 2].flatMap((r) => [x[r]!, y[r]!, back[r]!, position[r]!]).concat([0, 0, 0, 1]);
}
