import type { Splines } from "../motion/splines";
import type { MotionReader } from "./kind";
import type { StageDecoder } from "./stages";

/** Takes a chunk's knots, [segments + 3, N, 6]. */
export type TakeKnots = (chunk: number, knots: Float32Array<ArrayBuffer>) => void;

/**
 * Fetches the chunks of a scene's motion as they are needed: that of the time that is shown at
 * once, those ahead of it one after the other.
 */
export class Chunks {
  private readonly coming = new Map<number, Promise<void>>();
  private ahead: Promise<void> | null = null;
  /** What is wanted next: from when on, and until when. */
  private wish = { time: 0, ahead: 0 };
  private failed = false;

  constructor(
    private readonly decoder: StageDecoder,
    private readonly motion: MotionReader,
    readonly splines: Splines,
    private readonly take: TakeKnots,
    private readonly fail: (error: unknown) => void,
  ) {}

  /** Asks for a time, and for what is shown within `ahead` seconds after it. */
  want(time: number, ahead: number): void {
    this.wish = { time, ahead };
    this.load(this.splines.place(time).chunk).catch((error: unknown) => this.refuse(error));
    this.ahead ??= this.prefetch().finally(() => {
      this.ahead = null;
    });
  }

  /** Resolves once the chunk is there. */
  load(chunk: number): Promise<void> {
    if (this.splines.hasChunk(chunk)) return Promise.resolve();
    let coming = this.coming.get(chunk);
    if (!coming) {
      coming = this.fetch(chunk).finally(() => this.coming.delete(chunk));
      this.coming.set(chunk, coming);
    }
    return coming;
  }

  private async fetch(chunk: number): Promise<void> {
    const { bundle, manifest } = this.decoder;
    const stage = this.motion.chunkStages[chunk]!;
    const member = await bundle.read(manifest.stages[stage]!.member);
    this.decoder.decode(stage, member);
    const knots = this.motion.knots(chunk);
    this.splines.add(chunk, knots);
    this.take(chunk, knots.slice());
  }

  private async prefetch(): Promise<void> {
    try {
      for (let next = this.next(); next !== null; next = this.next()) await this.load(next);
    } catch (error) {
      this.refuse(error);
    }
  }

  /** The first chunk of what is wanted that is not there; the end is followed by the beginning. */
  private next(): number | null {
    const { chunks, interval, start, duration } = this.splines.shape;
    const { time, ahead } = this.wish;
    let at = this.splines.place(time).chunk;
    let until = this.splines.clamp(time) - start + Math.min(ahead, duration);
    for (let seen = 0; seen < chunks.length; seen++) {
      const from = chunks[at]!.segment * interval;
      if (from > until || (from >= duration && at > 0)) return null;
      if (!this.splines.hasChunk(at)) return at;
      if (++at < chunks.length) continue;
      at = 0;
      until -= duration;
    }
    return null;
  }

  private refuse(error: unknown): void {
    if (!this.failed) this.fail(error);
    this.failed = true;
  }
}
