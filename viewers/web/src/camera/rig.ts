import type { Box, Extent, View } from "../decode/protocol";
import { fitBox, type Lens, sizeOf } from "./first-view";
import {
  add,
  cross,
  dot,
  frameOf,
  length,
  lerp,
  normalize,
  scale,
  sub,
  type V3,
  type V3Like,
} from "./vec";

export const MODES = ["orbit", "fly", "walk"] as const;
export type Mode = (typeof MODES)[number];

/** Where the camera is: the anchor is the target in orbit mode and the eye in the others. */
interface State {
  anchor: V3;
  yaw: number;
  pitch: number;
  distance: number;
}

const MAX_PITCH = (89 / 180) * Math.PI;
/** Time in which the camera makes up 63% of its way to the goal. */
const SMOOTHING_S = 0.09;
const STILL = 1e-5;
/** The eye may go this far from the scene's centre, in radii, before it is held back. */
const LIMIT_RADII = 8;
/** Limits that are smaller than this share of the distance to what is looked at are a relief's. */
const RELIEF_SHARE = 0.15;
/** How fast it is drawn back. */
const PULL_PER_S = 4;

/** All of a rig that belongs to one scene; a plain value, so that it can be put back. */
export interface Stance {
  mode: Mode;
  up: V3;
  axes: [V3, V3];
  goal: State;
  now: State;
  home: View | null;
  extent: Extent;
  /** What is to be seen. */
  box: Box;
  /** Units per second in fly and walk. */
  speed: number;
  /** The box of positions from where the scene looks right, or none. */
  limits: Box | null;
  /** Keeps nearer to the limits: beyond them a field of light shows nothing, or a blur. */
  confined: boolean;
}

function freshStance(mode: Mode): Stance {
  const start: State = { anchor: [0, 0, 0], yaw: 0, pitch: 0, distance: 1 };
  return {
    mode,
    up: [0, 0, 1],
    axes: frameOf([0, 0, 1]),
    goal: start,
    now: { ...start },
    home: null,
    extent: { center: [0, 0, 0], radius: 1 },
    box: { low: [-1, -1, -1], high: [1, 1, 1] },
    speed: 1,
    limits: null,
    confined: false,
  };
}

/** A camera without roll that people steer: pure state, no events, no engine. */
export class Rig {
  /** No inertia and no flights: jump. */
  instant = false;
  private stance = freshStance("orbit");

  /** What belongs to the scene, to be put back with `take`. */
  save(): Stance {
    return { ...this.stance };
  }

  take(stance: Stance): void {
    this.stance = { ...stance };
  }

  /** For another scene; the way of moving stays. */
  renew(): void {
    this.stance = freshStance(this.mode);
  }

  get mode(): Mode {
    return this.stance.mode;
  }

  get extent(): Extent {
    return this.stance.extent;
  }

  get speed(): number {
    return this.stance.speed;
  }

  private get up(): V3 {
    return this.stance.up;
  }

  private get axes(): [V3, V3] {
    return this.stance.axes;
  }

  private get goal(): State {
    return this.stance.goal;
  }

  private set goal(state: State) {
    this.stance.goal = state;
  }

  private get now(): State {
    return this.stance.now;
  }

  private set now(state: State) {
    this.stance.now = state;
  }

  setUp(up: V3Like): void {
    const view = this.view();
    this.stance.up = normalize(up);
    this.stance.axes = frameOf(this.up);
    this.setView(view, true);
  }

  get upAxis(): V3 {
    return this.up;
  }

  /** The axis that stands upright when the picture is turned by 90 degrees. */
  turnedUp(): V3 {
    const turned = cross(this.forward, this.up);
    const largest = Math.max(...turned.map(Math.abs));
    const axis = turned.findIndex((x) => Math.abs(x) === largest);
    return turned.map((x, a) => (a === axis ? Math.sign(x) : 0)) as V3;
  }

  /** The scene's bulk and what of it is to be seen: sets speed and limits. */
  setExtent(extent: Extent, box: Box): void {
    this.stance.extent = extent;
    this.stance.box = box;
    this.stance.speed = extent.radius * 0.7;
  }

  setLimits(limits: Box | null, confined: boolean): void {
    this.stance.limits = limits;
    this.stance.confined = confined;
  }

  private forwardOf(s: State): V3 {
    const [x, y] = this.axes;
    const flat = add(scale(x, Math.cos(s.yaw)), scale(y, Math.sin(s.yaw)));
    return add(scale(flat, Math.cos(s.pitch)), scale(this.up, Math.sin(s.pitch)));
  }

  private eyeOf(s: State): V3 {
    return this.mode === "orbit" ? sub(s.anchor, scale(this.forwardOf(s), s.distance)) : s.anchor;
  }

  private targetOf(s: State): V3 {
    return this.mode === "orbit" ? s.anchor : add(s.anchor, scale(this.forwardOf(s), s.distance));
  }

  get position(): V3 {
    return this.eyeOf(this.now);
  }

  get forward(): V3 {
    return this.forwardOf(this.now);
  }

  get right(): V3 {
    return normalize(cross(this.forward, this.up));
  }

  /** Where the camera is going. */
  view(): View {
    return { position: this.eyeOf(this.goal), target: this.targetOf(this.goal) };
  }

  /** Camera to world, row-major 4 x 4, OpenGL axes. */
  c2w(): number[] {
    const back = scale(this.forward, -1);
    const right = this.right;
    const up = cross(back, right);
    const eye = this.position;
    return [0, 1, 2].flatMap((r) => [right[r]!, up[r]!, back[r]!, eye[r]!]).concat([0, 0, 0, 1]);
  }

  setMode(mode: Mode): void {
    if (mode === this.mode) return;
    const convert = (s: State): State => {
      const [eye, target] = [this.eyeOf(s), this.targetOf(s)];
      return { ...s, anchor: mode === "orbit" ? target : eye };
    };
    const [goal, now] = [convert(this.goal), convert(this.now)];
    if (mode === "walk") goal.pitch = Math.max(-0.6, Math.min(0.6, goal.pitch));
    this.stance = { ...this.stance, mode, goal, now };
  }

  /** Goes to a place; `jump`: at once. */
  setView(view: View, jump = false): void {
    this.goal = this.stateAt(view);
    if (jump || this.instant) this.now = { ...this.goal };
  }

  private stateAt(view: View): State {
    const d = sub(view.target, view.position);
    const distance = Math.max(1e-6, length(d));
    const f = scale(d, 1 / distance);
    const pitch = Math.asin(Math.max(-1, Math.min(1, dot(f, this.up))));
    const yaw = Math.atan2(dot(f, this.axes[1]), dot(f, this.axes[0]));
    const anchor = this.mode === "orbit" ? view.target : view.position;
    return {
      anchor: [...anchor] as V3,
      yaw: nearest(yaw, this.now.yaw),
      pitch: clampPitch(pitch),
      distance,
    };
  }

  setHome(view: View): void {
    this.stance.home = view;
  }

  get home(): View | null {
    return this.stance.home;
  }

  reset(): void {
    if (this.home) this.setView(this.home);
  }

  /** The whole scene in view from a direction, or from the present one. */
  framing(lens: Lens, forward: V3Like = this.forwardOf(this.goal)): View {
    return fitBox(this.stance.box, forward, this.up, lens);
  }

  /** Orbits what stands this far ahead from now on; the picture stays as it is. */
  setDistance(distance: number): void {
    const { position, target } = this.view();
    const ahead = normalize(sub(target, position));
    this.setView({ position, target: add(position, scale(ahead, distance)) }, true);
  }

  /** Turns towards a point and orbits it from now on. */
  focus(point: V3Like): void {
    this.setView({ position: this.eyeOf(this.goal), target: [...point] as V3 });
  }

  /** Flies towards a point, to a third of the distance. */
  flyTo(point: V3Like): void {
    const eye = this.eyeOf(this.goal);
    const position = lerp(point, eye, 1 / 3);
    this.setView({ position, target: [...point] as V3 });
  }

  /** Drags by radians: around the target in orbit, the head in fly and walk. */
  turn(dx: number, dy: number): void {
    const sign = this.mode === "orbit" ? 1 : 0.6;
    const { yaw, pitch } = this.goal;
    this.goal = { ...this.goal, yaw: yaw - sign * dx, pitch: clampPitch(pitch - sign * dy) };
  }

  /** Shifts sideways and up, by lengths at the target's distance as shares of it. */
  pan(dx: number, dy: number): void {
    const ahead = this.forwardOf(this.goal);
    const right = normalize(cross(ahead, this.up));
    const above = cross(right, ahead);
    const step = this.goal.distance;
    const shift = add(scale(right, -dx * step), scale(above, dy * step));
    const flat = this.mode === "walk" ? this.flat(shift) : shift;
    this.goal = { ...this.goal, anchor: add(this.goal.anchor, flat) };
  }

  /** How far from its target an orbiting eye may go. */
  private farthest(): number {
    const { limits, box, extent } = this.stance;
    if (!limits) return extent.radius * LIMIT_RADII;
    return 2 * Math.max(sizeOf(limits), Math.min(sizeOf(box), extent.radius * LIMIT_RADII));
  }

  /** Factor below 1 goes nearer. */
  zoom(factor: number): void {
    const f = Math.max(0.2, Math.min(5, factor));
    if (this.mode === "orbit") {
      const { radius } = this.extent;
      const far = Math.max(this.farthest(), this.goal.distance);
      const distance = Math.max(radius * 0.005, Math.min(far, this.goal.distance * f));
      this.goal = { ...this.goal, distance };
      return;
    }
    this.move(0, 0, (1 - f) * 4, 0.25);
  }

  /** Walks or flies: each -1 to 1 (or a multiple for running). */
  move(right: number, up: number, forward: number, dt: number): void {
    const ahead = this.mode === "walk" ? normalize(this.flat(this.forward)) : this.forward;
    const lift = this.mode === "walk" ? 0 : up;
    const direction = add(
      add(scale(this.right, right), scale(ahead, forward)),
      scale(this.up, lift),
    );
    const anchor = add(this.goal.anchor, scale(direction, this.speed * dt));
    this.goal = { ...this.goal, anchor };
  }

  private flat(v: V3Like): V3 {
    return sub(v, scale(this.up, dot(v, this.up)));
  }

  /** Advances by dt seconds; whether anything moved. */
  update(dt: number): boolean {
    this.holdBack(dt);
    const t = this.instant ? 1 : 1 - Math.exp(-dt / SMOOTHING_S);
    const before = this.now;
    this.now = {
      anchor: lerp(before.anchor, this.goal.anchor, t),
      yaw: before.yaw + (this.goal.yaw - before.yaw) * t,
      pitch: before.pitch + (this.goal.pitch - before.pitch) * t,
      distance: before.distance + (this.goal.distance - before.distance) * t,
    };
    const moved =
      length(sub(this.goal.anchor, before.anchor)) / this.extent.radius +
      Math.abs(this.goal.yaw - before.yaw) +
      Math.abs(this.goal.pitch - before.pitch) +
      Math.abs(this.goal.distance / before.distance - 1);
    if (moved < STILL) {
      this.now = { ...this.goal, anchor: [...this.goal.anchor] as V3 };
      return moved > 0;
    }
    return true;
  }

  /** Beyond the limits the goal is drawn back softly. */
  private holdBack(dt: number): void {
    const eye = this.eyeOf(this.goal);
    const beyond = sub(eye, this.allowed(eye));
    if (length(beyond) === 0) return;
    const back = scale(beyond, 1 - Math.exp(-dt * PULL_PER_S));
    const { limits, mode } = this.stance;
    // What is seen from one place stays in view: the shift would turn the eye in its place.
    if (mode === "orbit" && limits && sizeOf(limits) < RELIEF_SHARE * this.goal.distance) {
      this.goal = this.stateAt({ position: sub(eye, back), target: this.goal.anchor });
      return;
    }
    this.goal = { ...this.goal, anchor: sub(this.goal.anchor, back) };
  }

  /**
   * The nearest place to stand: within the limits' box and half its size around (a quarter where
   * it is confined), or a ball.
   */
  private allowed(eye: V3Like): V3 {
    const { limits, confined } = this.stance;
    if (limits) {
      const { low, high } = limits;
      const [size, { radius }] = [length(sub(high, low)), this.extent];
      const margin = Math.max((confined ? 0.25 : 0.5) * size, 0.02 * radius);
      return [0, 1, 2].map((a) =>
        Math.max(low[a]! - margin, Math.min(high[a]! + margin, eye[a]!)),
      ) as V3;
    }
    const { center, radius } = this.extent;
    const offset = sub(eye, center);
    const far = length(offset);
    return far <= radius * LIMIT_RADII
      ? ([...eye] as V3)
      : add(center, scale(offset, (radius * LIMIT_RADII) / far));
  }
}

/** The view of a camera (row-major, OpenGL axes), looking at what is in the middle of the scene. */
export function viewThrough(c2w: readonly number[], { center, radius }: Extent): View {
  const position: V3 = [c2w[3]!, c2w[7]!, c2w[11]!];
  const forward: V3 = [-c2w[2]!, -c2w[6]!, -c2w[10]!];
  const along = dot(forward, sub(center, position));
  return { position, target: add(position, scale(forward, Math.max(along, radius * 0.2))) };
}

function clampPitch(pitch: number): number {
  return Math.max(-MAX_PITCH, Math.min(MAX_PITCH, pitch));
}

/** The angle of the same direction that is nearest to another. */
function nearest(angle: number, to: number): number {
  const turn = 2 * Math.PI;
  return angle + turn * Math.round((to - angle) / turn);
}
