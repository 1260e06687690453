import type { PinholeCamera } from "../../camera/projection";
import { SceneError } from "../../decode/errors";
import type { Field, FieldPlane } from "../../decode/field/field";
import { type FieldMpi, mpiBytes } from "../../decode/field/mpi";
import { toHalf } from "../../decode/pack";
import {
  decodedCamera,
  type FieldLayout,
  type GridSize,
  layoutOf,
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
import {
  FRAME_BYTES,
  finishMpiShader,
  finishShader,
  firstShader,
  GROUP,
  PRESENT,
  sampleShader,
  sharpenShader,
  trunkShader,
} from "./shaders";

/** Texels of outputs that one invocation sums up. */
const OUTPUTS = 8;
const TEXEL_BYTES = 16;

interface Pass {
  pipeline: GPUComputePipeline;
  weights: GPUBuffer | null;
}

type Stages = Record<string, Pass[]>;
type Bound = GPUBuffer | GPUTextureView | GPUSampler;

/** Where the MPIs' blocks are, and what they hold. */
interface MpiBindings {
  blocks: GPUBuffer;
  atlas: GPUTexture;
  sampler: GPUSampler;
}

/** Intermediate results for pictures of one size. */
interface Results {
  width: number;
  height: number;
  bytes: number;
  buffers: GPUBuffer[];
  /** What to run, over how many workgroups. */
  steps: { pipeline: GPUComputePipeline; group: GPUBindGroup; size: GridSize }[];
  picture: GPUBuffer;
}

/** A field drawn in WebGPU: every layer of the network is a compute pass over buffers. */
export class WebGpuField implements FieldRenderer {
  private readonly layout: FieldLayout;
  private readonly places: PlanePlaces;
  private readonly context: GPUCanvasContext;
  private readonly format: GPUTextureFormat;
  private readonly frame: GPUBuffer;
  private readonly slabs: GPUBuffer;
  private readonly planes: GPUBuffer;
  private readonly mpi: MpiBindings | null;
  private readonly stages: Stages;
  private readonly present: Map<GPUTextureFormat, GPURenderPipeline>;
  private readonly maxPixels: number;
  private results: Results | null = null;
  milliseconds = 0;
  decoded = { width: 0, height: 0 };
  private busy = false;

  constructor(
    private readonly device: GPUDevice,
    private readonly canvas: HTMLCanvasElement,
    private readonly field: Field,
  ) {
    const { shape } = field;
    this.layout = layoutOf(shape);
    this.places = planePlaces(shape);
    const context = canvas.getContext("webgpu") as GPUCanvasContext | null;
    if (!context) throw new SceneError("no-graphics", "WebGPU", "no context");
    this.context = context;
    this.format = navigator.gpu.getPreferredCanvasFormat();
    context.configure({ device, format: this.format, alphaMode: "opaque" });
    const most = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
    const bytes = 8 * ROW * Math.max(1, this.places.rows);
    if (bytes > most) throw new SceneError("field-too-big", "WebGPU", `planes of ${bytes} bytes`);
    this.maxPixels = most / (TEXEL_BYTES * texelsPerPixel(this.layout)) / 1.2;
    const { STORAGE, UNIFORM, COPY_DST } = GPUBufferUsage;
    this.frame = device.createBuffer({ size: FRAME_BYTES, usage: UNIFORM | COPY_DST });
    const numbers = 16 * slabTexels(shape) * shape.slabs.length;
    this.slabs = device.createBuffer({ size: numbers, usage: STORAGE | COPY_DST });
    this.mpi = field.mpi && this.mpiBindings(field.mpi);
    this.planes = device.createBuffer({ size: bytes, usage: STORAGE | COPY_DST });
    this.stages = this.makeStages();
    this.present = new Map(
      (["rgba8unorm", this.format] as const).map((format) => [format, this.presenter(format)]),
    );
    this.setPlanes(field.planes.flatMap((values, index) => (values ? [{ index, values }] : [])));
  }

  get bytes(): number {
    const { mpi } = this.field;
    return this.planes.size + (mpi ? mpiBytes(mpi) : 0) + (this.results?.bytes ?? 0);
  }

  private mpiBindings({ index, atlas, width, height }: FieldMpi): MpiBindings {
    const { device } = this;
    if (Math.max(width, height) > device.limits.maxTextureDimension2D) {
      throw new SceneError("field-too-big", "WebGPU", `MPIs of ${width} x ${height} texels`);
    }
    const { STORAGE, COPY_DST } = GPUBufferUsage;
    const blocks = device.createBuffer({ size: index.byteLength, usage: STORAGE | COPY_DST });
    device.queue.writeBuffer(blocks, 0, index);
    const texture = device.createTexture({
      size: [width, height],
      format: "rgba8unorm",
      usage: GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST,
    });
    device.queue.writeTexture({ texture }, atlas, { bytesPerRow: 4 * width }, [width, height]);
    const sampler = device.createSampler({ magFilter: "linear", minFilter: "linear" });
    return { blocks, atlas: texture, sampler };
  }

  private filled(data: Float32Array): GPUBuffer {
    const { STORAGE, COPY_DST } = GPUBufferUsage;
    const buffer = this.device.createBuffer({ size: data.byteLength, usage: STORAGE | COPY_DST });
    this.device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
    return buffer;
  }

  setPlanes(planes: readonly FieldPlane[]): void {
    for (const plane of planes) {
      const data = Uint16Array.from(paddedPlane(this.field.shape, plane), toHalf);
      this.device.queue.writeBuffer(this.planes, 8 * this.places.starts[plane.index]!, data);
    }
  }

  private makeStages(): Stages {
    const { layout, field, places } = this;
    const { shape } = field;
    const orders = layerOrders(shape, layout);
    const stages: Stages = {};
    const add = (name: string, order: LayerOrder, source: (o: Outputs) => string) => {
      stages[name] = partsOf(order, OUTPUTS).map((part) => {
        const weights = partWeights(field.layers[name]!, order, part);
        return { pipeline: this.pipeline(source(part)), weights: weights && this.filled(weights) };
      });
    };
    add("encode", withCoverage(orders.encode!), (o) => sampleShader(shape, layout, places, o));
    add("first", orders.first!, (o) => firstShader(layout, o));
    for (let i = 0; i < layout.blocks; i++) {
      add(`block_${i}_0`, orders[`block_${i}_0`]!, (o) => trunkShader(layout, o, false));
      add(`block_${i}_1`, orders[`block_${i}_1`]!, (o) => trunkShader(layout, o, true));
    }
    add("last", orders.last!, (o) => trunkShader(layout, o, false));
    for (const j of shape.decoder.channels.keys()) {
      add(`sharpen_${j}`, orders[`sharpen_${j}`]!, (o) => sharpenShader(layout, j, o));
    }
    const finish = field.mpi ? finishMpiShader(shape, layout, field.mpi) : finishShader(layout);
    stages.finish = [{ pipeline: this.pipeline(finish), weights: null }];
    return stages;
  }

  private pipeline(code: string): GPUComputePipeline {
    const module = this.device.createShaderModule({ code });
    return this.device.createComputePipeline({ layout: "auto", compute: { module } });
  }

  private presenter(format: GPUTextureFormat): GPURenderPipeline {
    const module = this.device.createShaderModule({ code: PRESENT });
    return this.device.createRenderPipeline({
      layout: "auto",
      vertex: { module },
      fragment: { module, targets: [{ format }] },
    });
  }

  private resultsFor(width: number, height: number): Results {
    if (this.results?.width === width && this.results.height === height) return this.results;
    for (const buffer of this.results?.buffers ?? []) buffer.destroy();
    const { samples, trunk, shuffled } = sizesOf(this.layout, width, height);
    const buffers: GPUBuffer[] = [];
    const make = (size: GridSize) => {
      const bytes = TEXEL_BYTES * size.width * size.height * size.layers;
      const buffer = this.device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE });
      buffers.push(buffer);
      return buffer;
    };
    const steps: Results["steps"] = [];
    const add = (name: string, result: GPUBuffer, size: GridSize, sources: Bound[]) => {
      for (const { pipeline, weights } of this.stages[name]!) {
        const bound: [number, Bound][] = [
          [0, this.frame],
          [2, result],
        ];
        if (weights) bound.push([1, weights]);
        // A pass that only writes the coverage has no planes.
        const used = name === "encode" && !weights ? sources.slice(0, 1) : sources;
        for (const [i, buffer] of used.entries()) bound.push([3 + i, buffer]);
        steps.push({ pipeline, group: this.group(pipeline, bound), size });
      }
    };
    const encoded = make(samples);
    add("encode", encoded, samples, [this.slabs, this.planes]);
    let [now, other, inner] = [make(trunk), make(trunk), make(trunk)];
    add("first", now, trunk, [encoded]);
    for (let i = 0; i < this.layout.blocks; i++) {
      add(`block_${i}_0`, inner, trunk, [now]);
      add(`block_${i}_1`, other, trunk, [inner, now]);
      [now, other] = [other, now];
    }
    let before = make(shuffled[0]!);
    add("last", before, trunk, [now]);
    for (let j = 0; j + 1 < shuffled.length; j++) {
      const size = shuffled[j + 1]!;
      const after = make(size);
      add(`sharpen_${j}`, after, size, j === this.layout.skip ? [before, encoded] : [before]);
      before = after;
    }
    const size = { width, height, layers: 1 };
    const picture = make(size);
    const { mpi, slabs } = this;
    const bindings = mpi && [slabs, mpi.blocks, mpi.atlas.createView(), mpi.sampler];
    add("finish", picture, size, [before, ...(bindings ?? [encoded])]);
    const bytes = buffers.reduce((sum, b) => sum + b.size, 0);
    this.results = { width, height, bytes, buffers, steps, picture };
    return this.results;
  }

  private group(
    pipeline: GPUComputePipeline | GPURenderPipeline,
    bound: readonly (readonly [number, Bound])[],
  ): GPUBindGroup {
    const entries = bound.map(([binding, one]) => {
      return { binding, resource: one instanceof GPUBuffer ? { buffer: one } : one };
    });
    return this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }

  /** All passes of a picture, the last one into `into`. */
  private encode(view: PinholeCamera, target: FieldTarget, into: GPUTexture): GPUCommandEncoder {
    const { device, layout } = this;
    const camera = decodedCamera(view, this.field.shape.focal, target.share, this.maxPixels);
    this.decoded = camera;
    const results = this.resultsFor(camera.width, camera.height);
    device.queue.writeBuffer(this.frame, 0, frameNumbers(camera, target, layout));
    device.queue.writeBuffer(this.slabs, 0, slabNumbers(this.field.shape, camera));
    const commands = device.createCommandEncoder();
    const compute = commands.beginComputePass();
    for (const { pipeline, group, size } of results.steps) {
      compute.setPipeline(pipeline);
      compute.setBindGroup(0, group);
      compute.dispatchWorkgroups(Math.ceil(size.width / GROUP), Math.ceil(size.height / GROUP));
    }
    compute.end();
    const pass = commands.beginRenderPass({
      colorAttachments: [{ view: into.createView(), loadOp: "clear", storeOp: "store" }],
    });
    const present = this.present.get(into.format)!;
    pass.setPipeline(present);
    pass.setBindGroup(
      0,
      this.group(present, [
        [0, this.frame],
        [3, results.picture],
      ]),
    );
    pass.draw(3);
    pass.end();
    return commands;
  }

  idle(): boolean {
    return !this.busy;
  }

  draw(view: PinholeCamera, target: FieldTarget): boolean {
    if (this.busy) return false;
    if (this.canvas.width !== target.width || this.canvas.height !== target.height) {
      this.canvas.width = target.width;
      this.canvas.height = target.height;
    }
    const begun = performance.now();
    const commands = this.encode(view, target, this.context.getCurrentTexture());
    this.device.queue.submit([commands.finish()]);
    this.busy = true;
    const done = () => {
      this.busy = false;
      this.milliseconds = performance.now() - begun;
    };
    this.device.queue.onSubmittedWorkDone().then(done, done);
    return true;
  }

  async read(view: PinholeCamera, target: FieldTarget): Promise<Uint8Array> {
    const { width, height } = target;
    const texture = this.device.createTexture({
      size: [width, height],
      format: "rgba8unorm",
      usage: GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.COPY_SRC,
    });
    const stride = 256 * Math.ceil((4 * width) / 256);
    const buffer = this.device.createBuffer({
      size: stride * height,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    try {
      const commands = this.encode(view, target, texture);
      const into = { buffer, bytesPerRow: stride };
      commands.copyTextureToBuffer({ texture }, into, [width, height]);
      this.device.queue.submit([commands.finish()]);
      await buffer.mapAsync(GPUMapMode.READ);
      const rows = new Uint8Array(buffer.getMappedRange());
      const data = new Uint8Array(4 * width * height);
      for (let y = 0; y < height; y++) {
        data.set(rows.subarray(y * stride, y * stride + 4 * width), 4 * width * y);
      }
      return data;
    } finally {
      buffer.destroy();
      texture.destroy();
    }
  }

  destroy(): void {
    const all = [this.frame, this.slabs, this.planes, ...(this.results?.buffers ?? [])];
    for (const passes of Object.values(this.stages)) {
      for (const { weights } of passes) if (weights) all.push(weights);
    }
    if (this.mpi) all.push(this.mpi.blocks);
    for (const buffer of all) buffer.destroy();
    this.mpi?.atlas.destroy();
    this.context.unconfigure();
  }
}

/** The most texels that one buffer needs for a pixel of the picture. */
function texelsPerPixel(layout: FieldLayout): number {
  const rays = layout.step * layout.step;
  const shuffled = layout.pixels.map((texels, j) => (4 * texels * 4 ** j) / rays);
  const samples = ((layout.encoded + 1) * layout.k * layout.k) / rays;
  return Math.max(1, samples, layout.width / rays, ...shuffled);
}

/** `Frame` as the shaders have it. */
function frameNumbers(
  { K, width, height }: PinholeCamera,
  target: FieldTarget,
  layout: FieldLayout,
): ArrayBuffer {
  const { trunk } = sizesOf(layout, width, height);
  const buffer = new ArrayBuffer(FRAME_BYTES);
  const numbers = new Float32Array(buffer);
  numbers.set([K[0]!, K[4]!, K[2]!, K[5]!, ...target.background, 0], 0);
  numbers.set([target.width, target.height], 8);
  new Int32Array(buffer).set([trunk.width, trunk.height, width, height], 10);
  numbers[14] = layout.step / layout.k;
  return buffer;
}
