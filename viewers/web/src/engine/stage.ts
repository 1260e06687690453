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
  Quat,
  type Vec2,
  Vec3,
  XrManager,
} from "playcanvas";
import type { PinholeCamera } from "../camera/projection";
import type { Stand } from "../camera/stand";
import { SceneError } from "../decode/errors";
import type { Field } from "../decode/field/field";
import type { MeshData } from "../decode/mesh/mesh";
import type { Followers } from "../decode/motion/followers";
import type { MotionShape } from "../decode/motion/splines";
import { type PackedSplats, packedBytes, unseenSplat } from "../decode/pack";
import type { TimeSpan } from "../decode/protocol";
import { FieldView } from "../draw/field-view";
import { WebGlField } from "../draw/webgl/field";
import { WebGpuField } from "../draw/webgpu/field";
import type { Backdrop, Drawable, Frame } from "./drawable";
import { Headset, type Immersion } from "./immersion";
import { Layer } from "./layer";
import { MeshView } from "./mesh-view";
import { type MotionSource, MovingSplats } from "./moving-splats";
import { projectionOf } from "./pinhole";
import { EngineReader } from "./reader";
import { SplatPieces } from "./splat-pieces";
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

/** What is known of a piece beside its splats. */
export interface PieceOptions {
  stage: number;
  span?: TimeSpan | null | undefined;
  followers?: Followers | undefined;
}

export interface StageEvents {
  /** Every frame, also in a headset: what goes on by itself. */
  tick(): void;
  /** Before every frame, drawn or not; seconds since the last. */
  update(dt: number): void;
  /** A headset shows the scene instead of the canvas, or no more. */
  immersed(on: boolean): void;
  lost(): void;
  restored(): void;
}

/** What the engine knows of the buffers that the canvas is drawn from. */
interface CanvasBuffers {
  backBufferAntialias: boolean;
  samples: number;
  readonly maxSamples: number;
  readonly initOptions: { depth: boolean };
  readonly backBufferSize: Vec2;
}

const NEAR = 0.01;
const FAR = 1e6;
const FRAMES_AHEAD = 2;

/**
 * The engine: one camera, one canvas, the scene that is shown. Everything of PlayCanvas is behind
 * it. It knows no kinds of scenes: each is a Drawable.
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
  private paused = false;
  private readonly reader: EngineReader;
  /** The end of the last captured picture. */
  private pictures: Promise<unknown> = Promise.resolve();
  private time = 0;
  /** Frames that the graphics device has not drawn yet. */
  private unfinished = 0;
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
      const { view } = this;
      if (!view) return;
      const [near, far] = this.drawable.depthsIn(view) ?? [NEAR, FAR];
      matrix.copy(projectionOf(view, near, far));
    };
    this.reader = new EngineReader(this.app, device, this.camera);
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
    let waited = 0;
    this.app.on("update", (dt: number) => {
      events.tick();
      if (this.immersed) {
        this.headset?.update(dt);
        if (!this.drawable.standalone) this.drawable.update(this.nextFrame());
        this.app.renderNextFrame = true;
        return;
      }
      waited += dt;
      if (this.unfinished >= FRAMES_AHEAD) return;
      events.update(waited);
      waited = 0;
      if (this.paused || this.reader.busy) return;
      if (this.drawable.update(this.nextFrame())) this.frames++;
    });
    this.app.on("postrender", () => {
      this.frames++;
      this.awaitFrame();
    });
    // A sort on the CPU runs beside the drawing; the engine asks for a frame when it is there.
    this.app.systems.gsplat!.on("frame:request", () => {
      if (!this.paused && !this.reader.busy) this.render();
    });
    this.app.scene.on("gsplat:sorted", (ms: number) => {
      this.sortTime = ms;
    });
    this.device.on("devicelost", () => events.lost());
    this.device.on("devicerestored", () => {
      this.unfinished = 0;
      if (this.device.isWebGPU) this.drawable.remake();
      this.redraw();
      events.restored();
    });
  }

  /** WebGPU takes frames faster than a slow device draws them: no more than some are begun. */
  private awaitFrame(): void {
    if (!this.device.isWebGPU) return;
    this.unfinished++;
    const done = () => {
      this.unfinished = Math.max(0, this.unfinished - 1);
    };
    const { wgpu } = this.device as unknown as { wgpu: GPUDevice };
    wgpu.queue.onSubmittedWorkDone().then(done, done);
  }

  private nextFrame(): Frame {
    return { view: this.view, target: this.target(), render: this.render };
  }

  private readonly render = (): void => {
    this.app.renderNextFrame = true;
  };

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

  /** What is shown. */
  get drawable(): Drawable {
    return this.layer.drawable;
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

  /** Shows another scene's layer; the one before is only hidden. */
  show(layer: Layer): void {
    if (layer === this.layer) return;
    this.layer.setShown(false);
    this.layer = layer;
    layer.setShown(true);
    this.app.scene.gsplat.antiAlias = layer.antialiased;
    layer.setTime(this.time);
    this.prepareCanvas();
    this.redraw();
  }

  setAntialiased(layer: Layer, on: boolean): void {
    layer.antialiased = on;
    if (layer === this.layer) this.app.scene.gsplat.antiAlias = on;
    this.redraw();
  }

  /**
   * Adds one piece; it is drawn from the next frame on where its layer is shown. `stage`: of how
   * fine a scene it is a part; `span`: when it is there, if not always; `followers`: how it moves,
   * where the layer has a motion.
   */
  add(layer: Layer, packed: PackedSplats, { stage, span, followers }: PieceOptions): void {
    if (packed.count === 0) return;
    const { drawable } = layer;
    const motion = followers &&
      drawable instanceof MovingSplats && { followers, poses: drawable.poses };
    const resource = new SplatResource(this.device, packed, motion || null);
    const entity = new Entity("splats", this.app);
    entity.addComponent("gsplat", { resource });
    this.app.root.addChild(entity);
    const { count, bounds } = packed;
    const bytes = 2 * packedBytes(packed);
    if (!(layer.drawable instanceof SplatPieces)) layer.replace(new SplatPieces());
    const pieces = layer.drawable as SplatPieces;
    pieces.add({ entity, resource, count, bytes, bounds, stage, span: span ?? null });
    this.endRehearsal();
    this.redraw();
  }

  private endRehearsal(): void {
    this.rehearsal?.destroy();
    this.rehearsal = null;
  }

  /** Draws a mesh instead of splats from the next frame on. */
  setMesh(layer: Layer, mesh: MeshData): void {
    layer.replace(new MeshView(this.app, this.device, mesh));
    this.endRehearsal();
    this.prepareCanvas();
  }

  /** Depths and samples for what is solid; without them splats are drawn faster. */
  private prepareCanvas(): void {
    const { solid } = this.drawable;
    // The engine chooses this when it begins; it makes the canvas' buffers anew when sizes differ.
    const device = this.device as unknown as CanvasBuffers;
    if (device.backBufferAntialias === solid) return;
    device.backBufferAntialias = solid;
    device.samples = solid ? device.maxSamples : 1;
    device.initOptions.depth = solid;
    device.backBufferSize.set(0, 0);
  }

  /** Pieces that are added from now on may follow this motion. */
  setMotion(layer: Layer, shape: MotionShape, source: MotionSource): void {
    layer.replace(new MovingSplats(this.app, this.device, shape, source));
  }

  /** A chunk of a layer's motion has come. */
  addKnots(layer: Layer, chunk: number, knots: Float32Array): void {
    if (layer.drawable instanceof MovingSplats) layer.drawable.addKnots(chunk, knots);
  }

  /** Draws a field instead of splats from the next frame on. Throws SceneError. */
  setField(layer: Layer, field: Field): FieldView {
    const view = new FieldView(this.canvas, field, (canvas, f) => {
      if (!this.device.isWebGPU) return new WebGlField(canvas, f);
      return new WebGpuField((this.device as unknown as { wgpu: GPUDevice }).wgpu, canvas, f);
    });
    layer.replace(view);
    return view;
  }

  /** Shows another time, in seconds, of a scene that moves. */
  setTime(seconds: number): void {
    this.time = seconds;
    if (this.layer.setTime(seconds)) this.redraw();
  }

  private target(): Backdrop {
    const { width, height } = this.device;
    return { width, height, background: this.background };
  }

  /** Draws only the first stages that together have at most `count` splats, at least one. */
  limit(layer: Layer, count: number): void {
    if (layer.drawable.limit(count)) this.redraw();
  }

  /** Gives everything of a scene back. */
  drop(layer: Layer): void {
    layer.destroy();
    this.redraw();
  }

  /** Draws some frames from now on. */
  redraw(): void {
    this.drawable.redraw();
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
    const target = { ...this.target(), width, height };
    try {
      const picture = { view, target, screen: options.screen === true };
      return { width, height, data: await this.drawable.read(picture, this.reader) };
    } finally {
      this.setTime(shown);
    }
  }
}
