import type { PinholeCamera } from "./camera/projection";
import type { Mode } from "./camera/rig";
import type { V3 } from "./camera/vec";
import type { FailureKind } from "./decode/errors";
import type { SceneInfo } from "./decode/protocol";

export interface Failure {
  kind: FailureKind;
  where: string;
  detail: string;
}

export interface FieldStatistics {
  /** Pixels of the last picture before it was scaled to the canvas; fewer while moving. */
  width: number;
  height: number;
  slabs: number;
  /** Planes that have arrived, and all. */
  planes: number;
  planesInFile: number;
}

export interface MeshStatistics {
  triangles: number;
  vertices: number;
  /** Texels of its texture. */
  width: number;
  height: number;
}

/** What moves: milliseconds of the last time that was computed. */
export interface MotionStatistics {
  /** Poses of all nodes, on the page. */
  posesMs: number;
  /** Places of all moving splats, in the worker. */
  placesMs: number;
}

export interface Statistics {
  backend: string;
  framesPerSecond: number;
  frameMs: number;
  /** Frames drawn since the start. */
  frames: number;
  sortMs: number;
  /** From the start of a field's picture to its end; 0 for splats. */
  fieldMs: number;
  /** Where the scene is a field of light, which has no splats; its size is 0 before a picture. */
  field: FieldStatistics | null;
  /** Where the scene is a mesh, which has no splats; all 0 before it is there. */
  mesh: MeshStatistics | null;
  /** Null where nothing moves. */
  motion: MotionStatistics | null;
  splats: number;
  splatsInFile: number;
  degree: number;
  width: number;
  height: number;
  /** Bytes of textures and sorting data. */
  memory: number;
  downloaded: number;
  size: number;
  loadMs: number;
}

export interface PlayerEvents {
  opening: () => void;
  /** Another scene is shown, or an earlier one again. */
  scene: () => void;
  info: (info: SceneInfo) => void;
  poster: (url: string | null) => void;
  progress: (share: number, phase: "download" | "decode") => void;
  firstFrame: () => void;
  done: () => void;
  failed: (failure: Failure) => void;
  mode: (mode: Mode) => void;
  view: () => void;
  frame: (camera: PinholeCamera) => void;
  focus: (point: V3) => void;
  /** A hand has moved the camera. */
  steer: () => void;
  /** A wheel was left to the page around the frame. */
  passed: () => void;
  background: (rgb: V3) => void;
  time: (seconds: number) => void;
  camera: (index: number | null) => void;
  context: (lost: boolean) => void;
  /** A headset shows the scene, or no more. */
  immersed: (on: boolean) => void;
}

/** Who listens to what, and tells them. */
export class Emitter {
  private readonly listeners = new Map<string, Set<(...args: never[]) => void>>();

  /** Returns what ends it. */
  on<K extends keyof PlayerEvents>(event: K, listener: PlayerEvents[K]): () => void {
    const set = this.listeners.get(event) ?? new Set();
    set.add(listener as (...args: never[]) => void);
    this.listeners.set(event, set);
    return () => set.delete(listener as (...args: never[]) => void);
  }

  emit<K extends keyof PlayerEvents>(event: K, ...args: Parameters<PlayerEvents[K]>): void {
    for (const listener of this.listeners.get(event) ?? []) listener(...(args as never[]));
  }
}
