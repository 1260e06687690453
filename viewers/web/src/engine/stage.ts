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
} from "playcanvas";
import { SceneError } from "../decode/errors";
import { fromHalf, type PackedSplats } from "../decode/pack";
import { type PinholeCamera, projectionOf } from "./pinhole";
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

const NEAR = 0.01;
const FAR = 1e6;

/** The engine: one camera, one canvas, the scene's pieces. Everything of PlayCanvas is behind it. */
export class Stage {
  readonly app: AppBase;
  readonly device: GraphicsDevice;
  readonly camera: Entity;
  private readonly pieces: { entity: Entity; resource: SplatResource; count: number }[] = [];
  private exact: PinholeCamera | null = null;

  static async create(canvas: HTMLCanvasElement, wanted: readonly Backend[]): Promise<Stage> {
    let device: GraphicsDevice;
    try {
      device = await createGraphicsDevice(canvas, {
        deviceTypes: [...wanted],
        antialias: false,
        alpha: false,
        powerPreference: "high-performance",
      });
    } catch (error) {
      throw new SceneError("no-graphics", "WebGPU and WebGL2", String(error));
    }
    return new Stage(canvas, device);
  }

  private constructor(canvas: HTMLCanvasElement, device: GraphicsDevice) {
    this.device = device;
    device.maxPixelRatio = window.devicePixelRatio;
    this.app = new AppBase(canvas);
    const options = new AppOptions();
    options.graphicsDevice = device;
    options.componentSystems = [CameraComponentSystem, GSplatComponentSystem];
    this.app.init(options);
    this.app.autoRender = false;
    this.camera = new Entity("camera");
    this.camera.addComponent("camera", {
      clearColor: new Color(0, 0, 0, 1),
      nearClip: NEAR,
      farClip: FAR,
      frustumCulling: false,
    });
    this.app.root.addChild(this.camera);
    this.configureSplats();
    this.app.start();
  }

  get backend(): Backend {
    return this.device.isWebGPU ? "webgpu" : "webgl2";
  }

  /** Splats that are drawn now. */
  get splatCount(): number {
    return this.pieces.reduce((sum, p) => sum + (p.entity.enabled ? p.count : 0), 0);
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

  /** Adds one piece; it is drawn from the next frame on. */
  add(packed: PackedSplats): void {
    if (packed.count === 0) return;
    const resource = new SplatResource(this.device, packed);
    const entity = new Entity("splats");
    entity.addComponent("gsplat", { resource });
    this.app.root.addChild(entity);
    this.pieces.push({ entity, resource, count: packed.count });
    this.redraw();
  }

  clear(): void {
    for (const { entity, resource } of this.pieces.splice(0)) {
      entity.destroy();
      resource.destroy();
    }
    this.redraw();
  }

  redraw(): void {
    this.app.renderNextFrame = true;
  }

  /** Draws exactly this pinhole camera from now on, or the interactive one again (null). */
  setExactCamera(camera: PinholeCamera | null): void {
    this.exact = camera;
    const component = this.camera.camera!;
    component.calculateProjection = camera
      ? (matrix: Mat4) => matrix.copy(projectionOf(camera, NEAR, FAR))
      : null!;
    if (camera) this.place(camera.c2w);
    this.redraw();
  }

  /** Puts the camera at a camera-to-world matrix (row-major 4 x 4, OpenGL axes). */
  place(c2w: ArrayLike<number>): void {
    const m = new Mat4();
    for (let r = 0; r < 4; r++) for (let c = 0; c < 4; c++) m.data[4 * c + r] = c2w[4 * r + c]!;
    this.camera.setPosition(m.getTranslation(new Vec3()));
    this.camera.setRotation(new Quat().setFromMat4(m));
  }

  /**
   * Draws the present camera into a texture, once the sort has caught up, and reads it.
   *
   * Half-float by default where the device has it: what the shaders compute. With `screen` the
   * texture is 8 bits like the canvas, whose rounding at every blended splat is then included.
   */
  async capture(options: CaptureOptions = {}): Promise<Pixels> {
    const width = options.width ?? this.exact?.width ?? this.device.width;
    const height = options.height ?? this.exact?.height ?? this.device.height;
    const format =
      (options.screen ? null : this.device.getRenderableHdrFormat([PIXELFORMAT_RGBA16F])) ??
      PIXELFORMAT_RGBA8;
    const texture = new Texture(this.device, {
      name: "capture",
      width,
      height,
      format,
      mipmaps: false,
    });
    const renderTarget = new RenderTarget({ colorBuffer: texture, depth: true });
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

  /** Spherical harmonics are evaluated again for the camera's very position. */
  private refreshColors(): void {
    this.app.scene.gsplat.dirty = true;
  }

  /** Frames until two sorts with this camera have been applied. */
  private async settle(): Promise<void> {
    const frames = 12;
    for (let i = 0; i < frames; i++) {
      this.refreshColors();
      await this.frame();
      await new Promise((resolve) => setTimeout(resolve, 10));
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
