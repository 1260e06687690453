import { HeldInput, PointerInput } from "./camera/input";
import { fitted, intrinsics, type PinholeCamera, rayThrough } from "./camera/projection";
import { type Mode, Rig, viewThrough } from "./camera/rig";
import { add, scale, type V3 } from "./camera/vec";
import type { Reference } from "./compare";
import { SceneError } from "./decode/errors";
import type { Field, FieldPlane } from "./decode/field/field";
import type { PackedSplats } from "./decode/pack";
import type {
  CaptureCamera,
  FromWorker,
  OpenRequest,
  PickRequest,
  ReferenceRequest,
  SceneInfo,
  ToWorker,
  View,
} from "./decode/protocol";
import type { Immersion } from "./engine/immersion";
import { type CaptureOptions, type Pixels, Stage } from "./engine/stage";
import type { PlayerEvents, Statistics } from "./events";
import { FieldGovernor, type Quality, qualityLevel, ResolutionGovernor } from "./quality";
import type { Settings } from "./settings";

export type { Failure, Statistics } from "./events";

/** The player without its page: scene, camera, input; the UI listens and calls. */
export class Player {
  readonly rig = new Rig();
  readonly held = new HeldInput(this.rig);
  info: SceneInfo | null = null;
  captureCameras: CaptureCamera[] = [];
  quality: Quality;
  /** The picture of the first piece is on the canvas. */
  started = false;
  finished = false;
  private readonly listeners = new Map<string, Set<(...args: never[]) => void>>();
  private readonly worker: Worker;
  private readonly governor = new ResolutionGovernor();
  private fieldGovernor = new FieldGovernor();
  private opened = 0;
  private request: OpenRequest | null = null;
  private readonly answers = new Map<number, (message: FromWorker) => void>();
  private asked = 0;
  private posterUrl: string | null = null;
  private through: number | null = null;
  private exact: PinholeCamera | null = null;
  private dirty = true;
  /** A field of light that is arriving, or has. */
  private field: Field | null = null;
  private loaded = { bytes: 0, total: 0, milliseconds: 0 };
  private frameMs = 0;
  fov: number;

  static async create(canvas: HTMLCanvasElement, settings: Settings): Promise<Player> {
    const box: { player?: Player } = {};
    const stage = await Stage.create(
      canvas,
      settings.backend ? [settings.backend] : ["webgpu", "webgl2"],
      {
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
    this.captureCameras = settings.captureCameras;
    const reduced = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.rig.instant = reduced.matches || !settings.animation;
    reduced.addEventListener("change", () => {
      this.rig.instant = reduced.matches || !settings.animation;
    });
    if (settings.background) stage.setBackground(settings.background);
    if (settings.up) this.rig.setUp(settings.up);
    this.rig.setMode(settings.mode);
    this.worker = new Worker(new URL("./decode/worker.ts", import.meta.url), { type: "module" });
    this.worker.onmessage = (event: MessageEvent<FromWorker>) => this.receive(event.data);
    this.worker.onerror = (event) => {
      this.emit("failed", { kind: "damaged", where: "decoder", detail: event.message });
    };
    new PointerInput(canvas, this.rig, {
      click: (x, y) => void this.focusAt(x, y, false),
      doubleClick: (x, y) => void this.focusAt(x, y, true),
      steer: () => this.leaveCamera(),
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    document.addEventListener("visibilitychange", () => stage.setPaused(document.hidden));
    this.resize();
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

  /** Opens a scene; what was open is closed. */
  open(content: { url: string } | { bytes: ArrayBuffer; name: string }): void {
    this.close();
    const { budget, degree } = this.settings;
    this.request = {
      type: "open",
      id: ++this.opened,
      credentials: this.credentials,
      budget: Math.min(budget ?? Number.POSITIVE_INFINITY, this.quality.maxSplats),
      degree,
      ...("url" in content ? { url: new URL(content.url, document.baseURI).href } : content),
    };
    this.emit("opening");
    this.post(this.request);
  }

  /** Tries the same content again. */
  retry(): void {
    const request = this.request;
    if (!request) return;
    if (request.bytes) this.open({ bytes: request.bytes, name: request.name ?? "" });
    else this.open({ url: request.url! });
  }

  close(): void {
    this.post({ type: "close" });
    this.stage.clear();
    this.field = null;
    this.fieldGovernor = new FieldGovernor();
    this.started = false;
    this.finished = false;
    this.info = null;
    this.leaveCamera();
    this.setPoster(null);
    this.loaded = { bytes: 0, total: 0, milliseconds: 0 };
  }

  private post(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private receive(message: FromWorker): void {
    if (message.type === "picked" || message.type === "reference") {
      this.answers.get(message.id)?.(message);
      this.answers.delete(message.id);
      return;
    }
    if (message.id !== this.opened) return;
    if (message.type === "info") this.setInfo(message.info);
    else if (message.type === "poster") {
      this.setPoster(URL.createObjectURL(new Blob([message.bytes], { type: message.mime })));
    } else if (message.type === "extent") this.setExtent(message.extent);
    else if (message.type === "piece") this.addPiece(message.packed, message.stage);
    else if (message.type === "field") {
      const { shape, layers, sheets } = message;
      this.field = { shape, layers, planes: shape.planes.map(() => null), sheets };
    } else if (message.type === "planes") this.addPlanes(message.planes);
    else if (message.type === "progress") {
      if (message.phase === "download") {
        this.loaded.bytes = message.loaded;
        this.loaded.total = message.total;
      }
      this.emit("progress", message.total ? message.loaded / message.total : 0, message.phase);
    } else if (message.type === "done") {
      this.finished = true;
      this.loaded.milliseconds = message.milliseconds;
      this.emit("done");
    } else this.emit("failed", message);
  }

  private setInfo(info: SceneInfo): void {
    this.info = info;
    if (!this.settings.up && info.up) this.rig.setUp(info.up);
    if (this.captureCameras.length === 0) this.captureCameras = info.cameras ?? [];
    if (info.background && !this.settings.background) this.stage.setBackground(info.background);
    this.stage.setAntialiased(info.antialiased === true);
    if (info.limits) this.rig.limits = info.limits;
    this.rig.confined = info.drawable === "field";
    this.emit("info", info);
  }

  private setPoster(url: string | null): void {
    if (this.posterUrl) URL.revokeObjectURL(this.posterUrl);
    this.posterUrl = url;
    this.emit("poster", url);
  }

  /** A picture to show until the scene is drawn. */
  showPoster(url: string): void {
    if (!this.started) this.emit("poster", url);
  }

  /** Draws again, with what lies over the picture. */
  refresh(): void {
    this.dirty = true;
  }

  private setExtent(extent: { center: V3; radius: number }): void {
    this.rig.setExtent(extent);
    const home = this.settings.view ?? this.info?.view ?? this.firstCamera() ?? this.oblique();
    this.rig.setHome(home);
    this.rig.setView(home, true);
    this.dirty = true;
  }

  private firstCamera(): View | null {
    const camera = this.captureCameras[0];
    return camera ? viewThrough(camera.c2w, this.rig.extent) : null;
  }

  private oblique(): View {
    const rig = this.rig;
    rig.setView(
      { position: [0, 0, 0], target: add(scale(rig.upAxis, -0.35), sideways(rig.upAxis)) },
      true,
    );
    return rig.framing(rig.forward, this.smallerAngle());
  }

  /** The smaller field of view, in radians. */
  smallerAngle(): number {
    const half = Math.tan((this.fov * Math.PI) / 360);
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return 2 * Math.atan((half * Math.min(w, h)) / Math.max(w, h, 1));
  }

  private addPiece(packed: PackedSplats, stage: number): void {
    this.stage.add(packed, stage);
    this.applyBudget();
    this.showFirst();
  }

  private addPlanes(planes: readonly FieldPlane[]): void {
    const { field } = this;
    if (!field) return;
    try {
      if (this.started) this.stage.addPlanes(planes);
      else {
        for (const { index, values } of planes) field.planes[index] = values;
        this.stage.setField(field);
      }
    } catch (error) {
      if (!(error instanceof SceneError)) throw error;
      this.opened++; // what else arrives of it is ignored
      this.post({ type: "close" });
      this.emit("failed", { kind: error.kind, where: error.where, detail: error.detail });
      return;
    }
    this.showFirst();
  }

  private showFirst(): void {
    if (this.started) return;
    this.started = true;
    this.emit("firstFrame");
  }

  private applyBudget(): void {
    this.stage.limit(
      Math.ceil(this.quality.share * (this.info?.shown ?? Number.POSITIVE_INFINITY)),
    );
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
    this.dirty = true;
  }

  setMode(mode: Mode): void {
    this.leaveCamera();
    this.rig.setMode(mode);
    this.emit("mode", mode);
  }

  frameScene(): void {
    this.leaveCamera();
    this.rig.frame(this.smallerAngle());
    this.emit("view");
  }

  reset(): void {
    this.leaveCamera();
    this.rig.reset();
    this.emit("view");
  }

  goTo(view: View, jump = false): void {
    this.leaveCamera();
    this.rig.setView(view, jump);
    this.emit("view"); // a jump is no movement that the next frame would see
  }

  /** Looks through a training camera, with its own lens, fitted into the window. */
  lookThrough(index: number | null): void {
    if (index === null) {
      this.leaveCamera();
      return;
    }
    const camera = this.captureCameras[index];
    if (!camera) return;
    this.through = index;
    const m = camera.c2w;
    const position: V3 = [m[3]!, m[7]!, m[11]!];
    const ahead = scale([-m[2]!, -m[6]!, -m[10]!], this.rig.extent.radius);
    this.rig.setView({ position, target: add(position, ahead) }, true);
    this.dirty = true;
    this.emit("camera", index);
  }

  private leaveCamera(): void {
    if (this.exact) {
      this.exact = null;
      this.resize();
    }
    if (this.through !== null) {
      this.through = null;
      this.emit("camera", null);
    }
    this.dirty = true;
  }

  get lookingThrough(): number | null {
    return this.through;
  }

  /** The frame of the training camera's picture within the window, in CSS pixels. */
  pictureFrame(): { x: number; y: number; width: number; height: number } | null {
    const camera = this.through === null ? undefined : this.captureCameras[this.through];
    if (!camera) return null;
    return fitted(camera, this.canvas.clientWidth, this.canvas.clientHeight).frame;
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
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const through = this.through === null ? undefined : this.captureCameras[this.through];
    if (through) return { c2w: through.c2w, K: fitted(through, width, height).K, width, height };
    return { c2w: this.rig.c2w(), K: intrinsics(this.fov, width, height), width, height };
  }

  private update(dt: number): void {
    const moved = this.rig.update(Math.min(dt, 0.1));
    const held = this.held.update(Math.min(dt, 0.1));
    if (held) this.leaveCamera();
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
    const { stage, fieldGovernor } = this;
    const last = stage.fieldPicture;
    if (!stage.hasField && this.governor.slow(dt)) this.resize();
    if (last && fieldGovernor.move(last.milliseconds / 1000, last.share))
      stage.setFieldShare(fieldGovernor.scale);
  }

  /** Standing still: the full resolution comes back. */
  private idle(): void {
    if (this.governor.rest()) this.resize();
    if (this.fieldGovernor.rest()) this.stage.setFieldShare(this.fieldGovernor.scale);
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
    this.dirty = true;
  }

  /** Distance to the scene along the ray through a CSS pixel; null in the void. */
  async pick(x: number, y: number): Promise<V3 | null> {
    const camera = this.camera();
    const ray = rayThrough(camera, x, y);
    const origin: V3 = [camera.c2w[3]!, camera.c2w[7]!, camera.c2w[11]!];
    const drawn = { c2w: Array.from(camera.c2w), K: Array.from(camera.K), x, y };
    const pick = { type: "pick", id: 0, origin, direction: ray, camera: drawn } as const;
    const answer = await this.ask(pick);
    const distance = answer.type === "picked" ? answer.distance : null;
    return distance === null ? null : add(origin, scale(ray, distance / Math.hypot(...ray)));
  }

  private ask(request: PickRequest | ReferenceRequest): Promise<FromWorker> {
    const id = ++this.asked;
    return new Promise((resolve) => {
      this.answers.set(id, resolve);
      this.post({ ...request, id });
    });
  }

  /** A picture of the writer's renderer that the bundle holds; null where it cannot be read. */
  async reference(index: number): Promise<Reference | null> {
    const answer = await this.ask({ type: "reference", id: 0, index });
    if (answer.type !== "reference" || !answer.bytes) return null;
    return { bytes: answer.bytes, camera: this.info!.cameras![answer.camera]! };
  }

  /** While set, clicks go here instead of setting the focus (measuring). */
  onPoint: ((point: V3) => void) | null = null;

  private async focusAt(x: number, y: number, fly: boolean): Promise<void> {
    const point = await this.pick(x, y);
    if (!point) return;
    if (this.onPoint) {
      this.onPoint(point);
      return;
    }
    this.leaveCamera();
    if (fly) this.rig.flyTo(point);
    else this.rig.focus(point);
    this.emit("focus", point);
  }

  capture(options?: CaptureOptions): Promise<Pixels> {
    this.stage.setView(this.camera());
    return this.stage.capture(options);
  }

  statistics(): Statistics {
    // The page goes on at its own pace while a field's picture is being made.
    const fieldMs = this.stage.fieldPicture?.milliseconds ?? 0;
    const ms = Math.max(this.frameMs, fieldMs);
    return {
      backend: this.stage.backend,
      framesPerSecond: ms > 0 ? 1000 / ms : 0,
      frameMs: ms,
      frames: this.stage.frames,
      sortMs: this.stage.sortTime,
      fieldMs,
      field: this.info?.drawable === "field" ? this.stage.fieldStatistics : null,
      splats: this.stage.splatCount,
      splatsInFile: this.info?.count ?? 0,
      degree: this.info?.degree ?? 0,
      width: this.stage.width,
      height: this.stage.height,
      memory: this.stage.splatBytes,
      downloaded: Math.min(this.loaded.bytes, this.loaded.total || this.loaded.bytes),
      size: this.info?.bytes ?? this.loaded.total,
      loadMs: this.loaded.milliseconds,
    };
  }
}

/** A horizontal direction. */
function sideways(up: V3): V3 {
  return Math.abs(up[2]) > 0.5 ? [0.6, 0.8, 0] : [0.6, 0, 0.8];
}
