import { type Field, upsamplingOf } from "./field";
import { fieldDistance, fieldPicture, pixelOf } from "./picture";

/** A pixel with less coverage than this has nothing to focus on. */
const LEAST_COVERAGE = 0.2;

/** Distance along the ray through a pixel of `camera`; null in the void and where nobody knows. */
export function pickInField(
  field: Field,
  camera: { c2w: number[]; K: number[]; x: number; y: number },
): number | null {
  // The smallest picture at the scale that the network knows, with the ray through its middle.
  const size = upsamplingOf(field.shape);
  const { K } = camera;
  const scale = field.shape.focal / K[0]!;
  const middle = Math.floor(size / 2);
  const [fx, fy] = [scale * K[0]!, scale * K[4]!];
  const cx = middle + 0.5 - scale * (camera.x - K[2]!);
  const cy = middle + 0.5 - scale * (camera.y - K[5]!);
  const part = { c2w: camera.c2w, K: [fx, 0, cx, 0, fy, cy, 0, 0, 1], width: size, height: size };
  const picture = fieldPicture(field, part);
  const at = middle * size + middle;
  if (!(pixelOf(picture, at)[3]! >= LEAST_COVERAGE)) return null;
  const distance = fieldDistance(field, part, picture, middle, middle);
  return distance > 0 ? distance : null;
}
