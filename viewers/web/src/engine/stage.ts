import {
  AppBase,
  AppOptions,
  CameraComponentSystem,
  Color,
  createGraphicsDevice,
  Entity,
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
import { type PackedSplats, packedBytes, unseenSplat } from "../decode/pack";
import type { TimeSpan } from "../decode/protocol";
import { type DoneFieldPicture, FieldView } from "../draw/field-view";
import type { FieldTarget } from "../draw/renderer";
import { WebGlField } from "../draw/webgl/field";
import { WebGpuField } from "../draw/webgpu/field";
import type { FieldStatistics } from "../events";
import { Headset, type Immersion } from "./immersion";
import { Layer, limited } from "./layer";
import { projectionOf } from "./pinhole";
import { flipRows, toBytes } from "./pixels";
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
  /** Seconds, of a scene that moves; without it, the time that is shown. */
  time?: number;
}

export interface StageEvents {
  /** Every frame, also in a headset: what goes on by itself; seconds since the last. */
  tick(dt: number): void;
  /** Before every frame, drawn or not; seconds since the last. */
  update(dt: number): void;
  /** A headset shows the scene instead of the canvas, or no more. */
  immersed(on: boolean): void;
  lost(): void;
  restored(): void;
}

const NEAR = 0.01;
const FAR = 1e6;
/** Frames drawn after a change: what the engine copies in one frame is drawn in the next. */
const FRAMES_AFTER_CHANGE = 2;
const SETTLE_MS = 5000;
/** The share of the picture's sides that is drawn while a sort is waited for. */
const SETTLE_SHARE = 1 / 4;

type Texels = Uint8Array | Uint16Array | Float32Array;

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
  /** What is shown. */
  private layer = new Layer();
  private view: PinholeCamera | null = null;
  private pending = 0;
  private sorts = 0;
  private paused = false;
  private capturing = false;
  /** The end of the last captured picture. */
  private pictures: Promise<unknown> = Promise.resolve();
  private time = 0;
  private background: [number, number, number] = [0, 0, 0];
  /** A splat that nobody sees, until there are others. */
  private rehearsal: Entity | null = null;

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
    this.rehearse();
    this.listen(events);
    this.app.start();
  }

  /**
   * The engine makes its splat renderer, the sorter and their shaders when it first draws splats:
   * that is done while the first scene is still on its way.
   */
  private rehearse(): void {
    const resource = new SplatResource(this.device, unseenSplat());
    this.rehearsal = new Entity("rehearsal", this.app);
    this.rehearsal.addComponent("gsplat", { resource });
    this.rehearsal.once("destroy", () => resource.destroy());
    this.app.root.addChild(this.rehearsal);
  }

  private listen(events: StageEvents): void {
    this.app.on("update", (dt: number) => {
      events.tick(dt);
      if (this.immersed) {
        this.headset?.update(dt);
        this.app.renderNextFrame = true;
        return;
      }
      events.update(dt);
      const { field } = this.layer;
      if (field) {
        if (this.view && !this.paused && field.update(this.view, this.target())) this.frames++;
        return;
      }
      // What is captured is drawn frame by frame: more of them would only be waited for.
      if (this.pending > 0 && !this.paused && !this.capturing) {
        this.pending--;
        this.app.renderNextFrame = true;
      }
    });
    this.app.on("postrender", () => {
      this.frames++;
    });
    // A sort on the CPU runs beside the drawing; the engine asks for a frame when it is there.
    this.app.systems.gsplat!.on("frame:request", () => {
      if (!this.paused && !this.capturing) this.app.renderNextFrame = true;
    });
    this.app.scene.on("gsplat:sorted", (ms: number) => {
      this.sortTime = ms;
      this.sorts++;
    });
    this.device.on("devicelost", () => events.lost());
    this.device.on("devicerestored", () => {
      if (this.device.isWebGPU) this.layer.field?.remake();
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
    return this.layer.splatCount;
  }

  /** Bytes of textures and sorting data: the pieces, and the engine's copy of the visible ones. */
  get splatBytes(): number {
    return this.layer.bytes;
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

  /** Nothing is drawn while paused (a page in the background). */
  setPaused(paused: boolean): void {
    this.paused = paused;
    if (!paused) this.redraw();
  }

  /** Planes that a field has had no values of. */
  addPlanes(layer: Layer, planes: readonly FieldPlane[]): void {
    layer.field?.add(planes);
  }

  /** Shows another scene's layer; the one before is only hidden. */
  show(layer: Layer): void {
    if (layer === this.layer) return;
    this.layer.setShown(false);
    this.layer = layer;
    layer.setShown(true);
    this.app.scene.gsplat.antiAlias = layer.antialiased;
    layer.setTime(this.time);
    this.redraw();
  }

  setAntialiased(layer: Layer, on: boolean): void {
    layer.antialiased = on;
    if (layer === this.layer) this.app.scene.gsplat.antiAlias = on;
    this.redraw();
  }

  /**
   * Adds one piece; it is drawn from the next frame on where its layer is shown. `stage`: of how
   * fine a scene it is a part; `span`: when it is there, if not always.
   */
  add(layer: Layer, packed: PackedSplats, stage: number, span: TimeSpan | null = null): void {
    if (packed.count === 0) return;
    const resource = new SplatResource(this.device, packed);
    const entity = new Entity("splats", this.app);
    entity.addComponent("gsplat", { resource });
    this.app.root.addChild(entity);
    const { count, bounds } = packed;
    const bytes = 2 * packedBytes(packed);
    layer.add({ entity, resource, count, bytes, bounds, stage, span });
    this.rehearsal?.destroy();
    this.rehearsal = null;
    this.redraw();
  }

  /** Draws a field instead of splats from the next frame on. Throws SceneError. */
  setField(layer: Layer, field: Field): void {
    layer.field?.destroy();
    layer.field = new FieldView(this.canvas, field, (canvas, f) => {
      if (!this.device.isWebGPU) return new WebGlField(canvas, f);
      return new WebGpuField((this.device as unknown as { wgpu: GPUDevice }).wgpu, canvas, f);
    });
    layer.apply();
  }

  /** Whether a field is drawn: how long its picture takes does not depend on the canvas' size. */
  get hasField(): boolean {
    return this.layer.field !== null;
  }

  /** A field's last picture; null before the first one, and where there is no field. */
  get fieldPicture(): DoneFieldPicture | null {
    return this.layer.field?.last ?? null;
  }

  /** Zeros before the first planes. */
  get fieldStatistics(): FieldStatistics {
    const none = { width: 0, height: 0, slabs: 0, planes: 0, planesInFile: 0 };
    return this.layer.field?.statistics() ?? none;
  }

  /** Decodes a field's pictures at this share of their resolution, along each axis, from now on. */
  setFieldShare(share: number): void {
    this.layer.fieldShare = share;
    this.redraw();
  }

  /** Shows another time, in seconds, of a scene that moves. */
  setTime(seconds: number): void {
    this.time = seconds;
    if (this.layer.setTime(seconds)) this.redraw();
  }

  private target(): FieldTarget {
    const { width, height } = this.device;
    return { width, height, background: this.background, share: this.layer.fieldShare };
  }

  /** Draws only the first stages that together have at most `count` splats, at least one. */
  limit(layer: Layer, count: number): void {
    if (layer.limit(limited(layer.pieces, count))) this.redraw();
  }

  /** Gives everything of a scene back. */
  drop(layer: Layer): void {
    layer.destroy();
    this.redraw();
  }

  /** Draws some frames from now on. */
  redraw(): void {
    this.pending = FRAMES_AFTER_CHANGE;
    this.layer.field?.redraw();
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
   * Another size than the view's scales the picture. One picture after the other.
   */
  capture(options: CaptureOptions = {}): Promise<Pixels> {
    const { view } = this;
    if (!view) return Promise.reject(new Error("no camera"));
    const picture = this.pictures.then(() => this.draw(view, options));
    this.pictures = picture.catch(() => {});
    return picture;
  }

  private async draw(view: PinholeCamera, options: CaptureOptions): Promise<Pixels> {
    const width = options.width ?? view.width;
    const height = options.height ?? view.height;
    const shown = this.time;
    if (options.time !== undefined) this.setTime(options.time);
    try {
      return await this.read(view, width, height, options.screen === true);
    } finally {
      this.setTime(shown);
    }
  }

  private async read(
    view: PinholeCamera,
    width: number,
    height: number,
    screen: boolean,
  ): Promise<Pixels> {
    const { field } = this.layer;
    if (field) {
      const target = { ...this.target(), width, height, share: 1 };
      return { width, height, data: await field.read(view, target) };
    }
    // A sort on the CPU is waited for with few pixels: it is the camera's, whatever their number.
    const [w, h] = [width, height].map((side) => Math.ceil(SETTLE_SHARE * side)) as [
      number,
      number,
    ];
    const small = this.device.isWebGPU ? null : this.makeTarget(w, h, screen);
    const full = this.makeTarget(width, height, screen);
    const component = this.camera.camera!;
    this.capturing = true;
    try {
      component.renderTarget = small ?? full;
      await this.settle();
      if (small) {
        component.renderTarget = full;
        await this.frame();
      }
      const texture = full.colorBuffer;
      const options = { renderTarget: full, immediate: true };
      const data = toBytes((await texture.read(0, 0, width, height, options)) as Texels);
      return { width, height, data: this.device.isWebGPU ? data : flipRows(data, width, height) };
    } finally {
      this.capturing = false;
      component.renderTarget = null!;
      for (const target of [small, full]) {
        target?.colorBuffer.destroy();
        target?.destroy();
      }
      this.redraw();
    }
  }

  private makeTarget(width: number, height: number, screen: boolean): RenderTarget {
    const hdr = screen ? null : this.device.getRenderableHdrFormat([PIXELFORMAT_RGBA16F]);
    const colorBuffer = new Texture(this.device, {
      name: "capture",
      width,
      height,
      format: hdr ?? PIXELFORMAT_RGBA8,
      mipmaps: false,
    });
    return new RenderTarget({ colorBuffer, depth: false });
  }

  /** Draws until a sort of the very camera has been applied; colours are evaluated again, too. */
  private async settle(): Promise<void> {
    const wanted = this.device.isWebGPU || this.splatCount === 0 ? 0 : this.sorts + 3;
    const end = performance.now() + SETTLE_MS;
    for (let after = 0; after < 3; ) {
      await this.frame();
      if (this.sorts >= wanted || performance.now() > end) after++;
    }
  }

  private frame(): Promise<void> {
    return new Promise((resolve) => {
      this.app.scene.gsplat.dirty = true;
      this.app.once("frameend", () => resolve());
      this.app.renderNextFrame = true;
    });
  }
}
