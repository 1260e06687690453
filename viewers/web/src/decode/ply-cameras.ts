/**
 * Cameras in a PLY's comments, from which its splats were seen: "scene4d camera", three rows of the
 * camera to world, fx, fy, cx, cy, width, height, name (src/scene4d/bundle/ply_cameras.py).
 */
import type { CaptureCamera } from "./protocol";

const NUMBERS = 18;
const LARGEST = 1e6;

export function camerasOf(comments: readonly string[]): CaptureCamera[] {
  return comments.map(cameraOf).filter((camera) => camera !== null);
}

/** Null for other comments, and for numbers that make no camera. */
function cameraOf(comment: string): CaptureCamera | null {
  const [first, second, ...words] = comment.split(/\s+/);
  if (first !== "scene4d" || second !== "camera") return null;
  const numbers = words.slice(0, NUMBERS).map(Number);
  const [fx, fy, cx, cy, width, height] = numbers.slice(12) as [number, ...number[]];
  const camera = {
    name: words.slice(NUMBERS).join(" "),
    c2w: [...numbers.slice(0, 12), 0, 0, 0, 1],
    K: [fx, 0, cx!, 0, fy!, cy!, 0, 0, 1],
    width: width!,
    height: height!,
  };
  const finite = numbers.length === NUMBERS && numbers.every(Number.isFinite);
  const lens = Math.min(fx, fy!, width!, height!) > 0 && Math.max(width!, height!) <= LARGEST;
  return finite && lens && isRotation(camera.c2w) ? camera : null;
}

function isRotation(m: readonly number[]): boolean {
  return [0, 1, 2].every((a) =>
    [0, 1, 2].every((b) => {
      const along = [0, 4, 8].reduce((sum, r) => sum + m[r + a]! * m[r + b]!, 0);
      return Math.abs(along - (a === b ? 1 : 0)) < 1e-3;
    }),
  );
}
