import type { Clock } from "./camera/clock";
import { HeldInput, type InputHandlers, PointerInput } from "./camera/input";
import { Rig } from "./camera/rig";
import type { V3 } from "./camera/vec";
import type { Reference } from "./compare";
import type { Box, CaptureCamera, SceneInfo } from "./decode/protocol";
import type { Immersion } from "./engine/immersion";
import { type CaptureOptions, type Pixels, Stage } from "./engine/stage";
import { Emitter, type Statistics } from "./events";
import { Picking, type PickingHost } from "./picking";
import type { Quality } from "./quality";
import { Resolution } from "./resolution";
import type { Content, Scene } from "./scene";
import { type SceneHost, Scenes } from "./scenes";
import type { Settings } from "./settings";
import { boxOf } from "./start";
import { statisticsOf } from "./statistics";
import { type ViewHost, Viewpoint } from "./viewpoint";

export type { Failure, Statistics } from "./events";

/** Seconds that time goes on at most from one frame to the next. */
const LONGEST_STEP_S = 0.5;

/**
 * The player without its page; the UI listens and calls. Its parts: scenes and their workers, the
 * camera, the resolution, picking; here is what connects them with the stage and with hands.
 */
export class Player extends Emitter implements SceneHost, PickingHost, ViewHost {
  readonly rig = new Rig();
  readonly held = new HeldInput(this.rig);
  readonly viewpoint: Viewpoint;
  /** While set, clicks go here instead of setting the focus (measuring). */
  onPoint: ((point: V3) => void) | null = null;
  private readonly scenes: Scenes;
  private readonly picking: Picking = new Picking(this);
  private readonly resolution: Resolution;
  private dirty = true;
  /** Whether it is another time than in the frame before, by itself. */
  private passing = false;
  /** Whether what is to be shown has not come yet. */
  private waiting = false;
  /** When time went on last, in milliseconds. */
  private ticked = 0;
  private frameMs = 0;
  private backdrop: V3 = [0, 0, 0];

  static async create(canvas: HTMLCanvasElement, settings: Settings): Promise<Player> {
    const box: { player?: Player } = {};
    const stage = await Stage.create(
      canvas,
      settings.backend ? [settings.backend] : ["webgpu", "webgl2"],
      {
        tick: () => box.player?.tick(),
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
    this.viewpoint = new Viewpoint(this, settings.fov);
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
      steer: () => this.viewpoint.steer(),
      focal: () => this.viewpoint.camera().K[0]!,
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

  /** Goes on from the start, but not where somebody asked for rest, or for one moment. */
  startClock(scene: Scene): void {
    scene.clock.begin(scene.wishes.time, this.rig.instant);
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

  /** Seconds of the scene in a second of the viewer's. */
  setSpeed(speed: number): void {
    if (speed > 0 && speed <= 100) this.clock.speed = speed;
    this.showTime();
  }

  /** Whether the beginning follows the end. */
  setLoop(on: boolean): void {
    this.clock.loop = on;
    this.showTime();
  }

  /** Stands at the next (1) or the previous (-1) captured time. */
  stepTime(by: 1 | -1): void {
    this.clock.step(by);
    this.showTime();
  }

  private showTime(): void {
    this.stage.setTime(this.clock.time);
    this.dirty = true;
    this.emit("time", this.clock.time);
  }

  /** What goes on by itself: also at rest, and in a headset. */
  private tick(): void {
    // The engine's own steps end at a tenth of a second: time would go slower where frames do.
    const now = performance.now();
    const passed = Math.min((now - this.ticked) / 1000, LONGEST_STEP_S);
    this.ticked = now;
    // What is not there yet is waited for.
    const waits = document.hidden || !this.stage.drawable.hasTime(this.clock.time);
    this.passing = !waits && this.clock.update(passed);
    if (this.passing) this.showTime();
    else if (waits !== this.waiting) this.emit("time", this.clock.time);
    this.waiting = waits;
  }

  private update(dt: number): void {
    const moved = this.rig.update(Math.min(dt, 0.1));
    const held = this.held.update(Math.min(dt, 0.1));
    if (held) this.viewpoint.steer();
    if (!moved && !held && !this.dirty) {
      this.resolution.resting(this.scene.fieldGovernor);
      return;
    }
    this.frameMs = 0.9 * this.frameMs + 0.1 * dt * 1000;
    if (this.settings.adaptive && (moved || this.passing))
      this.resolution.moving(dt, this.scene.fieldGovernor);
    this.dirty = false;
    const camera = this.viewpoint.camera();
    this.stage.setView(camera);
    this.emit("frame", camera);
    if (moved) this.emit("view");
  }

  resize(): void {
    const { exactSize } = this.viewpoint;
    const ratio = exactSize ? 1 : this.resolution.pixelRatio;
    const { width, height } = exactSize ?? {
      width: this.canvas.clientWidth,
      height: this.canvas.clientHeight,
    };
    this.stage.resize(Math.round(width * ratio), Math.round(height * ratio));
    this.viewpoint.refit();
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

  /** A click has found a surface; `fly`: a double one. */
  takePoint(point: V3, fly: boolean): void {
    if (this.onPoint) {
      this.onPoint(point);
      return;
    }
    this.viewpoint.steer();
    if (fly) this.rig.flyTo(point);
    else this.rig.focus(point);
    this.emit("focus", point);
  }

  capture(options?: CaptureOptions): Promise<Pixels> {
    this.stage.setView(this.viewpoint.camera());
    return this.stage.capture(options);
  }

  statistics(): Statistics {
    return statisticsOf(this, this.scene, this.frameMs);
  }
}
