import type { Clock } from "./camera/clock";
import type { Lens } from "./camera/first-view";
import { fitted, type PinholeCamera } from "./camera/projection";
import { MODES, type Mode, type Rig } from "./camera/rig";
import { add, length, scale, sub, type V3 } from "./camera/vec";
import type { View } from "./decode/protocol";
import type { Stage } from "./engine/stage";
import type { Emitter } from "./events";
import type { Scene } from "./scene";
import { startOf, upOfScene } from "./start";

/** What lies over the window's edges, in CSS pixels. */
export interface Insets {
  top: number;
  right: number;
  bottom: number;
  left: number;
}

/** Where the camera is, and who hears of it. */
export interface ViewHost {
  readonly canvas: HTMLCanvasElement;
  readonly stage: Stage;
  readonly rig: Rig;
  readonly scene: Scene;
  readonly clock: Clock;
  readonly emit: Emitter["emit"];
  setTime(seconds: number): void;
  /** The surface at a CSS pixel; null in the void. */
  pick(x: number, y: number): Promise<V3 | null>;
  /** The canvas has another number of pixels. */
  resize(): void;
  /** Draws again. */
  refresh(): void;
}

/** The camera's part of the player: first views, lens, training cameras, and what windows show. */
export class Viewpoint {
  private exact: PinholeCamera | null = null;
  private insets: Insets = { top: 0, right: 0, bottom: 0, left: 0 };

  constructor(
    private readonly host: ViewHost,
    /** Degrees of the window's larger side. */
    public fov: number,
  ) {}

  /** Finds the first view of a scene whose extent is known. */
  place(scene: Scene): void {
    const { rig } = this.host;
    const up = scene.up ?? upOfScene(scene);
    if (up) rig.setUp(up);
    const { view, fitted, pivot } = startOf(scene, rig, this.lens());
    rig.setHome(view);
    rig.setView(view, true);
    scene.fit = fitted ? "home" : null;
    scene.pivot = pivot;
    this.host.refresh();
  }

  /** What stands in the middle is turned around, where the first view is a photograph's. */
  async findPivot(scene: Scene): Promise<void> {
    if (!scene.pivot) return;
    const distance = await this.distanceAhead();
    if (distance === null || scene !== this.host.scene || !scene.pivot) return;
    const { rig } = this.host;
    rig.setDistance(distance);
    rig.setHome(rig.view());
    scene.pivot = !scene.finished;
    this.host.emit("view");
  }

  /** The window's part that no bar lies over, in CSS pixels. */
  setInsets(insets: Insets): void {
    if (JSON.stringify(insets) === JSON.stringify(this.insets)) return;
    this.insets = insets;
    this.refit();
  }

  /** The focal length and the free part of the window, in CSS pixels. */
  private lens(): Lens {
    const { clientWidth, clientHeight } = this.host.canvas;
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
  refit(): void {
    const { scene, rig } = this.host;
    this.host.refresh();
    if (!scene.fit || !scene.extent) return;
    const { view } = startOf(scene, rig, this.lens());
    rig.setHome(view);
    rig.setView(scene.fit === "home" ? view : rig.framing(this.lens()), true);
  }

  setFov(degrees: number): void {
    this.fov = degrees;
    this.refit();
  }

  /** Another direction stands upright; the whole scene comes into view. */
  setUp(up: V3): void {
    this.steer();
    this.host.scene.up = up;
    this.host.rig.setUp(up);
    this.frameScene();
  }

  /** Throws where there is no such mode. */
  setMode(mode: Mode): void {
    if (!MODES.includes(mode))
      throw new Error(`mode must be one of ${MODES.join(", ")}, not ${JSON.stringify(mode)}`);
    this.leaveCamera();
    this.host.rig.setMode(mode);
    this.host.emit("mode", mode);
  }

  frameScene(): void {
    this.leaveCamera();
    this.host.rig.setView(this.host.rig.framing(this.lens()));
    this.host.scene.fit = "frame";
    this.host.emit("view");
  }

  /** Back to the first view, for the window as it is now. */
  reset(): void {
    this.leaveCamera();
    const { scene, rig } = this.host;
    if (scene.extent) {
      const { view, fitted } = startOf(scene, rig, this.lens());
      if (fitted) rig.setHome(view);
      scene.fit = fitted ? "home" : null;
    }
    rig.reset();
    this.host.emit("view");
  }

  goTo(view: View, jump = false): void {
    this.steer();
    this.host.rig.setView(view, jump);
    this.host.emit("view"); // a jump is no movement that the next frame would see
  }

  /** Looks through a training camera, with its own lens, fitted into the window. */
  lookThrough(index: number | null): void {
    if (index === null) {
      this.leaveCamera();
      return;
    }
    const { scene, clock, rig } = this.host;
    const camera = scene.cameras[index];
    if (!camera) return;
    this.steer();
    scene.through = index;
    if (camera.time !== undefined && clock.range) this.host.setTime(camera.time);
    const m = camera.c2w;
    const position: V3 = [m[3]!, m[7]!, m[11]!];
    const ahead = scale([-m[2]!, -m[6]!, -m[10]!], rig.extent.radius);
    rig.setView({ position, target: add(position, ahead) }, true);
    this.host.refresh();
    this.host.emit("camera", index);
    void this.distanceAhead().then((distance) => {
      if (distance !== null && this.lookingThrough === index) rig.setDistance(distance);
    });
  }

  /** A hand has taken the camera. */
  steer(): void {
    this.leaveCamera();
    const { scene } = this.host;
    scene.fit = null;
    scene.pivot = false;
    this.host.emit("steer");
  }

  leaveCamera(): void {
    if (this.exact) {
      this.exact = null;
      this.host.resize();
    }
    const { scene } = this.host;
    if (scene.through !== null) {
      scene.through = null;
      this.host.emit("camera", null);
    }
    this.host.refresh();
  }

  get lookingThrough(): number | null {
    return this.host.scene.through;
  }

  /** The frame of the training camera's picture within the window, in CSS pixels. */
  pictureFrame(): { x: number; y: number; width: number; height: number } | null {
    const { through, cameras } = this.host.scene;
    const camera = through === null ? undefined : cameras[through];
    return camera ? fitted(camera, this.lens().free).frame : null;
  }

  /** Draws exactly this camera at its own size from now on (tests, frame export); null: no more. */
  setCamera(camera: PinholeCamera | null): void {
    this.exact = camera;
    this.host.resize();
    if (camera) this.host.stage.setView(camera);
    this.host.refresh();
  }

  /** The size of a camera that is drawn exactly: no window's. */
  get exactSize(): { width: number; height: number } | null {
    return this.exact;
  }

  /** The camera as it is drawn, in CSS pixels. */
  camera(): PinholeCamera {
    if (this.exact) return this.exact;
    const { canvas, scene, rig } = this.host;
    const width = Math.max(1, canvas.clientWidth);
    const height = Math.max(1, canvas.clientHeight);
    const camera = scene.through === null ? undefined : scene.cameras[scene.through];
    const { free, focal } = this.lens();
    if (camera) return { c2w: camera.c2w, K: fitted(camera, free).K, width, height };
    const [cx, cy] = [free.x + free.width / 2, free.y + free.height / 2];
    return { c2w: rig.c2w(), K: [focal, 0, cx, 0, focal, cy, 0, 0, 1], width, height };
  }

  private async distanceAhead(): Promise<number | null> {
    const { K } = this.camera();
    const point = await this.host.pick(K[2]!, K[5]!);
    return point && length(sub(point, this.host.rig.position));
  }
}
