import { Mat4 } from "playcanvas";
import type { PinholeCamera } from "../camera/projection";

/** OpenGL projection of a pinhole camera, off-centre and with non-square pixels. */
export function projectionOf(camera: PinholeCamera, near: number, far: number): Mat4 {
  const { K, width, height } = camera;
  const fx = K[0]!;
  const fy = K[4]!;
  const cx = K[2]!;
  const cy = K[5]!;
  const m = new Mat4();
  m.data.fill(0);
  m.data[0] = (2 * fx) / width;
  m.data[5] = (2 * fy) / height;
  m.data[8] = 1 - (2 * cx) / width;
  m.data[9] = (2 * cy) / height - 1;
  m.data[10] = -(far + near) / (far - near);
  m.data[11] = -1;
  m.data[14] = (-2 * far * near) / (far - near);
  return m;
}
