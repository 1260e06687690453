/** Where a camera stands from which a box just fills what is free of the window. */
import type { Box, View } from "../decode/protocol";
import { add, cross, dot, length, normalize, scale, sub, type V3, type V3Like } from "./vec";

/** What a camera shows and where of it nothing lies over the picture; pixels. */
export interface Lens {
  focal: number;
  free: { x: number; y: number; width: number; height: number };
}

/** Share of the free window that stays empty at each side that the box is nearest to. */
const MARGIN = 0.075;

export function centreOf(box: Box): V3 {
  return scale(add(box.low, box.high), 0.5);
}

export function sizeOf(box: Box): number {
  return length(sub(box.high, box.low));
}

function cornersOf(box: Box): V3[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].map(
    (n): V3 => [
      (n & 1 ? box.high : box.low)[0],
      (n & 2 ? box.high : box.low)[1],
      (n & 4 ? box.high : box.low)[2],
    ],
  );
}

/**
 * The view along `forward` in which the box' picture just fits the lens' free window, whose middle
 * is the camera's principal point: the nearest one, and the box in the middle.
 */
export function fitBox(box: Box, forward: V3Like, up: V3Like, lens: Lens): View {
  const ahead = normalize(forward);
  const right = normalize(cross(ahead, up));
  const above = cross(right, ahead);
  const centre = centreOf(box);
  const corners = cornersOf(box).map((corner): V3 => {
    const d = sub(corner, centre);
    return [dot(d, right), dot(d, above), dot(d, ahead)];
  });
  const share = 1 - 2 * MARGIN;
  const fits = [lens.free.width, lens.free.height].map((size, axis) => {
    // A corner (x, z) is inside where |x - s| <= a (z + d): s is the shift, d the distance.
    const a = Math.max(1e-3, (0.5 * share * size) / lens.focal);
    const first = Math.max(...corners.map((c) => c[axis]! - a * c[2]));
    const last = Math.min(...corners.map((c) => c[axis]! + a * c[2]));
    return { distance: (first - last) / (2 * a), shift: (first + last) / 2 };
  });
  const nearest = Math.max(...corners.map((c) => -c[2]));
  const wanted = Math.max(...fits.map((f) => f.distance), 1.02 * nearest, 1e-6);
  const shift = [0, 1].map((axis) => middleAt(corners, axis, wanted));
  const target = add(centre, add(scale(right, shift[0]!), scale(above, shift[1]!)));
  return { position: sub(target, scale(ahead, wanted)), target };
}

/** The shift that puts the corners' picture in the middle, from this distance. */
function middleAt(corners: readonly V3[], axis: number, distance: number): number {
  // Of (x - s) / (z + d) the largest and the least are opposite: solved by halving.
  let [low, high] = [
    Math.min(...corners.map((c) => c[axis]!)),
    Math.max(...corners.map((c) => c[axis]!)),
  ];
  for (let step = 0; step < 40; step++) {
    const s = (low + high) / 2;
    const slopes = corners.map((c) => (c[axis]! - s) / Math.max(1e-9, c[2] + distance));
    if (Math.max(...slopes) + Math.min(...slopes) > 0) low = s;
    else high = s;
  }
  return (low + high) / 2;
}
