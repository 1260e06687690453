import type { PinholeCamera } from "./camera/projection";
import type { Mode } from "./camera/rig";
import { fidelity } from "./compare";
import type { Box, View } from "./decode/protocol";
import type { CaptureOptions, Pixels } from "./engine/stage";
import type { Failure, Player, Statistics } from "./player";
import type { Page } from "./ui/page";
import { pictureBlob } from "./ui/screenshot";

/** Seconds, of a scene that moves. */
export interface TimeState {
  seconds: number;
  start: number;
  end: number;
  playing: boolean;
  speed: number;
  loop: boolean;
}

/** `window.scene4d`: for scripts on the same page and for tests. */
export interface Scene4dApi {
  /** Resolves when the whole scene is drawn, rejects with what went wrong. */
  readonly ready: Promise<void>;
  readonly backend: string;
  open(url: string): Promise<void>;
  getView(): View;
  setView(view: View, jump?: boolean): void;
  /** The camera as it is drawn, in CSS pixels. */
  camera(): PinholeCamera;
  /** Draws exactly this pinhole camera (row-major c2w, OpenGL axes; K; size); null: steer again. */
  setCamera(c2w: number[] | null, K?: number[], width?: number, height?: number): void;
  /** RGBA pixels, top row first, read from a texture. */
  capture(options?: CaptureOptions): Promise<Pixels>;
  stats(): Statistics;
  setMode(mode: Mode): void;
  frame(): void;
  reset(): void;
  lookThrough(index: number | null): void;
  nextNote(step: number): void;
  pick(x: number, y: number, time?: number): Promise<[number, number, number] | null>;
  /** The scene's box, at a time in seconds where it moves. */
  bounds(time?: number): Box | null;
  /** Shows another time, in seconds, of a scene that moves. */
  setTime(seconds: number): void;
  /** What time it is; null where nothing moves. */
  getTime(): TimeState | null;
  /** Lets time go on, or stand; speed (1: as it was captured) and loop stay as they are otherwise. */
  play(options?: { speed?: number; loop?: boolean }): void;
  pause(): void;
  /** Stands at the next (1) or previous (-1) captured time. */
  stepTime(by: 1 | -1): void;
  /** PSNR in dB against the reference pictures of the bundle. */
  fidelity(options?: CaptureOptions): Promise<{ camera: string; psnr: number }[]>;
  /** A PNG of the view. */
  screenshot(multiple?: number): Promise<Blob>;
  link(): string;
}

export function makeApi(player: Player, page: Page): Scene4dApi {
  let ready = settled(player);
  player.on("opening", () => {
    ready = settled(player);
  });
  return {
    get ready() {
      return ready;
    },
    backend: player.stage.backend,
    open: (url) => {
      player.open({ url });
      return ready;
    },
    getView: () => player.rig.view(),
    setView: (view, jump) => player.viewpoint.goTo(view, jump),
    camera: () => {
      const { c2w, K, width, height } = player.viewpoint.camera();
      return { c2w: Array.from(c2w), K: Array.from(K), width, height };
    },
    setCamera: (c2w, K, width, height) =>
      player.viewpoint.setCamera(
        c2w ? ({ c2w, K: K!, width: width!, height: height! } satisfies PinholeCamera) : null,
      ),
    capture: (options) => player.capture(options),
    stats: () => player.statistics(),
    setMode: (mode) => player.viewpoint.setMode(mode),
    frame: () => player.viewpoint.frameScene(),
    reset: () => player.viewpoint.reset(),
    lookThrough: (index) => player.viewpoint.lookThrough(index),
    nextNote: (step) => page.nextNote(step),
    pick: (x, y, time) => player.pick(x, y, time),
    bounds: (time) => player.bounds(time),
    setTime: (seconds) => player.setTime(seconds),
    getTime: () => timeOf(player),
    play: ({ speed, loop } = {}) => {
      if (speed !== undefined) player.setSpeed(speed);
      if (loop !== undefined) player.setLoop(loop);
      player.setPlaying(true);
    },
    pause: () => player.setPlaying(false),
    stepTime: (by) => player.stepTime(by < 0 ? -1 : 1),
    fidelity: (options) => fidelity(player, options),
    screenshot: (multiple) => pictureBlob(player, multiple),
    link: () => page.link(),
  };
}

function timeOf({ clock }: Player): TimeState | null {
  if (!clock.range) return null;
  const { time: seconds, playing, speed, loop } = clock;
  return { seconds, ...clock.range, playing, speed, loop };
}

function settled(player: Player): Promise<void> {
  const promise = new Promise<void>((resolve, reject) => {
    const off = [
      player.on("done", () => finish(resolve)),
      player.on("failed", (f: Failure) =>
        finish(() => reject(new Error(`${f.kind}: ${f.where}: ${f.detail}`))),
      ),
    ];
    const finish = (then: () => void) => {
      for (const stop of off) stop();
      then();
    };
  });
  // Pages that never ask must not see an unhandled rejection: the message is on the page.
  promise.catch(() => {});
  return promise;
}

/** What a page around an iframe may call (embed.ts); arguments and results are plain data. */
export const CALLABLE = [
  "open",
  "getView",
  "setView",
  "camera",
  "stats",
  "setMode",
  "frame",
  "reset",
  "lookThrough",
  "nextNote",
  "pick",
  "bounds",
  "setTime",
  "getTime",
  "play",
  "pause",
  "stepTime",
  "screenshot",
  "link",
] as const;
