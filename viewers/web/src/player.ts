import type { Clock } from "./camera/clock";
import type { Lens } from "./camera/first-view";
import { HeldInput, type InputHandlers, PointerInput } from "./camera/input";
import { fitted, type PinholeCamera } from "./camera/projection";
import { MODES, type Mode, Rig } from "./camera/rig";
import { add, length, scale, sub, type V3 } from "./camera/vec";
import type { Reference } from "./compare";
import type { Box, CaptureCamera, SceneInfo, View } from "./decode/protocol";
import type { Immersion } from "./engine/immersion";
import { type CaptureOptions, type Pixels, Stage } from "./engine/stage";
import { Emitter, type Statistics } from "./events";
import { Picking, type PickingHost } from "./picking";
import type { Quality } from "./quality";
import { Resolution } from "./resolution";
import type { Content, Scene } from "./scene";
import { type SceneHost, Scenes } from "./scenes";
import type { Settings } from "./settings";
import { boxOf, startOf, upOfScene } from "./start";
import { statisticsOf } from "./statistics";

export type { Failure, Statistics } from "./events";

/** What lies over the window's edges, in CSS pixels. */
export interface Insets {
  top: number;
  right: number;
  bottom: number;
  left: number;
}

/** The player without its page: scenes, camera, input; the UI listens and calls. */
export class Player extends Emitter implements SceneHost, PickingHost {
  readonly rig = new Rig();
  readonly held = new HeldInput(this.rig);
  fov: number;
  /** While set, clicks go here instead of setting the focus (measuring). */
  onPoint: ((point: V3) => void) | null = null;
  private readonly scenes: Scenes;
  private readonly picking: Picking = new Picking(this);
  private readonly resolution: Resolution;
  private exact: PinholeCamera | null = null;
  private dirty = true;
  private frameMs = 0;
  private insets: Insets = { top: 0, right: 0, bottom: 0, left: 0 };
  private backdrop: V3 = [0, 0, 0];

  static async create(canvas: HTMLCanvasElement, settings: Settings): Promise<Player> {
    const box: { player?: Player } = {};
    const stage = await Stage.create(
      canvas,
      settings.backend ? [settings.backend] : ["webgpu", "webgl2"],
      {
        tick: (dt) => box.player?.tick(dt),
        update: (dt) => box.player?.update(dt),
        immersed: (on) => {
          if (!on) box.player?.resize();
          box.player?.emit("immersed", on);
        },
        lost: () => box.player?.emit("context", true),
        restored: () => box.player?.emit("context", false),
      },
    );
    box.player = new Player(canvas, stage, settings);
    return box.player;
  }

  private constructor(
    readonly canvas: HTMLCanvasElement,
    readonly stage: Stage,
    readonly settings: Settings,
  ) {
    super();
    this.fov = settings.fov;
    this.resolution = new Resolution(settings.quality, stage, () => this.resize());
    this.scenes = new Scenes(this);
    const reduced = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.rig.instant = reduced.matches || !settings.animation;
    reduced.addEventListener("change", () => {
      this.rig.instant = reduced.matches || !settings.animation;
    });
    if (settings.up) this.rig.setUp(settings.up);
    this.rig.setMode(settings.mode);
    new PointerInput(canvas, this.rig, this.hands(), window.parent !== window);
    // The element around it: the canvas' own size may follow from its pixels.
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement ?? canvas);
    document.addEventListener("visibilitychange", () => stage.setPaused(document.hidden));
    this.resize();
  }

  private hands(): InputHandlers {
    return {
      click: (x, y) => this.picking.click(x, y),
      doubleClick: () => void this.picking.fly(),
      steer: () => this.steer(),
      focal: () => this.camera().K[0]!,
      passed: () => this.emit("passed"),
    };
  }

  /** Whether scenes are fetched with the cookies of this page's host. */
  credentials: RequestCredentials = "same-origin";

  /** What is shown. */
  get scene(): Scene {
    return this.scenes.shown;
  }

  get quality(): Quality {
    return this.resolution.quality;
  }

  /**
   * Opens a scene. One that is shown stays until something of the new one can be drawn, and comes
   * back where that fails. The settings' view, axes, cameras and so on are those of the first.
   */
  open(content: Content): void {
    this.scenes.open(content);
  }

  /** Tries the same content again. */
  retry(): void {
    this.scenes.retry();
  }

  get info(): SceneInfo | null {
    return this.scene.info;
  }

  get captureCameras(): readonly CaptureCamera[] {
    return this.scene.cameras;
  }

  get started(): boolean {
    return this.scene.started;
  }

  get finished(): boolean {
    return this.scene.finished;
  }

  get clock(): Clock {
    return this.scene.clock;
  }

  /** Takes clicks that mean something else (a training camera): whether this was one. */
  set onClick(take: (x: number, y: number) => boolean) {
    this.picking.onClick = take;
  }

  forgetClick(): void {
    this.picking.forget();
  }

  /** A picture to show until the scene is drawn. */
  showPoster(url: string): void {
    if (!this.started) this.emit("poster", url);
  }

  /** Draws again, with what lies over the picture. */
  refresh(): void {
    this.dirty = true;
  }

  /** The colour behind scenes that have none of their own. */
  setBackdrop(rgb: V3): void {
    this.backdrop = rgb;
    this.applyBackground();
  }

  /** Chosen by hand; null: the scene's own, or the page's. */
  setBackground(rgb: V3 | null): void {
    this.scene.background = rgb;
    this.applyBackground();
  }

  get background(): V3 {
    const { background, info } = this.scene;
    // Black is what writers say who know of none.
    const own = info?.background?.some((x) => x > 0) ? info.background : null;
    return background ?? own ?? this.backdrop;
  }

  applyBackground(): void {
    this.stage.setBackground(this.background);
    this.dirty = true;
    this.emit("background", this.background);
  }

  place(scene: Scene): void {
    const up = scene.up ?? upOfScene(scene);
    if (up) this.rig.setUp(up);
    const { view, fitted, pivot } = startOf(scene, this.rig, this.lens());
    this.rig.setHome(view);
    this.rig.setView(view, true);
    scene.fit = fitted ? "home" : null;
    scene.pivot = pivot;
    this.dirty = true;
  }

  /** What stands in the middle is turned around, where the first view is a photograph's. */
  async findPivot(scene: Scene): Promise<void> {
    if (!scene.pivot) return;
    const distance = await this.distanceAhead();
    if (distance === null || scene !== this.scene || !scene.pivot) return;
    this.rig.setDistance(distance);
    this.rig.setHome(this.rig.view());
    scene.pivot = !scene.finished;
    this.emit("view");
  }

  /** The window's part that no bar lies over, in CSS pixels. */
  setInsets(insets: Insets): void {
    if (JSON.stringify(insets) === JSON.stringify(this.insets)) return;
    this.insets = insets;
    this.refit();
  }

  /** The focal length and the free part of the window, in CSS pixels. */
  private lens(): Lens {
    const { clientWidth, clientHeight } = this.canvas;
    const width = Math.max(1, clientWidth);
    const height = Math.max(1, clientHeight);
    const focal = (0.5 * Math.max(width, height)) / Math.tan((this.fov * Math.PI) / 360);
    const { top, right, bottom, left } = this.insets;
    const free = { x: left, y: top, width: width - left - right, height: height - top - bottom };
    // In a very small frame the bars may cover the picture.
    const usable = free.width > 0.4 * width && free.height > 0.4 * height;
    return { focal, free: usable ? free : { x: 0, y: 0, width, height } };
  }

  /** The first view, or the framed one, for the window as it is now. */
  private refit(): void {
    const { scene, rig } = this;
    this.dirty = true;
    if (!scene.fit || !scene.extent) return;
    const { view } = startOf(scene, rig, this.lens());
    rig.setHome(view);
    rig.setView(scene.fit === "home" ? view : rig.framing(this.lens()), true);
  }

  /** Goes on from the start, but not where somebody asked for rest, or for one moment. */
  startClock(scene: Scene): void {
    const { time } = scene.wishes;
    if (time !== null) scene.clock.seek(time);
    else if (!this.rig.instant) scene.clock.play();
    this.showTime();
  }

  applyBudget(): void {
    const { layer, info } = this.scene;
    const shown = info?.shown ?? Number.POSITIVE_INFINITY;
    this.stage.limit(layer, Math.ceil(this.quality.share * shown));
  }

  /** Shows the scene in a headset, from where the camera is; from a click. Rejects where it fails. */
  immerse(kind: Immersion): Promise<void> {
    const { position, forward, upAxis: up, speed } = this.rig;
    return this.stage.immerse(kind, { position, forward, up, speed });
  }

  setQuality(level: number): void {
    this.resolution.choose(level);
    this.applyBudget();
    this.resize();
  }

  setFov(degrees: number): void {
    this.fov = degrees;
    this.refit();
  }

  /** Another direction stands upright; the whole scene comes into view. */
  setUp(up: V3): void {
    this.steer();
    this.scene.up = up;
    this.rig.setUp(up);
    this.frameScene();
  }

  /** Throws where there is no such mode. */
  setMode(mode: Mode): void {
    if (!MODES.includes(mode))
      throw new Error(`mode must be one of ${MODES.join(", ")}, not ${JSON.stringify(mode)}`);
    this.leaveCamera();
    this.rig.setMode(mode);
    this.emit("mode", mode);
  }

  frameScene(): void {
    this.leaveCamera();
    this.rig.setView(this.rig.framing(this.lens()));
    this.scene.fit = "frame";
    this.emit("view");
  }

  /** Back to the first view, for the window as it is now. */
  reset(): void {
    this.leaveCamera();
    const { scene, rig } = this;
    if (scene.extent) {
      const { view, fitted } = startOf(scene, rig, this.lens());
      if (fitted) rig.setHome(view);
      scene.fit = fitted ? "home" : null;
    }
    rig.reset();
    this.emit("view");
  }

  goTo(view: View, jump = false): void {
    this.steer();
    this.rig.setView(view, jump);
    this.emit("view"); // a jump is no movement that the next frame would see
  }

  /** Shows another time of a scene that moves, in seconds. */
  setTime(seconds: number): void {
    this.clock.seek(seconds);
    this.showTime();
  }

  /** Lets time go on, or stand. */
  setPlaying(on: boolean): void {
    if (on) this.clock.play();
    else this.clock.pause();
    this.showTime();
  }

  private showTime(): void {
    this.stage.setTime(this.clock.time);
    this.dirty = true;
    this.emit("time", this.clock.time);
  }

  /** What goes on by itself: also at rest, and in a headset. */
  private tick(dt: number): void {
    if (!document.hidden && this.clock.update(Math.min(dt, 0.25))) this.showTime();
  }

  /** Looks through a training camera, with its own lens, fitted into the window. */
  lookThrough(index: number | null): void {
    if (index === null) {
      this.leaveCamera();
      return;
    }
    const camera = this.captureCameras[index];
    if (!camera) return;
    this.steer();
    this.scene.through = index;
    if (camera.time !== undefined && this.clock.range) this.setTime(camera.time);
    const m = camera.c2w;
    const position: V3 = [m[3]!, m[7]!, m[11]!];
    const ahead = scale([-m[2]!, -m[6]!, -m[10]!], this.rig.extent.radius);
    this.rig.setView({ position, target: add(position, ahead) }, true);
    this.dirty = true;
    this.emit("camera", index);
    void this.distanceAhead().then((distance) => {
      if (distance !== null && this.scene.through === index) this.rig.setDistance(distance);
    });
  }

  /** A hand has taken the camera. */
  private steer(): void {
    this.leaveCamera();
    this.scene.fit = null;
    this.scene.pivot = false;
    this.emit("steer");
  }

  leaveCamera(): void {
    if (this.exact) {
      this.exact = null;
      this.resize();
    }
    if (this.scene.through !== null) {
      this.scene.through = null;
      this.emit("camera", null);
    }
    this.dirty = true;
  }

  get lookingThrough(): number | null {
    return this.scene.through;
  }

  /** The frame of the training camera's picture within the window, in CSS pixels. */
  pictureFrame(): { x: number; y: number; width: number; height: number } | null {
    const { through } = this.scene;
    const camera = through === null ? undefined : this.captureCameras[through];
    return camera ? fitted(camera, this.lens().free).frame : null;
  }

  /** Draws exactly this camera at its own size from now on (tests, frame export); null: no more. */
  setCamera(camera: PinholeCamera | null): void {
    this.exact = camera;
    this.resize();
    if (camera) this.stage.setView(camera);
    this.dirty = true;
  }

  /** The camera as it is drawn, in CSS pixels. */
  camera(): PinholeCamera {
    if (this.exact) return this.exact;
    const width = Math.max(1, this.canvas.clientWidth);
    const height = Math.max(1, this.canvas.clientHeight);
    const { through } = this.scene;
    const camera = through === null ? undefined : this.captureCameras[through];
    const { free, focal } = this.lens();
    if (camera) return { c2w: camera.c2w, K: fitted(camera, free).K, width, height };
    const [cx, cy] = [free.x + free.width / 2, free.y + free.height / 2];
    return { c2w: this.rig.c2w(), K: [focal, 0, cx, 0, focal, cy, 0, 0, 1], width, height };
  }

  private update(dt: number): void {
    const moved = this.rig.update(Math.min(dt, 0.1));
    const held = this.held.update(Math.min(dt, 0.1));
    if (held) this.steer();
    if (!moved && !held && !this.dirty) {
      this.resolution.resting(this.scene.fieldGovernor);
      return;
    }
    this.frameMs = 0.9 * this.frameMs + 0.1 * dt * 1000;
    if (this.settings.adaptive && moved) this.resolution.moving(dt, this.scene.fieldGovernor);
    this.dirty = false;
    const camera = this.camera();
    this.stage.setView(camera);
    this.emit("frame", camera);
    if (moved) this.emit("view");
  }

  private resize(): void {
    const ratio = this.exact ? 1 : this.resolution.pixelRatio;
    const { width, height } = this.exact ?? {
      width: this.canvas.clientWidth,
      height: this.canvas.clientHeight,
    };
    this.stage.resize(Math.round(width * ratio), Math.round(height * ratio));
    this.refit();
  }

  /** The box of the scene, or of what of it is there at a time in seconds, where parts come and go. */
  bounds(time = this.clock.time): Box | null {
    const { layer, info, extent } = this.scene;
    return layer.drawable.boxAt(time) ?? (extent && boxOf(info, extent));
  }

  /** A picture of the writer's renderer that the bundle holds; null where it cannot be read. */
  async reference(index: number): Promise<Reference | null> {
    const answer = await this.scene.ask({ type: "reference", id: 0, index });
    if (answer?.type !== "reference" || !answer.bytes) return null;
    return { bytes: answer.bytes, camera: this.info!.cameras![answer.camera]! };
  }

  /** The surface at a CSS pixel, at the time that is shown or another; null in the void. */
  pick(x: number, y: number, time = this.clock.time): Promise<V3 | null> {
    return this.picking.pick(x, y, time);
  }

  private async distanceAhead(): Promise<number | null> {
    const { K } = this.camera();
    const point = await this.pick(K[2]!, K[5]!);
    return point && length(sub(point, this.rig.position));
  }

  /** A click has found a surface; `fly`: a double one. */
  takePoint(point: V3, fly: boolean): void {
    if (this.onPoint) {
      this.onPoint(point);
      return;
    }
    this.steer();
    if (fly) this.rig.flyTo(point);
    else this.rig.focus(point);
    this.emit("focus", point);
  }

  capture(options?: CaptureOptions): Promise<Pixels> {
    this.stage.setView(this.camera());
    return this.stage.capture(options);
  }

  statistics(): Statistics {
    return statisticsOf(this, this.scene, this.frameMs);
  }
}
