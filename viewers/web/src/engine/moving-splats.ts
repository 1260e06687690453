import {
  type AppBase,
  type GraphicsDevice,
  PIXELFORMAT_RGBA32F,
  Texture,
  WORKBUFFER_UPDATE_ALWAYS,
  WORKBUFFER_UPDATE_AUTO,
} from "playcanvas";
import { DUAL, type MotionShape, Splines } from "../decode/motion/splines";
import type { Places } from "../decode/protocol";
import type { DrawableStatistics, Frame, Picture } from "./drawable";
import { POSE_ROW } from "./motion-shaders";
import type { EngineReader } from "./reader";
import { type Piece, SplatPieces } from "./splat-pieces";

/** From where the motion comes. */
export interface MotionSource {
  /** Asks for the chunk of a time, and for those that will be shown soon. */
  want(seconds: number): void;
  /** Where the splats that move are, by piece, and how long that took; null: it cannot be had. */
  places(seconds: number): Promise<{ places: Places[]; milliseconds: number } | null>;
}

/** How often it is said what is shown, in milliseconds. */
const TELL_MS = 300;
/** A sort that has not come back after so long is not waited for. */
const SORT_MS = 500;
/** Where the GPU sorts, boxes are asked for so often, */
const BOX_MS = 250;
/** and grow by this share of their sides more than they have to. */
const SPARE = 0.1;
/** A captured picture waits so long for its chunk. */
const CHUNK_MS = 15_000;

/**
 * Splats of which some follow nodes: the nodes' poses are computed here for every time and put into
 * a texture; the engine's copy of the splats is made anew from it on the GPU. Where the CPU sorts,
 * the worker says where the splats are, one time after the other as fast as they are sorted.
 */
export class MovingSplats extends SplatPieces {
  readonly poses: Texture;
  private readonly splines: Splines;
  /** What is drawn. */
  private posed: number | null = null;
  private wanted = 0;
  private reading = false;
  private placing = false;
  private placed: number | null = null;
  private placedAt = 0;
  private sortPending = false;
  private told = { at: Number.NEGATIVE_INFINITY, chunk: -1 };
  private arrivals: (() => void)[] = [];
  private busy = false;
  private gone = false;
  private readonly spent = { posesMs: 0, placesMs: 0 };
  private readonly sorted = () => {
    this.sortPending = false;
  };

  constructor(
    private readonly app: AppBase,
    private readonly device: GraphicsDevice,
    readonly shape: MotionShape,
    private readonly source: MotionSource,
  ) {
    super();
    this.splines = new Splines(shape);
    const texels = 1 + 2 * shape.nodes;
    this.poses = new Texture(device, {
      name: "motionPoses",
      width: POSE_ROW,
      height: Math.ceil(texels / POSE_ROW),
      format: PIXELFORMAT_RGBA32F,
      mipmaps: false,
    });
    this.fill(0, false);
    app.scene.on("gsplat:sorted", this.sorted);
  }

  override add(piece: Piece): void {
    super.add(piece);
    if (this.busy) copyAlways(piece, true);
    this.placed = null; // the new piece is still where nothing has moved
  }

  /** A chunk has come. */
  addKnots(chunk: number, knots: Float32Array): void {
    this.splines.add(chunk, knots);
    for (const arrived of this.arrivals.splice(0)) arrived();
    if (!this.reading && this.pose(this.wanted)) this.redraw();
  }

  override setTime(seconds: number): boolean {
    this.wanted = seconds;
    const changed = super.setTime(seconds);
    this.tell(seconds);
    // A picture that is being read is of one time.
    return (!this.reading && this.pose(seconds)) || changed;
  }

  override hasTime(seconds: number): boolean {
    return this.splines.has(seconds);
  }

  override statistics(): DrawableStatistics {
    return { ...super.statistics(), motion: { ...this.spent } };
  }

  override get bytes(): number {
    return super.bytes + 16 * this.poses.width * this.poses.height;
  }

  override update(frame: Frame): boolean {
    if (!this.device.isWebGPU) void this.place();
    else if (performance.now() - this.placedAt > BOX_MS) void this.place();
    const drawn = super.update(frame);
    if (!this.pending && this.busy && !this.reading) this.keepCopying(false);
    return drawn;
  }

  override async read(picture: Picture, engine: EngineReader): Promise<Uint8Array> {
    const time = this.wanted;
    this.reading = true;
    try {
      await this.arrival(time);
      this.pose(time);
      await this.placeAt(time);
      return await super.read(picture, engine);
    } finally {
      this.reading = false;
      this.pose(this.wanted);
    }
  }

  override destroy(): void {
    this.gone = true;
    this.app.scene.off("gsplat:sorted", this.sorted);
    for (const arrived of this.arrivals.splice(0)) arrived();
    super.destroy();
    this.poses.destroy();
  }

  /** Draws the splats as they are at a time; whether that is another picture. */
  private pose(seconds: number): boolean {
    if (this.posed === seconds) return false;
    const started = performance.now();
    if (!this.splines.evaluate(seconds)) return false;
    this.posed = seconds;
    this.fill(this.splines.clamp(seconds) - this.shape.start, true);
    this.spent.posesMs = performance.now() - started;
    this.keepCopying(true);
    return true;
  }

  /**
   * The engine copies what has changed into its own buffer once; where an order of another time
   * comes in the same frame it would forget to. So it copies as long as something changes.
   */
  private keepCopying(on: boolean): void {
    if (this.busy === on) return;
    this.busy = on;
    for (const piece of this.pieces) copyAlways(piece, on);
  }

  private fill(seconds: number, known: boolean): void {
    const { duals } = this.splines;
    const texels = this.poses.lock() as Float32Array;
    texels[0] = seconds;
    texels[1] = known ? 1 : 0;
    for (let n = 0, o = 4; n < this.shape.nodes; n++) {
      for (let k = DUAL * n; k < DUAL * (n + 1); k += 4, o += 4) {
        texels[o] = duals[k + 1]!;
        texels[o + 1] = duals[k + 2]!;
        texels[o + 2] = duals[k + 3]!;
        texels[o + 3] = duals[k]!;
      }
    }
    this.poses.unlock();
  }

  /** Says what is shown: at once where it is not there, else now and then. */
  private tell(seconds: number): void {
    const { chunk } = this.splines.place(seconds);
    const now = performance.now();
    const missing = !this.splines.hasChunk(chunk) && chunk !== this.told.chunk;
    if (!missing && now - this.told.at < TELL_MS) return;
    this.told = { at: now, chunk };
    this.source.want(seconds);
  }

  private async arrival(seconds: number): Promise<void> {
    const end = performance.now() + CHUNK_MS;
    while (!this.gone && !this.splines.has(seconds) && performance.now() < end) {
      this.source.want(seconds);
      await new Promise<void>((resolve) => {
        this.arrivals.push(resolve);
        setTimeout(resolve, CHUNK_MS);
      });
    }
  }

  /** Brings the places that are sorted up to what is drawn, as fast as that can be done. */
  private async place(): Promise<void> {
    if (this.posed === null || this.posed === this.placed) return;
    const late = performance.now() - this.placedAt > SORT_MS;
    if (this.placing || this.reading || (this.sortPending && !late)) return;
    this.placing = true;
    try {
      await this.placeAt(this.posed);
    } finally {
      this.placing = false;
    }
  }

  private async placeAt(seconds: number): Promise<void> {
    const found = await this.source.places(seconds);
    if (!found) return;
    const { places } = found;
    this.spent.placesMs = found.milliseconds;
    this.placed = seconds;
    this.placedAt = performance.now();
    const moving = this.pieces.filter((p) => p.resource.moves);
    let changed = false;
    for (const [i, { resource, bounds }] of moving.entries()) {
      const place = places[i];
      if (!place) {
        this.placed = null; // a piece that came while they were asked for
      } else if (!this.device.isWebGPU) {
        resource.moveTo(place);
        changed = true;
      } else if (widen(bounds as Float32Array, place.bounds)) {
        resource.enclose(bounds);
        changed = true;
      }
    }
    this.sortPending = changed && !this.device.isWebGPU;
    if (changed) this.redraw();
  }
}

/** The engine copies a piece in every frame, or once. */
function copyAlways({ entity, resource }: Piece, on: boolean): void {
  if (!resource.moves) return;
  entity.gsplat!.workBufferUpdate = on ? WORKBUFFER_UPDATE_ALWAYS : WORKBUFFER_UPDATE_AUTO;
}

/** Lets a box enclose another one, and more than it has to; whether it did not. */
function widen(box: Float32Array, other: ArrayLike<number>): boolean {
  const outside = box.some((x, i) => (i < 3 ? other[i]! < x : other[i]! > x));
  if (!outside) return false;
  const sides = [0, 1, 2].map((a) => {
    const [low, high] = [Math.min(box[a]!, other[a]!), Math.max(box[a + 3]!, other[a + 3]!)];
    return SPARE * (high - low);
  });
  for (let a = 0; a < 3; a++) {
    if (other[a]! < box[a]!) box[a] = other[a]! - sides[a]!;
    if (other[a + 3]! > box[a + 3]!) box[a + 3] = other[a + 3]! + sides[a]!;
  }
  return true;
}
