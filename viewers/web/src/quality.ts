/** What a step of the quality slider means. */
export interface Quality {
  level: number;
  /** Share of the scene's splats that are drawn, most visible first. */
  share: number;
  /** Splats to load at most. */
  maxSplats: number;
  /** Canvas pixels per CSS pixel. */
  pixelRatio(device: number): number;
}

const STEPS = [
  { share: 0.2, ratio: (device: number) => Math.min(device, 0.5) },
  { share: 0.4, ratio: (device: number) => Math.min(device, 0.75) },
  { share: 0.7, ratio: (device: number) => Math.min(device, 1) },
  { share: 1, ratio: (device: number) => Math.min(device, 1.5) },
  // Finer than the screen, where its pixels are coarse.
  { share: 1, ratio: (device: number) => Math.min(3, Math.max(device, 1.5)) },
];

/** Phones, tablets: a coarse pointer and no hover. */
export function isHandheld(): boolean {
  return window.matchMedia("(pointer: coarse) and (hover: none)").matches;
}

/** One step, 1 to 5; null: 4. Phones load fewer splats, whatever the step. */
export function qualityLevel(level: number | null): Quality {
  const n = Math.max(1, Math.min(5, Math.round(level ?? 4)));
  const { share, ratio } = STEPS[n - 1]!;
  return {
    level: n,
    share,
    maxSplats: isHandheld() ? 1_500_000 : 6_000_000,
    pixelRatio: ratio,
  };
}

const SLOW_FRAME_S = 1 / 28;
const FRAMES_TO_JUDGE = 12;
const SMALLEST = 0.4;
const REST_FRAMES = 20;

/** Lowers the resolution while movement is jerky, and gives it back when the camera rests. */
export class ResolutionGovernor {
  scale = 1;
  private times: number[] = [];
  private resting = 0;

  reset(): void {
    this.scale = 1;
    this.times = [];
  }

  /** Takes the time of a frame in movement; whether the scale has changed. */
  slow(dt: number): boolean {
    this.resting = 0;
    this.times.push(dt);
    if (this.times.length < FRAMES_TO_JUDGE) return false;
    const median = [...this.times].sort((a, b) => a - b)[FRAMES_TO_JUDGE >> 1]!;
    this.times = [];
    if (median < SLOW_FRAME_S || this.scale <= SMALLEST) return false;
    this.scale = Math.max(SMALLEST, this.scale * 0.8);
    return true;
  }

  /** Takes a frame at rest; whether the scale has changed. */
  rest(): boolean {
    this.times = [];
    if (this.scale === 1 || ++this.resting < REST_FRAMES) return false;
    this.scale = 1;
    return true;
  }
}

/** Shares of a field's resolution, along an axis, while the camera moves. */
const SHARES = [1, 0.8, 0.64, 0.5, SMALLEST];
/** A picture that took less leaves time for the next larger one, whatever the frame rate adds. */
const QUICK_FRAME_S = SLOW_FRAME_S / 2;

/**
 * The resolution at which a field is decoded in movement. Its cost is known from one picture, and
 * grows with the area, so that no dozen of them is needed; a picture may take many frames.
 */
export class FieldGovernor {
  /** For the next picture. */
  scale = 1;
  private moving = 0;
  private resting = 0;

  /** Takes how long the last picture took, drawn at a scale; whether `scale` has changed. */
  move(seconds: number, drawnAt: number): boolean {
    this.resting = 0;
    const before = this.scale;
    // Others say nothing of the present scale: they were begun before it was chosen.
    if (drawnAt === SHARES[this.moving] && seconds > 0) this.judge(seconds);
    this.scale = SHARES[this.moving]!;
    return this.scale !== before;
  }

  private judge(seconds: number): void {
    const now = SHARES[this.moving]!;
    if (seconds > SLOW_FRAME_S) {
      const fits = SHARES.findIndex((s) => seconds * (s / now) ** 2 <= SLOW_FRAME_S);
      this.moving = fits < 0 ? SHARES.length - 1 : fits;
    } else if (seconds < QUICK_FRAME_S && this.moving > 0) this.moving--;
  }

  /** Takes a frame at rest; whether `scale` has changed. What was learnt of movement stays. */
  rest(): boolean {
    if (this.scale === 1 || ++this.resting < REST_FRAMES) return false;
    this.scale = 1;
    return true;
  }
}
