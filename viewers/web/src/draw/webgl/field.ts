import type { PinholeCamera } from "../../camera/projection";
import { SceneError } from "../../decode/errors";
import type { Field, FieldPlane } from "../../decode/field/field";
import { type FieldMpi, mpiBytes } from "../../decode/field/mpi";
import {
  decodedCamera,
  type FieldLayout,
  INDEX_ROW,
  layoutOf,
  type PictureSizes,
  sizesOf,
  slabNumbers,
  slabTexels,
} from "../layout";
import { type PlanePlaces, paddedPlane, planePlaces, ROW } from "../planes";
import type { FieldRenderer, FieldTarget } from "../renderer";
import {
  type LayerOrder,
  layerOrders,
  type Outputs,
  partsOf,
  partWeights,
  withCoverage,
} from "../weights";
import { FieldDevice, type Layers, type Program } from "./device";
import {
  finishMpiShader,
  finishShader,
  firstShader,
  PRESENT,
  sampleShader,
  sharpenShader,
  trunkShader,
} from "./shaders";

/** One pass over some of a layer's outputs. */
interface Pass extends Outputs {
  program: Program;
}

interface Stages {
  samples: Pass[];
  first: Pass[];
  blocks: [Pass[], Pass[]][];
  last: Pass[];
  sharpen: Pass[][];
  finish: Program;
  present: Program;
}

/** Intermediate results for pictures of one size. */
interface Results {
  width: number;
  height: number;
  sizes: PictureSizes;
  samples: Layers;
  /** Two that take turns, and what is between a block's layers. */
  trunk: [Layers, Layers];
  inner: Layers;
  shuffled: Layers[];
  picture: WebGLTexture;
  /** By texture, then by the first layer that is written. */
  framebuffers: Map<WebGLTexture, Map<number, WebGLFramebuffer>>;
}

/** A field drawn in WebGL 2: every layer of the network is a pass, or some, over small textures. */
export class WebGlField implements FieldRenderer {
  private readonly device: FieldDevice;
  private readonly layout: FieldLayout;
  private readonly places: PlanePlaces;
  private readonly planes: WebGLTexture;
  private readonly slabs: WebGLTexture;
  /** Where the MPIs' blocks are, and what they hold. */
  private readonly mpi: { blocks: WebGLTexture; atlas: WebGLTexture } | null;
  private readonly stages: Stages;
  private results: Results | null = null;
  milliseconds = 0;
  decoded = { width: 0, height: 0 };
  private fence: WebGLSync | null = null;
  private begun = 0;

  /** `precise`: 32 bits for what is between layers, for tests. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly field: Field,
    precise = false,
  ) {
    this.device = new FieldDevice(canvas, precise);
    const { gl } = this.device;
    const { shape } = field;
    this.layout = layoutOf(shape);
    this.places = planePlaces(shape);
    if (this.places.rows > (gl.getParameter(gl.MAX_TEXTURE_SIZE) as number)) {
      throw new SceneError(
        "field-too-big",
        "WebGL2",
        `planes of ${this.places.rows} x ${ROW} texels`,
      );
    }
    this.planes = this.device.texture(ROW, Math.max(1, this.places.rows), gl.RGBA16F);
    this.slabs = this.device.texture(slabTexels(shape), shape.slabs.length, gl.RGBA32F);
    this.mpi = field.mpi && this.mpiTextures(field.mpi);
    this.stages = this.makeStages();
    this.setPlanes(field.planes.flatMap((values, index) => (values ? [{ index, values }] : [])));
  }

  get bytes(): number {
    let texels = 0;
    if (this.results) {
      const { samples, trunk, shuffled } = this.results.sizes;
      for (const { width, height, layers } of [samples, trunk, trunk, trunk, ...shuffled]) {
        texels += width * height * layers;
      }
    }
    const { mpi } = this.field;
    const fixed = 8 * ROW * this.places.rows + (mpi ? mpiBytes(mpi) : 0);
    return fixed + texels * this.device.bytesPerTexel;
  }

  private mpiTextures({ index, atlas, width, height }: FieldMpi): {
    blocks: WebGLTexture;
    atlas: WebGLTexture;
  } {
    const { device } = this;
    const { gl } = device;
    const rows = Math.ceil(index.length / INDEX_ROW);
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
    if (Math.max(rows, width, height) > most) {
      throw new SceneError("field-too-big", "WebGL2", `MPIs of ${width} x ${height} texels`);
    }
    const blocks = device.texture(INDEX_ROW, rows, gl.R32UI);
    const places = new Uint32Array(INDEX_ROW * rows);
    places.set(index);
    const type = [gl.RED_INTEGER, gl.UNSIGNED_INT] as const;
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, INDEX_ROW, rows, ...type, places);
    const texture = device.texture(width, height, gl.RGBA8);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, atlas);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    return { blocks, atlas: texture };
  }

  setPlanes(planes: readonly FieldPlane[]): void {
    const { gl } = this.device;
    for (const plane of planes) {
      const data = paddedPlane(this.field.shape, plane);
      const row = this.places.starts[plane.index]! / ROW;
      const rows = data.length / (4 * ROW);
      gl.bindTexture(gl.TEXTURE_2D, this.planes);
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, row, ROW, rows, gl.RGBA, gl.FLOAT, data);
    }
  }

  private makeStages(): Stages {
    const { device, layout, field, places } = this;
    const { shape } = field;
    const orders = layerOrders(shape, layout);
    // All programs are started before the first one is waited for.
    const compiled = (name: string, order: LayerOrder, source: (o: Outputs) => string) => {
      const parts = this.parts(order).map((part) => ({
        ...part,
        program: device.start(source(part)),
      }));
      return () => parts.map(({ program, ...part }) => this.pass(program, name, order, part));
    };
    const of = (name: string, source: (o: Outputs) => string) =>
      compiled(name, orders[name]!, source);
    const samples = compiled("encode", withCoverage(orders.encode!), (o) =>
      sampleShader(shape, layout, places, o),
    );
    const first = of("first", (o) => firstShader(layout, o));
    const blocks = Array.from({ length: layout.blocks }, (_, i) => [
      of(`block_${i}_0`, (o) => trunkShader(layout, o, false)),
      of(`block_${i}_1`, (o) => trunkShader(layout, o, true)),
    ]);
    const last = of("last", (o) => trunkShader(layout, o, false));
    const sharpen = shape.decoder.channels.map((_, j) =>
      of(`sharpen_${j}`, (o) => sharpenShader(layout, o, j)),
    );
    const finish = device.start(
      field.mpi ? finishMpiShader(shape, field.mpi) : finishShader(layout),
    );
    const present = device.start(PRESENT);
    return {
      samples: samples(),
      first: first(),
      blocks: blocks.map((b) => [b[0]!(), b[1]!()]),
      last: last(),
      sharpen: sharpen.map((s) => s()),
      finish: device.finish(finish, null),
      present: device.finish(present, null),
    };
  }

  /** The outputs of one layer in as few passes as the device can do. */
  private parts(order: LayerOrder): Outputs[] {
    const inputs = order.inputs.length;
    const { targets, blockBytes } = this.device;
    const bytes = 16 + 64 * (inputs / 4);
    const most = Math.min(targets, Math.floor(blockBytes / bytes));
    if (most < 1) {
      throw new SceneError("field-too-big", "WebGL2", `a layer of ${inputs} inputs`);
    }
    return partsOf(order, most);
  }

  private pass(program: WebGLProgram, name: string, order: LayerOrder, part: Outputs): Pass {
    const weights = partWeights(this.field.layers[name]!, order, part);
    return { ...part, program: this.device.finish(program, weights) };
  }

  private resultsFor(width: number, height: number): Results {
    if (this.results?.width === width && this.results.height === height) return this.results;
    this.dropResults();
    const { device } = this;
    const sizes = sizesOf(this.layout, width, height);
    const trunk = () => device.layers(sizes.trunk);
    this.results = {
      width,
      height,
      sizes,
      samples: device.layers(sizes.samples),
      trunk: [trunk(), trunk()],
      inner: trunk(),
      shuffled: sizes.shuffled.map((size) => device.layers(size)),
      picture: device.texture(width, height, device.format),
      framebuffers: new Map(),
    };
    return this.results;
  }

  private dropResults(): void {
    if (!this.results) return;
    const { gl } = this.device;
    const { samples, trunk, inner, shuffled, picture, framebuffers } = this.results;
    for (const { texture } of [samples, ...trunk, inner, ...shuffled]) gl.deleteTexture(texture);
    gl.deleteTexture(picture);
    for (const made of framebuffers.values()) {
      for (const framebuffer of made.values()) gl.deleteFramebuffer(framebuffer);
    }
    this.results = null;
  }

  private framebuffer(
    texture: WebGLTexture,
    first: number,
    make: () => WebGLFramebuffer,
  ): WebGLFramebuffer {
    const made = this.results!.framebuffers.get(texture) ?? new Map<number, WebGLFramebuffer>();
    this.results!.framebuffers.set(texture, made);
    const found = made.get(first) ?? make();
    made.set(first, found);
    return found;
  }

  private layer(
    passes: readonly Pass[],
    into: Layers,
    sources: Readonly<Record<string, Layers>>,
    set?: (uniforms: Program["uniforms"]) => void,
    plain: Readonly<Record<string, [number, WebGLTexture]>> = {},
  ): void {
    const { device } = this;
    const arrays = Object.entries(sources).map(
      ([name, { texture }]) => [name, [device.gl.TEXTURE_2D_ARRAY, texture]] as const,
    );
    const textures = { ...plain, ...Object.fromEntries(arrays) } as Record<
      string,
      [number, WebGLTexture]
    >;
    for (const { program, first, count } of passes) {
      const framebuffer = this.framebuffer(into.texture, first, () =>
        device.into(into, first, count),
      );
      device.run(program, framebuffer, into.size, textures, (u) => {
        if (u.first) device.gl.uniform1i(u.first, first);
        set?.(u);
      });
    }
  }

  /** The network's picture, colours times alpha. */
  private decode(camera: PinholeCamera): Results {
    const { device, stages, layout } = this;
    const { gl } = device;
    const results = this.resultsFor(camera.width, camera.height);
    const { samples, trunk, inner, shuffled, picture } = results;
    const slabs: [number, WebGLTexture] = [gl.TEXTURE_2D, this.slabs];
    this.setSlabs(camera);
    const setCamera = (u: Program["uniforms"]) => {
      const { K } = camera;
      if (u.lens) gl.uniform4f(u.lens, K[0]!, K[4]!, K[2]!, K[5]!);
      if (u.size) gl.uniform1f(u.size, layout.step / layout.k);
    };
    this.layer(stages.samples, samples, {}, setCamera, {
      planes: [gl.TEXTURE_2D, this.planes],
      slabs,
    });
    let [now, other] = trunk;
    this.layer(stages.first, now, { source: samples });
    for (const [into, out] of stages.blocks) {
      this.layer(into, inner, { source: now });
      this.layer(out, other, { source: inner, before: now });
      [now, other] = [other, now];
    }
    this.layer(stages.last, shuffled[0]!, { source: now });
    for (const [j, passes] of stages.sharpen.entries()) {
      this.layer(passes, shuffled[j + 1]!, { source: shuffled[j]!, samples });
    }
    const into = this.framebuffer(picture, 0, () => device.intoTexture(picture));
    const textures: Record<string, [number, WebGLTexture]> = {
      source: [gl.TEXTURE_2D_ARRAY, shuffled.at(-1)!.texture],
      samples: [gl.TEXTURE_2D_ARRAY, samples.texture],
      slabs,
    };
    if (this.mpi) {
      textures.blocks = [gl.TEXTURE_2D, this.mpi.blocks];
      textures.atlas = [gl.TEXTURE_2D, this.mpi.atlas];
    }
    device.run(stages.finish, into, camera, textures, setCamera);
    return results;
  }

  private setSlabs(camera: PinholeCamera): void {
    const { gl } = this.device;
    const { shape } = this.field;
    const size = [slabTexels(shape), shape.slabs.length] as const;
    gl.bindTexture(gl.TEXTURE_2D, this.slabs);
    gl.texSubImage2D(
      gl.TEXTURE_2D,
      0,
      0,
      0,
      ...size,
      gl.RGBA,
      gl.FLOAT,
      slabNumbers(shape, camera),
    );
  }

  private present(
    view: PinholeCamera,
    { width, height, background, share }: FieldTarget,
    framebuffer: WebGLFramebuffer | null,
  ): void {
    const { gl } = this.device;
    const camera = decodedCamera(view, this.field.shape.focal, share);
    this.decoded = camera;
    const { picture } = this.decode(camera);
    const textures: Record<string, [number, WebGLTexture]> = {
      picture: [gl.TEXTURE_2D, picture],
    };
    this.device.run(this.stages.present, framebuffer, { width, height }, textures, (u) => {
      gl.uniform2f(u.target!, width, height);
      gl.uniform3f(u.background!, ...background);
      gl.uniform1i(u.flip!, framebuffer ? 0 : 1);
    });
  }

  /** Whether the picture before is done. */
  idle(): boolean {
    const { gl } = this.device;
    if (!this.fence) return true;
    if (gl.clientWaitSync(this.fence, 0, 0) === gl.TIMEOUT_EXPIRED) return false;
    gl.deleteSync(this.fence);
    this.fence = null;
    this.milliseconds = performance.now() - this.begun;
    return true;
  }

  draw(view: PinholeCamera, target: FieldTarget): boolean {
    const { gl } = this.device;
    if (gl.isContextLost()) return false;
    if (!this.idle()) return false;
    this.begun = performance.now();
    if (this.canvas.width !== target.width || this.canvas.height !== target.height) {
      this.canvas.width = target.width;
      this.canvas.height = target.height;
    }
    this.present(view, target, null);
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return true;
  }

  read(view: PinholeCamera, target: FieldTarget): Promise<Uint8Array> {
    const { device } = this;
    const { gl } = device;
    const texture = device.texture(target.width, target.height, gl.RGBA8);
    const framebuffer = device.intoTexture(texture);
    const data = new Uint8Array(4 * target.width * target.height);
    try {
      this.present(view, target, framebuffer);
      gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
      gl.readPixels(0, 0, target.width, target.height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    } finally {
      gl.deleteFramebuffer(framebuffer);
      gl.deleteTexture(texture);
    }
    return Promise.resolve(data);
  }

  destroy(): void {
    this.device.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
