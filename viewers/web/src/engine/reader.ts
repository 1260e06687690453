import {
  type AppBase,
  type Entity,
  type GraphicsDevice,
  PIXELFORMAT_RGBA8,
  PIXELFORMAT_RGBA16F,
  RenderTarget,
  Texture,
} from "playcanvas";
import { flipRows, toBytes } from "./pixels";

const SETTLE_MS = 5000;
/** In a pixel, of what is solid. */
const SAMPLES = 4;
/** The share of the picture's sides that is drawn while a sort is waited for. */
const SETTLE_SHARE = 1 / 4;

type Texels = Uint8Array | Uint16Array | Float32Array;

/** Draws with the engine into a texture and reads it. */
export class EngineReader {
  /** While a picture is read: more frames would only be waited for. */
  busy = false;
  private sorts = 0;

  constructor(
    private readonly app: AppBase,
    private readonly device: GraphicsDevice,
    private readonly camera: Entity,
  ) {
    app.scene.on("gsplat:sorted", () => {
      this.sorts++;
    });
  }

  /**
   * RGBA, 8 bits, top row first, once the sort of the present camera has been applied.
   *
   * Half-float by default where the device has it: what the shaders compute. With `screen` the
   * texture is 8 bits like the canvas, whose rounding at every blended splat is then included.
   * `solid`: with depths and samples, as a drawable wants them.
   */
  async read(
    { width, height }: { width: number; height: number },
    { screen, sorted, solid }: { screen: boolean; sorted: boolean; solid: boolean },
  ): Promise<Uint8Array> {
    // A sort on the CPU is waited for with few pixels: it is the camera's, whatever their number.
    const [w, h] = [width, height].map((side) => Math.ceil(SETTLE_SHARE * side)) as [
      number,
      number,
    ];
    const small = this.device.isWebGPU || !sorted ? null : this.makeTarget(w, h, screen, solid);
    const full = this.makeTarget(width, height, screen, solid);
    const component = this.camera.camera!;
    this.busy = true;
    try {
      component.renderTarget = small ?? full;
      if (sorted) await this.settle();
      if (small || !sorted) {
        component.renderTarget = full;
        await this.frame();
      }
      const texture = full.colorBuffer;
      // Of several samples the texture has what they come to.
      const options = { ...(solid ? {} : { renderTarget: full }), immediate: true };
      const data = toBytes((await texture.read(0, 0, width, height, options)) as Texels);
      return this.device.isWebGPU ? data : flipRows(data, width, height);
    } finally {
      this.busy = false;
      component.renderTarget = null!;
      for (const target of [small, full]) {
        target?.colorBuffer.destroy();
        target?.destroy();
      }
    }
  }

  private makeTarget(width: number, height: number, screen: boolean, solid: boolean): RenderTarget {
    const hdr = screen ? null : this.device.getRenderableHdrFormat([PIXELFORMAT_RGBA16F]);
    const colorBuffer = new Texture(this.device, {
      name: "capture",
      width,
      height,
      format: hdr ?? PIXELFORMAT_RGBA8,
      mipmaps: false,
    });
    return new RenderTarget({ colorBuffer, depth: solid, samples: solid ? SAMPLES : 1 });
  }

  /** Draws until a sort of the very camera has been applied; colours are evaluated again, too. */
  private async settle(): Promise<void> {
    const wanted = this.device.isWebGPU ? 0 : this.sorts + 3;
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
