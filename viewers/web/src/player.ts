import type { Clock } from "./camera/clock";
import type { Lens } from "./camera/first-view";
import { HeldInput, type InputHandlers, PointerInput } from "./camera/input";
import { fitted, type PinholeCamera, rayThrough } from "./camera/projection";
import { MODES, type Mode, Rig } from "./camera/rig";
import { add, length, scale, sub, type V3 } from "./camera/vec";
import type { Reference } from "./compare";
import { SceneError } from "./decode/errors";
import type { FieldPlane } from "./decode/field/field";
import type {
  Box,
  CaptureCamera,
  FromWorker,
  OpenRequest,
  SceneInfo,
  View,
} from "./decode/protocol";
import type { Immersion } from "./engine/immersion";
import { type CaptureOptions, type Pixels, Stage } from "./engine/stage";
import type { Failure, PlayerEvents, Statistics } from "./events";
import { type Quality, qualityLevel, ResolutionGovernor } from "./quality";
import { type Content, NO_WISHES, Scene, type Wishes } from "./scene";
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
export class Player {
  readonly rig = new Rig();
  readonly held = new HeldInput(this.rig);
  quality: Quality;
  /** What is shown. */
  scene: Scene;
  fov: number;
  /** While set, clicks go here instead of setting the focus (measuring). */
  onPoint: ((point: V3) => void) | null = null;
  /** Takes clicks that mean something else (a training camera): whether this was one. */
  onClick: ((x: number, y: number) => boolean) | null = null;
  private readonly listeners = new Map<string, Set<(...args: never[]) => void>>();
  private readonly governor = new ResolutionGovernor();
  /** What is being opened beside a scene that is shown, before anything of it is drawn. */
  private next: Scene | null = null;
  /** What was shown before, until the one that took its place is whole. */
  private previous: Scene | null = null;
  private wishesGiven = false;
  private latest: { content: Content; wishes: Wishes } | null = null;
  private opened = 0;
  private exact: PinholeCamera | null = null;
  private dirty = true;
  private frameMs = 0;
  private insets: Insets = { top: 0, right: 0, bottom: 0, left: 0 };
  private backdrop: V3 = [0, 0, 0];
  /** The surface at the last click, while a second one may follow. */
  private clicked: Promise<V3 | null> | null = null;

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
    this.fov = settings.fov;
    this.quality = qualityLevel(settings.quality);
    this.scene = new Scene(null, this.ownWishes(), (scene, message) =>
      this.receive(scene, message),
    );
    this.scene.fit = null;
    stage.show(this.scene.layer);
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
      click: (x, y) => this.click(x, y),
      doubleClick: () => void this.fly(),
      steer: () => this.steer(),
      focal: () => this.camera().K[0]!,
      passed: () => this.emit("passed"),
    };
  }

  on<K extends keyof PlayerEvents>(event: K, listener: PlayerEvents[K]): () => void {
    const set = this.listeners.get(event) ?? new Set();
    set.add(listener as (...args: never[]) => void);
    this.listeners.set(event, set);
    return () => set.delete(listener as (...args: never[]) => void);
  }

  private emit<K extends keyof PlayerEvents>(event: K, ...args: Parameters<PlayerEvents[K]>): void {
    for (const listener of this.listeners.get(event) ?? []) listener(...(args as never[]));
  }

  /** Whether scenes are fetched with the cookies of this page's host. */
  credentials: RequestCredentials = "same-origin";

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

  /** What the page's settings say of the scene that they name. */
  private ownWishes(): Wishes {
    const { view, up, background, title, time, annotations, captureCameras } = this.settings;
    return { view, up, background, title, time, annotations, captureCameras };
  }

  /**
   * Opens a scene. One that is shown stays until something of the new one can be drawn, and comes
   * back where that fails. The settings' view, axes, cameras and so on are those of the first.
   */
  open(content: Content): void {
    const wishes = this.wishesGiven ? NO_WISHES : this.ownWishes();
    this.wishesGiven = true;
    this.begin(content, wishes);
  }

  /** Tries the same content again. */
  retry(): void {
    if (this.latest) this.begin(this.latest.content, this.latest.wishes);
  }

  private begin(content: Content, wishes: Wishes): void {
    this.latest = { content, wishes };
    const { budget, degree } = this.settings;
    const request: OpenRequest = {
      type: "open",
      id: ++this.opened,
      credentials: this.credentials,
      budget: Math.min(budget ?? Number.POSITIVE_INFINITY, this.quality.maxSplats),
      degree,
      ...("url" in content ? { url: new URL(content.url, document.baseURI).href } : content),
    };
    this.next?.close();
    this.next = null;
    const scene = new Scene(request, wishes, (from, message) => this.receive(from, message));
    if (this.scene.started && !this.scene.failed) this.next = scene;
    else this.replace(scene);
    this.emit("opening");
  }

  /** Shows a scene in the place of another, which goes. */
  private replace(scene: Scene): void {
    const old = this.scene;
    this.leaveCamera();
    this.show(scene);
    this.drop(old);
  }

  /** Everything on the canvas and in the rig is this scene's from now on. */
  private show(scene: Scene): void {
    this.clicked = null;
    this.scene = scene;
    this.stage.show(scene.layer);
    if (scene.stance) this.rig.take(scene.stance);
    else {
      this.rig.renew();
      if (scene.up) this.rig.setUp(scene.up);
    }
    this.stage.setTime(scene.clock.time);
    this.applyBackground();
    this.emit("poster", scene.started ? null : scene.posterUrl);
    this.emit("scene");
    if (scene.info) this.applyInfo(scene);
    if (scene.extent && !scene.stance) this.place(scene);
    this.applyBudget();
    this.dirty = true;
  }

  private drop(scene: Scene): void {
    scene.close();
    this.stage.drop(scene.layer);
  }

  private receive(scene: Scene, message: FromWorker): void {
    if (scene !== this.scene && scene !== this.next) return;
    const shown = scene === this.scene;
    if (message.type === "info") this.takeInfo(scene, message.info);
    else if (message.type === "poster") {
      scene.posterUrl = URL.createObjectURL(new Blob([message.bytes], { type: message.mime }));
      if (shown) this.emit("poster", scene.posterUrl);
    } else if (message.type === "extent") {
      scene.extent = message.extent;
      if (shown) this.place(scene);
    } else if (message.type === "piece") {
      this.stage.add(scene.layer, message.packed, message.stage, message.span ?? null);
      this.showFirst(scene);
      this.applyBudget();
    } else if (message.type === "field") {
      const { shape, layers, sheets } = message;
      scene.field = { shape, layers, planes: shape.planes.map(() => null), sheets };
    } else if (message.type === "planes") this.addPlanes(scene, message.planes);
    else if (message.type === "progress") {
      if (message.phase === "download") {
        scene.loaded.bytes = message.loaded;
        scene.loaded.total = message.total;
      }
      this.emit("progress", message.total ? message.loaded / message.total : 0, message.phase);
    } else if (message.type === "done") this.complete(scene, message.milliseconds);
    else if (message.type === "failed") this.fail(scene, message);
  }

  private takeInfo(scene: Scene, info: SceneInfo): void {
    scene.info = info;
    if (scene.cameras.length === 0) scene.cameras = info.cameras ?? [];
    scene.clock.setSpan(info.span ?? null);
    this.stage.setAntialiased(scene.layer, info.antialiased === true);
    if (scene === this.scene) this.applyInfo(scene);
  }

  private applyInfo(scene: Scene): void {
    this.applyBackground();
    this.emit("info", scene.info!);
  }

  private complete(scene: Scene, milliseconds: number): void {
    if (scene === this.next) this.takeOver(scene); // a scene without splats
    scene.finished = true;
    scene.loaded.milliseconds = milliseconds;
    if (this.previous) this.drop(this.previous);
    this.previous = null;
    this.emit("done");
    void this.findPivot(scene);
  }

  /** What is shown gives way; it is kept until the new one is whole. */
  private takeOver(scene: Scene): void {
    this.leaveCamera();
    if (this.previous) this.drop(this.scene);
    else {
      this.previous = this.scene;
      this.scene.stance = this.rig.save();
    }
    this.next = null;
    this.show(scene);
  }

  private fail(scene: Scene, failure: Failure): void {
    const { kind, where, detail } = failure;
    if (scene === this.next) {
      this.next = null;
      scene.close();
    } else if (this.previous) {
      const { previous } = this;
      this.previous = null;
      this.leaveCamera();
      this.show(previous);
      this.drop(scene);
    } else scene.failed = true;
    this.emit("failed", { kind, where, detail });
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

  private applyBackground(): void {
    this.stage.setBackground(this.background);
    this.dirty = true;
    this.emit("background", this.background);
  }

  private place(scene: Scene): void {
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
  private async findPivot(scene: Scene): Promise<void> {
    if (!scene.pivot) return;
    const distance = await this.distanceAhead();
    if (distance === null || scene !== this.scene || !scene.pivot) return;
    this.rig.setDistance(distance);
    this.rig.setHome(this.rig.view());
    scene.pivot = !scene.finished;
    this.emit("view");
  }

  private async distanceAhead(): Promise<number | null> {
    const { K } = this.camera();
    const point = await this.pick(K[2]!, K[5]!);
    return point && length(sub(point, this.rig.position));
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

  private addPlanes(scene: Scene, planes: readonly FieldPlane[]): void {
    if (!scene.field) return;
    try {
      if (scene.started) this.stage.addPlanes(scene.layer, planes);
      else {
        scene.takePlanes(planes);
        this.stage.setField(scene.layer, scene.field);
      }
    } catch (error) {
      if (!(error instanceof SceneError)) throw error;
      scene.close(); // what else arrives of it is ignored
      this.fail(scene, { kind: error.kind, where: error.where, detail: error.detail });
      return;
    }
    this.showFirst(scene);
  }

  private showFirst(scene: Scene): void {
    if (scene.started) return;
    scene.started = true;
    if (scene === this.next) this.takeOver(scene);
    if (scene.clock.range) this.startClock(scene);
    this.emit("firstFrame");
    void this.findPivot(scene);
  }

  /** Goes on from the start, but not where somebody asked for rest, or for one moment. */
  private startClock(scene: Scene): void {
    const { time } = scene.wishes;
    if (time !== null) scene.clock.seek(time);
    else if (!this.rig.instant) scene.clock.play();
    this.showTime();
  }

  private applyBudget(): void {
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
    this.quality = qualityLevel(level);
    this.governor.reset();
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

  private leaveCamera(): void {
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
      this.idle();
      return;
    }
    this.frameMs = 0.9 * this.frameMs + 0.1 * dt * 1000;
    if (this.settings.adaptive && moved) this.adapt(dt);
    this.dirty = false;
    const camera = this.camera();
    this.stage.setView(camera);
    this.emit("frame", camera);
    if (moved) this.emit("view");
  }

  /** Less resolution where movement is jerky: of the canvas, or of a field's own picture. */
  private adapt(dt: number): void {
    const { stage } = this;
    const { fieldGovernor } = this.scene;
    const last = stage.fieldPicture;
    if (!stage.hasField && this.governor.slow(dt)) this.resize();
    if (last && fieldGovernor.move(last.milliseconds / 1000, last.share))
      stage.setFieldShare(fieldGovernor.scale);
  }

  /** Standing still: the full resolution comes back. */
  private idle(): void {
    const { fieldGovernor } = this.scene;
    if (this.governor.rest()) this.resize();
    if (fieldGovernor.rest()) this.stage.setFieldShare(fieldGovernor.scale);
  }

  private resize(): void {
    const ratio = this.exact
      ? 1
      : this.quality.pixelRatio(window.devicePixelRatio) * this.governor.scale;
    const { width, height } = this.exact ?? {
      width: this.canvas.clientWidth,
      height: this.canvas.clientHeight,
    };
    this.stage.resize(Math.round(width * ratio), Math.round(height * ratio));
    this.refit();
  }

  /** The scene's box at a time. */
  bounds(_time = this.clock.time): Box | null {
    return this.scene.extent && boxOf(this.scene.info, this.scene.extent);
  }

  /** The surface at a CSS pixel, at the time that is shown or another; null in the void. */
  async pick(x: number, y: number, time = this.clock.time): Promise<V3 | null> {
    const camera = this.camera();
    const ray = rayThrough(camera, x, y);
    const origin: V3 = [camera.c2w[3]!, camera.c2w[7]!, camera.c2w[11]!];
    const drawn = { c2w: Array.from(camera.c2w), K: Array.from(camera.K), x, y };
    const pick = { type: "pick", id: 0, origin, direction: ray, camera: drawn, time } as const;
    const answer = await this.scene.ask(pick);
    const distance = answer?.type === "picked" ? answer.distance : null;
    return distance === null ? null : add(origin, scale(ray, distance / Math.hypot(...ray)));
  }

  /** A picture of the writer's renderer that the bundle holds; null where it cannot be read. */
  async reference(index: number): Promise<Reference | null> {
    const answer = await this.scene.ask({ type: "reference", id: 0, index });
    if (answer?.type !== "reference" || !answer.bytes) return null;
    return { bytes: answer.bytes, camera: this.info!.cameras![answer.camera]! };
  }

  private click(x: number, y: number): void {
    this.clicked = null;
    if (this.onClick?.(x, y)) return;
    const clicked = this.pick(x, y);
    this.clicked = clicked;
    void clicked.then((point) => {
      // A second click may have come first: then it flies there.
      if (point && clicked === this.clicked) this.takePoint(point, false);
    });
  }

  /** A second click soon after the first: to where the first one was, whatever lies there now. */
  private async fly(): Promise<void> {
    const { clicked } = this;
    if (!clicked) return;
    const point = await clicked;
    if (point && clicked === this.clicked) this.takePoint(point, true);
  }

  private takePoint(point: V3, fly: boolean): void {
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
