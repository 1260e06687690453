import type { Rig } from "./camera/rig";
import { SceneError } from "./decode/errors";
import type { FieldPlane } from "./decode/field/field";
import type { FromWorker, OpenRequest, SceneInfo } from "./decode/protocol";
import type { Stage } from "./engine/stage";
import type { Emitter, Failure } from "./events";
import type { Quality } from "./quality";
import { type Content, NO_WISHES, Scene, type Wishes, wishesOf } from "./scene";
import type { Settings } from "./settings";
import type { Viewpoint } from "./viewpoint";

/** What scenes are shown on, and what follows from another one being shown. */
export interface SceneHost {
  readonly stage: Stage;
  readonly rig: Rig;
  readonly viewpoint: Viewpoint;
  readonly settings: Settings;
  readonly quality: Quality;
  readonly credentials: RequestCredentials;
  readonly emit: Emitter["emit"];
  forgetClick(): void;
  refresh(): void;
  applyBackground(): void;
  applyBudget(): void;
  startClock(scene: Scene): void;
}

/**
 * Which scene is shown, which is being opened and which one it replaces, and what their workers
 * tell.
 */
export class Scenes {
  /** What is shown. */
  shown: Scene;
  /** What is being opened beside a scene that is shown, before anything of it is drawn. */
  private next: Scene | null = null;
  /** What was shown before, until the one that took its place is whole. */
  private previous: Scene | null = null;
  private wishesGiven = false;
  private latest: { content: Content; wishes: Wishes } | null = null;
  private opened = 0;

  constructor(private readonly host: SceneHost) {
    this.shown = new Scene(null, wishesOf(host.settings), (scene, message) =>
      this.receive(scene, message),
    );
    this.shown.fit = null;
    host.stage.show(this.shown.layer);
  }

  /**
   * Opens a scene. One that is shown stays until something of the new one can be drawn, and comes
   * back where that fails. The settings' view, axes, cameras and so on are those of the first.
   */
  open(content: Content): void {
    const wishes = this.wishesGiven ? NO_WISHES : wishesOf(this.host.settings);
    this.wishesGiven = true;
    this.begin(content, wishes);
  }

  /** Tries the same content again. */
  retry(): void {
    if (this.latest) this.begin(this.latest.content, this.latest.wishes);
  }

  private begin(content: Content, wishes: Wishes): void {
    this.latest = { content, wishes };
    const { budget, degree } = this.host.settings;
    const request: OpenRequest = {
      type: "open",
      id: ++this.opened,
      credentials: this.host.credentials,
      budget: Math.min(budget ?? Number.POSITIVE_INFINITY, this.host.quality.maxSplats),
      degree,
      ...(wishes.time === null ? {} : { time: wishes.time }),
      ...("url" in content ? { url: new URL(content.url, document.baseURI).href } : content),
    };
    this.next?.close();
    this.next = null;
    const scene = new Scene(request, wishes, (from, message) => this.receive(from, message));
    if (this.shown.started && !this.shown.failed) this.next = scene;
    else this.replace(scene);
    this.host.emit("opening");
  }

  /** Shows a scene in the place of another, which goes. */
  private replace(scene: Scene): void {
    const old = this.shown;
    this.host.viewpoint.leaveCamera();
    this.show(scene);
    this.drop(old);
  }

  /** Everything on the canvas and in the rig is this scene's from now on. */
  private show(scene: Scene): void {
    this.shown = scene;
    this.host.forgetClick();
    this.host.stage.show(scene.layer);
    if (scene.stance) this.host.rig.take(scene.stance);
    else {
      this.host.rig.renew();
      if (scene.up) this.host.rig.setUp(scene.up);
    }
    this.host.stage.setTime(scene.clock.time);
    this.host.applyBackground();
    this.host.emit("poster", scene.started ? null : scene.posterUrl);
    this.host.emit("scene");
    if (scene.info) this.applyInfo(scene);
    if (scene.extent && !scene.stance) this.host.viewpoint.place(scene);
    this.host.applyBudget();
    this.host.refresh();
  }

  private drop(scene: Scene): void {
    scene.close();
    this.host.stage.drop(scene.layer);
  }

  private receive(scene: Scene, message: FromWorker): void {
    if (scene !== this.shown && scene !== this.next) return;
    const shown = scene === this.shown;
    if (message.type === "info") this.takeInfo(scene, message.info);
    else if (message.type === "poster") {
      scene.posterUrl = URL.createObjectURL(new Blob([message.bytes], { type: message.mime }));
      if (shown) this.host.emit("poster", scene.posterUrl);
    } else if (message.type === "extent") {
      scene.extent = message.extent;
      if (shown) this.host.viewpoint.place(scene);
    } else if (message.type === "piece") {
      this.host.stage.add(scene.layer, message.packed, message);
      this.showFirst(scene);
      this.host.applyBudget();
    } else if (message.type === "motion") {
      this.host.stage.setMotion(scene.layer, message.shape, scene);
    } else if (message.type === "knots") {
      this.host.stage.addKnots(scene.layer, message.chunk, message.knots);
    } else if (message.type === "field") {
      const { shape, layers, mpi } = message;
      scene.field = { shape, layers, planes: shape.feature_planes.map(() => null), mpi };
    } else if (message.type === "mesh") {
      this.host.stage.setMesh(scene.layer, message.mesh);
      this.showFirst(scene);
    } else if (message.type === "planes") this.addPlanes(scene, message.planes);
    else if (message.type === "progress") {
      if (message.phase === "download") {
        scene.loaded.bytes = message.loaded;
        scene.loaded.total = message.total;
      }
      this.host.emit("progress", message.total ? message.loaded / message.total : 0, message.phase);
    } else if (message.type === "done") this.complete(scene, message.milliseconds);
    else if (message.type === "failed") this.fail(scene, message);
  }

  private takeInfo(scene: Scene, info: SceneInfo): void {
    scene.info = info;
    if (scene.cameras.length === 0) scene.cameras = info.cameras ?? [];
    const times = scene.cameras.flatMap(({ time }) => time ?? []);
    scene.clock.setSpan(info.span ?? null, times);
    this.host.stage.setAntialiased(scene.layer, info.antialiased === true);
    if (scene === this.shown) this.applyInfo(scene);
  }

  private applyInfo(scene: Scene): void {
    this.host.applyBackground();
    this.host.emit("info", scene.info!);
  }

  private complete(scene: Scene, milliseconds: number): void {
    if (scene === this.next) this.takeOver(scene); // a scene without splats
    scene.finished = true;
    scene.loaded.milliseconds = milliseconds;
    if (this.previous) this.drop(this.previous);
    this.previous = null;
    this.host.emit("done");
    void this.host.viewpoint.findPivot(scene);
  }

  /** What is shown gives way; it is kept until the new one is whole. */
  private takeOver(scene: Scene): void {
    this.host.viewpoint.leaveCamera();
    if (this.previous) this.drop(this.shown);
    else {
      this.previous = this.shown;
      this.shown.stance = this.host.rig.save();
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
      this.host.viewpoint.leaveCamera();
      this.show(previous);
      this.drop(scene);
    } else scene.failed = true;
    this.host.emit("failed", { kind, where, detail });
  }

  private addPlanes(scene: Scene, planes: readonly FieldPlane[]): void {
    if (!scene.field) return;
    try {
      if (scene.started) scene.fieldView?.add(planes);
      else {
        scene.takePlanes(planes);
        scene.fieldView = this.host.stage.setField(scene.layer, scene.field);
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
    if (scene.clock.range) this.host.startClock(scene);
    this.host.emit("firstFrame");
    void this.host.viewpoint.findPivot(scene);
  }
}
