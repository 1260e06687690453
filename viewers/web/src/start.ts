/** Where a scene is seen from first, and how far from there the camera may go. */
import { centreOf, fitBox, type Lens, sizeOf } from "./camera/first-view";
import { type Rig, viewThrough } from "./camera/rig";
import { add, dot, length, normalize, scale, sub, type V3, type V3Like } from "./camera/vec";
import { upOf } from "./decode/bundle/up";
import type { Box, CaptureCamera, Extent, SceneInfo, View } from "./decode/protocol";
import type { Scene } from "./scene";

/** The camera that a bundle's writer made up where nobody took a photograph. */
const MADE_UP = "default";
/** It looks downwards by this slope, but level where it stands inside. */
const DOWNWARDS = 0.35;
const AXIS = Math.cos((4 * Math.PI) / 180);

export interface Start {
  view: View;
  /** Whether the view follows the window's shape. */
  fitted: boolean;
  /** Whether what stands in the middle is still to be found. */
  pivot: boolean;
}

const eyeOf = (c: CaptureCamera): V3 => [c.c2w[3]!, c.c2w[7]!, c.c2w[11]!];
const forwardOf = (c: CaptureCamera): V3 => [-c.c2w[2]!, -c.c2w[6]!, -c.c2w[10]!];
const aboveOf = (c: CaptureCamera): V3 => [c.c2w[1]!, c.c2w[5]!, c.c2w[9]!];
/** Whether a made-up camera stands in a room: from outside all of the box is before it. */
const isInside = (c: CaptureCamera, box: Box) =>
  length(sub(eyeOf(c), clamped(eyeOf(c), box))) === 0;

function madeUp(cameras: readonly CaptureCamera[]): CaptureCamera | null {
  return cameras.length === 1 && cameras[0]!.name === MADE_UP ? cameras[0]! : null;
}

/** The scene's box: what its writer says, what was found, or around its middle. */
export function boxOf(info: SceneInfo | null, extent: Extent): Box {
  const told = info?.content;
  if (told && sizeOf(told) > 0) return told;
  if (extent.stand) return extent.stand.box;
  const half: V3 = [extent.radius, extent.radius, extent.radius];
  return { low: sub(extent.center, half), high: add(extent.center, half) };
}

/** Which way is up, where nobody chose. */
export function upOfScene(scene: Scene): V3 | null {
  const camera = madeUp(scene.cameras);
  if (!camera && scene.cameras.length > 0)
    return scene.info?.cameras ? scene.info.up! : upOf(scene.cameras);
  if (!camera) return scene.extent?.stand?.up ?? scene.info?.up ?? null;
  const level = scene.extent && isInside(camera, boxOf(scene.info, scene.extent));
  const slope = level ? 0 : DOWNWARDS;
  const [sine, cosine] = [slope, 1].map((x) => x / Math.hypot(slope, 1)) as [number, number];
  const up = sub(scale(aboveOf(camera), cosine), scale(forwardOf(camera), sine));
  const axis = up.findIndex((x) => Math.abs(x) > AXIS);
  return axis < 0 ? up : (up.map((x, a) => (a === axis ? Math.sign(x) : 0)) as V3);
}

/** Sets the rig's box and limits, and finds the first view. */
export function startOf(scene: Scene, rig: Rig, lens: Lens): Start {
  const extent = scene.extent!;
  const box = boxOf(scene.info, extent);
  rig.setExtent(extent, box);
  const start = firstView(scene, rig.upAxis, box, lens);
  const limits = limitsOf(scene.cameras, scene.info?.limits ?? null, box);
  rig.setLimits(limits && including(limits, start.view.position), isField(scene.info));
  return start;
}

function isField(info: SceneInfo | null): boolean {
  return info?.drawable === "field";
}

function firstView(scene: Scene, up: V3, box: Box, lens: Lens): Start {
  const told = scene.wishes.view ?? scene.info?.view;
  if (told) return { view: told, fitted: false, pivot: false };
  const { cameras } = scene;
  const extent = scene.extent!;
  const first = madeUp(cameras) ? undefined : cameras[0];
  if (!first) {
    const camera = madeUp(cameras);
    // What a surface closes around may be any thing: it is no room to stand in.
    const inside = scene.info?.drawable === "mesh" ? null : extent.stand?.inside;
    if (camera && isInside(camera, box))
      return { view: viewThrough(camera.c2w, extent), fitted: false, pivot: true };
    if (!camera && inside) return { view: inside, fitted: false, pivot: true };
    const found = camera ? forwardOf(camera) : extent.stand?.forward;
    const forward = found && !scene.up ? found : oblique(up);
    return { view: fitBox(box, forward, up, lens), fitted: true, pivot: false };
  }
  const fit = fitBox(box, forwardOf(first), up, lens);
  if (isReachable(fit.position, cameras, box, isField(scene.info))) {
    return { view: fit, fitted: true, pivot: false };
  }
  return { view: viewThrough(first.c2w, extent), fitted: false, pivot: true };
}

/** A little from above and from the side, where nothing says more. */
function oblique(up: V3): V3 {
  const usual: V3 = Math.abs(up[2]) > 0.5 ? [0.6, 0.8, 0] : [0.6, 0, 0.8];
  const flat = normalize(sub(usual, scale(up, dot(usual, up))));
  return normalize(sub(flat, scale(up, DOWNWARDS)));
}

/**
 * Whether the scene looks right from where its whole box is in view: the cameras went around it,
 * and stood about as far away. Not in rooms, nor before a view that was taken from one side. An
 * object alone looks right from farther off, too; what is about as large as the space between the
 * cameras has surroundings, which from beyond show what nobody saw, and so does a field of light.
 */
function isReachable(
  eye: V3,
  cameras: readonly CaptureCamera[],
  box: Box,
  field: boolean,
): boolean {
  const eyes = cameras.map(eyeOf);
  const outside = eyes.filter((e) => length(sub(e, clamped(e, box))) > 0);
  if (outside.length < 0.7 * cameras.length) return false;
  const stood = boxAround(eyes);
  const spread = sizeOf(stood);
  const away = length(sub(eyes[0]!, centreOf(box)));
  const reach = field || sizeOf(box) > 0.6 * spread ? 0.25 : 0.75;
  // One camera alone says how far away it stood, and nothing of others; several in one place saw a
  // relief, which looks right from there.
  const allowed =
    cameras.length > 1 ? Math.max(reach * spread, 0.6 * Math.min(away, 4 * spread)) : away;
  return length(sub(eye, clamped(eye, stood))) <= allowed;
}

/**
 * The box of positions from where the scene looks right: where cameras stood, if that is known,
 * whatever the file says beyond.
 */
export function limitsOf(
  cameras: readonly CaptureCamera[],
  told: Box | null,
  box: Box,
): Box | null {
  if (cameras.length < 2) return madeUp(cameras) ? null : told;
  const stood = boxAround(cameras.map(eyeOf));
  if (!told) return stood;
  const reach = Math.max(sizeOf(stood), 0.05 * sizeOf(box));
  return {
    low: told.low.map((x, a) => Math.min(stood.low[a]!, Math.max(x, stood.low[a]! - reach))) as V3,
    high: told.high.map((x, a) =>
      Math.max(stood.high[a]!, Math.min(x, stood.high[a]! + reach)),
    ) as V3,
  };
}

function boxAround(points: readonly V3[]): Box {
  const ends = (pick: (...x: number[]) => number) =>
    [0, 1, 2].map((a) => pick(...points.map((p) => p[a]!))) as V3;
  return { low: ends(Math.min), high: ends(Math.max) };
}

function including(box: Box, point: V3Like): Box {
  return boxAround([box.low, box.high, [...point]]);
}

function clamped(point: V3, box: Box): V3 {
  return point.map((x, a) => Math.max(box.low[a]!, Math.min(box.high[a]!, x))) as V3;
}
