import type { V3Like } from "./vec";

/** A pinhole camera as in the trainer: OpenGL axes, pixels from the top-left corner. */
export interface PinholeCamera {
  /** Camera to world, 4 x 4, row-major. */
  c2w: ArrayLike<number>;
  /** 3 x 3, row-major; skew is not used. */
  K: ArrayLike<number>;
  width: number;
  height: number;
}

/** Intrinsics for a picture whose larger side spans `fov` degrees. */
export function intrinsics(fov: number, width: number, height: number): number[] {
  const focal = (0.5 * Math.max(width, height)) / Math.tan((fov * Math.PI) / 360);
  return [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1];
}

/** The intrinsics that show all of a camera's picture in a part of a window; and its frame there. */
export function fitted(
  camera: { K: ArrayLike<number>; width: number; height: number },
  free: { x: number; y: number; width: number; height: number },
): { K: number[]; frame: { x: number; y: number; width: number; height: number } } {
  const s = Math.min(free.width / camera.width, free.height / camera.height);
  const frame = {
    x: free.x + (free.width - s * camera.width) / 2,
    y: free.y + (free.height - s * camera.height) / 2,
    width: s * camera.width,
    height: s * camera.height,
  };
  const { K } = camera;
  return {
    K: [s * K[0]!, 0, s * K[2]! + frame.x, 0, s * K[4]!, s * K[5]! + frame.y, 0, 0, 1],
    frame,
  };
}

/** Pixel and depth of a world point; null behind the camera. */
export function project(
  camera: PinholeCamera,
  point: V3Like,
): { x: number; y: number; depth: number } | null {
  const { c2w, K } = camera;
  const d = [point[0] - c2w[3]!, point[1] - c2w[7]!, point[2] - c2w[11]!];
  const along = (axis: number) =>
    d[0]! * c2w[axis]! + d[1]! * c2w[4 + axis]! + d[2]! * c2w[8 + axis]!;
  const depth = -along(2);
  if (depth <= 1e-6) return null;
  return {
    x: (K[0]! * along(0)) / depth + K[2]!,
    y: (-K[4]! * along(1)) / depth + K[5]!,
    depth,
  };
}

/** The world direction through a pixel, of unit depth along the optical axis. */
export function rayThrough(camera: PinholeCamera, x: number, y: number): [number, number, number] {
  const { c2w, K } = camera;
  const a = (x - K[2]!) / K[0]!;
  const b = -(y - K[5]!) / K[4]!;
  return [0, 1, 2].map((r) => c2w[4 * r]! * a + c2w[4 * r + 1]! * b - c2w[4 * r + 2]!) as [
    number,
    number,
    number,
  ];
}
