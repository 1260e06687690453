import {
  AppBase,
  AppOptions,
  CameraComponentSystem,
  Color,
  createGraphicsDevice,
  Entity,
  FILLMODE_NONE,
  type GraphicsDevice,
  GSPLATDATA_LARGE,
  GSplatComponentSystem,
  Mat4,
  PIXELFORMAT_RGBA8,
  PIXELFORMAT_RGBA16F,
  Quat,
  RenderTarget,
  Texture,
  Vec3,
  XrManager,
} from "playcanvas";
import type { PinholeCamera } from "../camera/projection";
import type { Stand } from "../camera/stand";
import { SceneError } from "../decode/errors";
import type { Field, FieldPlane } from "../decode/field/field";
import { fromHalf, type PackedSplats, packedBytes } from "../decode/pack";
import { type DoneFieldPicture, FieldView } from "../draw/field-view";
import type { FieldTarget } from "../draw/renderer";
import { WebGlField } from "../draw/webgl/field";
import { WebGpuField } from "../draw/webgpu/field";
import type { FieldStatistics } from "../events";
import { Headset, type Immersion } from "./immersion";
import { projectionOf } from "./pinhole";
import { SplatResource } from "./splat-resource";

export type Backend = "webgpu" | "webgl2";

export interface Pixels {
  width: number;
  height: number;
  /** RGBA, 8 bits, top row first. */
  data: Uint8Array;
}

export interface CaptureOptions {
  width?: number;
  height?: number;
  /** With the canvas' 8 bits instead of the best precision. */
  screen?: boolean;
}

export interface StageEvents {
  /** Before every frame, drawn or not; seconds since the last. */
  update(dt: number): void;
  /** A headset shows the scene instead of the canvas, or no more. */
  immersed(on: boolean): void;
  lost(): void;
  restored(): void;
}

const NEAR = 0.01;
const FAR = 1e6;
/** Frames drawn after the last change: the sort runs beside the drawing and arrives later. */
const FRAMES_AFTER_CHANGE = 15;
const SETTLE_MS = 5000;

interface Piece {
  entity: Entity;
  resource: SplatResource;
  count: number;
  bytes: number;
  stage: number;
}

/**
 * The engine: one camera, one canvas, the scene's pieces. Everything of PlayCanvas is behind it.
 * A field of light is drawn beside the engine, on a canvas over its own.
 */
export class Stage {
  /** Milliseconds of the last sort on the CPU; 0 where the GPU sorts. */
  sortTime = 0;
  /** Frames drawn since the start. */
  frames = 0;
  private readonly app: AppBase;
  private readonly device: GraphicsDevice;
  private readonly camera: Entity;
  /** None where the browser has no WebXR. */
  private headset: Headset | null = null;
  private readonly pieces: Piece[] = [];
  private view: PinholeCamera | null = null;
  private pending = 0;
  private sorts = 0;
  private paused = false;
  private field: FieldView | null = null;
  private fieldShare = 1;
  private background: [number, number, number] = [0, 0, 0];

  static async create(
    canvas: HTMLCanvasElement,
    wanted: readonly Backend[],
    events: StageEvents,
  ): Promise<Stage> {
    let device: GraphicsDevice;
    try {
      device = await createGraphicsDevice(canvas, {
        deviceTypes: [...wanted],
        antialias: false,
        alpha: false,
        depth: false,
        stencil: false,
        powerPreference: "high-performance",
      });
    } catch (error) {
      throw new SceneError("no-graphics", "WebGPU and WebGL2", String(error));
    }
    return new Stage(canvas, device, events);
  }

  private constructor(
    private readonly canvas: HTMLCanvasElement,
    device: GraphicsDevice,
    events: StageEvents,
  ) {
    this.device = device;
    this.app = new AppBase(canvas);
    const options = new AppOptions();
    options.graphicsDevice = device;
    options.componentSystems = [CameraComponentSystem, GSplatComponentSystem];
    if ("xr" in navigator) options.xr = XrManager;
    this.app.init(options);
    this.app.setCanvasFillMode(FILLMODE_NONE, canvas.clientWidth, canvas.clientHeight);
    this.app.autoRender = false;
    this.camera = new Entity("camera", this.app);
    this.camera.addComponent("camera", { nearClip: NEAR, farClip: FAR, frustumCulling: false });
    this.app.root.addChild(this.camera);
    const component = this.camera.camera!;
    component.calculateProjection = (matrix: Mat4) => {
      if (this.view) matrix.copy(projectionOf(this.view, NEAR, FAR));
    };
    this.setBackground([0, 0, 0]);
    this.configureSplats();
    if (this.app.xr) {
      this.headset = new Headset(this.app, this.camera, (on) => {
        if (!on) this.setBackground(this.background);
        events.immersed(on);
      });
    }
    this.listen(events);
    this.app.start();
  }

  private listen(events: StageEvents): void {
    this.app.on("update", (dt: number) => {
      if (this.immersed) {
        this.headset?.update(dt);
        this.app.renderNextFrame = true;
        return;
      }
      events.update(dt);
      if (this.field) {
        if (this.view && !this.paused && this.field.update(this.view, this.target())) this.frames++;
        return;
      }
      if (this.pending > 0 && !this.paused) {
        this.pending--;
        this.app.renderNextFrame = true;
      }
    });
    this.app.on("postrender", () => {
      this.frames++;
    });
    this.app.scene.on("gsplat:sorted", (ms: number) => {
      this.sortTime = ms;
      this.sorts++;
    });
    this.device.on("devicelost", () => events.lost());
    this.device.on("devicerestored", () => {
      if (this.device.isWebGPU) this.field?.remake();
      this.redraw();
      events.restored();
    });
  }

  private configureSplats(): void {
    const splats = this.app.scene.gsplat;
    splats.dataFormat = GSPLATDATA_LARGE;
    splats.minPixelSize = 0;
    splats.minContribution = 0;
    splats.alphaClipForward = 1 / 255;
    splats.useFog = false;
    splats.useTonemap = false;
    splats.colorUpdateAngle = 1;
  }

  /** Whether a headset shows the scene: then its pose is the camera, and its screens the canvas. */
  get immersed(): boolean {
    return this.headset?.active === true;
  }

  /** Shows the scene in a headset. Rejects where that fails. */
  immerse(kind: Immersion, stand: Stand): Promise<void> {
    return this.headset?.start(kind, stand) ?? Promise.reject(new Error("no WebXR"));
  }

  /** Back to the canvas. */
  surface(): void {
    this.headset?.end();
  }

  get backend(): Backend {
    return this.device.isWebGPU ? "webgpu" : "webgl2";
  }

  get width(): number {
    return this.device.width;
  }

  get height(): number {
    return this.device.height;
  }

  /** Splats that are drawn now. */
  get splatCount(): number {
    return this.pieces.reduce((sum, p) => sum + (p.entity.enabled ? p.count : 0), 0);
  }

  /** Bytes of textures and sorting data: the pieces, and the engine's copy of the visible ones. */
  get splatBytes(): number {
    const own = this.field?.bytes ?? 0;
    return this.pieces.reduce(
      (sum, p) => sum + p.bytes + (p.entity.enabled ? 48 * p.count : 0),
      own,
    );
  }

  /** Pixels of the canvas. */
  resize(width: number, height: number): void {
    if (this.immersed) return;
    if (width === this.device.width && height === this.device.height) return;
    this.device.setResolution(Math.max(1, width), Math.max(1, height));
    this.redraw();
  }

  setBackground(rgb: readonly number[]): void {
    this.background = [rgb[0]!, rgb[1]!, rgb[2]!];
    this.camera.camera!.clearColor = new Color(rgb[0]!, rgb[1]!, rgb[2]!, 1);
    this.redraw();
  }

  setAntialiased(on: boolean): void {
    this.app.scene.gsplat.antiAlias = on;
    this.redraw();
  }

  /** Nothing is drawn while paused (a page in the background). */
  setPaused(paused: boolean): void {
    this.paused = paused;
    if (!paused) this.redraw();
  }

  /** Adds one piece of a progressive stage; it is drawn from the next frame on. */
  add(packed: PackedSplats, stage: number): void {
    if (packed.count === 0) return;
    const resource = new SplatResource(this.device, packed);
    const entity = new Entity("splats", this.app);
    entity.addComponent("gsplat", { resource });
    this.app.root.addChild(entity);
    const bytes = 2 * packedBytes(packed);
    this.pieces.push({ entity, resource, count: packed.count, bytes, stage });
    this.redraw();
  }

  /** Draws a field instead of splats from the next frame on. Throws SceneError. */
  setField(field: Field): void {
    this.field?.destroy();
    this.field = new FieldView(this.canvas, field, (canvas, f) => {
      if (!this.device.isWebGPU) return new WebGlField(canvas, f);
      return new WebGpuField((this.device as unknown as { wgpu: GPUDevice }).wgpu, canvas, f);
    });
  }

  /** Planes that the field has had no values of. */
  addPlanes(planes: readonly FieldPlane[]): void {
    this.field?.add(planes);
  }

  /** Whether a field is drawn: how long its picture takes does not depend on the canvas' size. */
  get hasField(): boolean {
    return this.field !== null;
  }

  /** A field's last picture; null before the first one, and where there is no field. */
  get fieldPicture(): DoneFieldPicture | null {
    return this.field?.last ?? null;
  }

  /** Zeros before the first planes. */
  get fieldStatistics(): FieldStatistics {
    const none = { width: 0, height: 0, slabs: 0, planes: 0, planesInFile: 0 };
    return this.field?.statistics() ?? none;
  }

  /** Decodes a field's pictures at this share of their resolution, along each axis, from now on. */
  setFieldShare(share: number): void {
    this.fieldShare = share;
    this.redraw();
  }

  private target(): FieldTarget {
    const { width, height } = this.device;
    return { width, height, background: this.background, share: this.fieldShare };
  }

  /** Draws only the first stages that together have at most `count` splats, at least one. */
  limit(count: number): void {
    const sizes = new Map<number, number>();
    for (const { stage, count: n } of this.pieces) sizes.set(stage, (sizes.get(stage) ?? 0) + n);
    let sum = 0;
    // A stage covers the whole scene, a piece of it a part of the scene: no stage is halved.
    const last = [...sizes].filter(([, n], i) => {
      sum += n;
      return i === 0 || sum <= count;
    });
    const most = last.at(-1)?.[0] ?? 0;
    for (const piece of this.pieces) {
      const enabled = piece.stage <= most;
      if (piece.entity.enabled !== enabled) {
        piece.entity.enabled = enabled;
        this.redraw();
      }
    }
  }

  clear(): void {
    for (const { entity, resource } of this.pieces.splice(0)) {
      entity.destroy();
      resource.destroy();
    }
    this.field?.destroy();
    this.field = null;
    this.fieldShare = 1;
    this.redraw();
  }

  /** Draws some frames from now on. */
  redraw(): void {
    this.pending = FRAMES_AFTER_CHANGE;
    this.field?.redraw();
  }

  /** Draws this pinhole camera from now on. */
  setView(view: PinholeCamera): void {
    this.view = view;
    if (this.immersed) return;
    const m = new Mat4();
    for (let r = 0; r < 4; r++) {
      for (let c = 0; c < 4; c++) m.data[4 * c + r] = view.c2w[4 * r + c]!;
    }
    this.camera.setPosition(m.getTranslation(new Vec3()));
    this.camera.setRotation(new Quat().setFromMat4(m));
    this.redraw();
  }

  /**
   * Draws the present view into a texture, once the sort has caught up, and reads it.
   *
   * Half-float by default where the device has it: what the shaders compute. With `screen` the
   * texture is 8 bits like the canvas, whose rounding at every blended splat is then included.
   * Another size than the view's scales the picture.
   */
  async capture(options: CaptureOptions = {}): Promise<Pixels> {
    const view = this.view;
    if (!view) throw new Error("no camera");
    const width = options.width ?? view.width;
    const height = options.height ?? view.height;
    if (this.field) {
      const target = { ...this.target(), width, height, share: 1 };
      return { width, height, data: await this.field.read(view, target) };
    }
    const hdr = options.screen ? null : this.device.getRenderableHdrFormat([PIXELFORMAT_RGBA16F]);
    const texture = new Texture(this.device, {
      name: "capture",
      width,
      height,
      format: hdr ?? PIXELFORMAT_RGBA8,
      mipmaps: false,
    });
    const renderTarget = new RenderTarget({ colorBuffer: texture, depth: false });
    const component = this.camera.camera!;
    component.renderTarget = renderTarget;
    try {
      await this.settle();
      const texels = await texture.read(0, 0, width, height, { renderTarget, immediate: true });
      const data = toBytes(texels as Uint8Array | Uint16Array | Float32Array);
      return { width, height, data: this.device.isWebGPU ? data : flipRows(data, width, height) };
    } finally {
      component.renderTarget = null!;
      renderTarget.destroy();
      texture.destroy();
      this.redraw();
    }
  }

  /** Draws until a sort of the very camera has been applied; colours are evaluated again, too. */
  private async settle(): Promise<void> {
    const wanted = this.device.isWebGPU || this.splatCount === 0 ? 0 : this.sorts + 3;
    const end = performance.now() + SETTLE_MS;
    for (let after = 0; after < 3; ) {
      this.app.scene.gsplat.dirty = true;
      await this.frame();
      if (this.sorts >= wanted || performance.now() > end) after++;
    }
  }

  private frame(): Promise<void> {
    return new Promise((resolve) => {
      this.app.once("frameend", () => resolve());
      this.app.renderNextFrame = true;
    });
  }
}

/** 8-bit pixels of a texture that was read as bytes, half floats or floats. */
function toBytes(texels: Uint8Array | Uint16Array | Float32Array): Uint8Array {
  if (texels instanceof Uint8Array) return texels;
  const value = texels instanceof Uint16Array ? fromHalf : (x: number) => x;
  return Uint8Array.from(texels, (x) => Math.round(255 * Math.min(1, Math.max(0, value(x)))));
}

function flipRows(data: Uint8Array, width: number, height: number): Uint8Array {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    out.set(data.subarray(4 * width * y, 4 * width * (y + 1)), 4 * width * (height - 1 - y));
  }
  return out;
}
