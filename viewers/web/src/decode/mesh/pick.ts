import type { MeshData } from "./mesh";

type V3 = readonly [number, number, number];

/** Distance along the ray to the nearest triangle, seen from either side; null in the void. */
export function pickInMesh(
  { positions, triangles }: Pick<MeshData, "positions" | "triangles">,
  origin: V3,
  direction: V3,
): number | null {
  const length = Math.hypot(...direction);
  const [dx, dy, dz] = direction.map((x) => x / length) as [number, number, number];
  const [ox, oy, oz] = origin;
  let nearest = Number.POSITIVE_INFINITY;
  for (let t = 0; t < triangles.length; t += 3) {
    const [i, j, k] = [3 * triangles[t]!, 3 * triangles[t + 1]!, 3 * triangles[t + 2]!];
    const [ax, ay, az] = [positions[i]! - ox, positions[i + 1]! - oy, positions[i + 2]! - oz];
    const [bx, by, bz] = [positions[j]! - ox, positions[j + 1]! - oy, positions[j + 2]! - oz];
    const [cx, cy, cz] = [positions[k]! - ox, positions[k + 1]! - oy, positions[k + 2]! - oz];
    // Volumes that the ray spans with the three edges: all on one side where it meets the triangle.
    const u = dx * (by * cz - bz * cy) + dy * (bz * cx - bx * cz) + dz * (bx * cy - by * cx);
    const v = dx * (cy * az - cz * ay) + dy * (cz * ax - cx * az) + dz * (cx * ay - cy * ax);
    const w = dx * (ay * bz - az * by) + dy * (az * bx - ax * bz) + dz * (ax * by - ay * bx);
    if (!((u >= 0 && v >= 0 && w >= 0) || (u <= 0 && v <= 0 && w <= 0))) continue;
    const sum = u + v + w;
    const distance =
      (u * (ax * dx + ay * dy + az * dz) +
        v * (bx * dx + by * dy + bz * dz) +
        w * (cx * dx + cy * dy + cz * dz)) /
      sum;
    if (distance > 0 && distance < nearest) nearest = distance;
  }
  return Number.isFinite(nearest) ? nearest : null;
}
