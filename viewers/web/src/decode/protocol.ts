import type { FailureKind } from "./errors";
import type { Field, FieldPlane, FieldShape } from "./field/field";
import type { MeshData } from "./mesh/mesh";
import type { Followers } from "./motion/followers";
import type { MotionShape } from "./motion/splines";
import type { PackedSplats } from "./pack";

/** A camera of the capture, with the name of its picture. */
export interface CaptureCamera {
  name: string;
  /** Camera to world, 16 numbers, row-major, OpenGL axes. */
  c2w: number[];
  /** 9 numbers, row-major. */
  K: number[];
  width: number;
  height: number;
  /** Seconds, where the scene moves. */
  time?: number;
}

/** Seconds: from `start` on, before `end`. */
export interface TimeSpan {
  start: number;
  end: number;
}

/** A box along the axes. */
export interface Box {
  low: [number, number, number];
  high: [number, number, number];
}

export interface Annotation {
  title: string;
  text?: string;
  position: [number, number, number];
  /** Where to stand to see it, and what to look at. */
  view?: View;
}

/** A place to look from: position and target. */
export interface View {
  position: [number, number, number];
  target: [number, number, number];
}

/** What is known about a scene before its splats arrive; everything optional may be missing. */
export interface SceneInfo {
  kind: string;
  drawable: "splats" | "field" | "mesh";
  title?: string;
  /** Splats in the file. */
  count: number;
  /** Splats that will be drawn: fewer where the budget is smaller. */
  shown: number;
  degree: number;
  /** Bytes of the file. */
  bytes: number;
  up?: [number, number, number];
  view?: View;
  cameras?: CaptureCamera[];
  annotations?: Annotation[];
  /** The box of positions from where the scene looks right. */
  limits?: Box;
  /** The box of what the scene shows. */
  content?: Box;
  /** When something happens in a scene that moves. */
  span?: TimeSpan;
  /** Lower opacity by as much as the low-pass enlarged a footprint (Mip-Splatting). */
  antialiased?: boolean;
  background?: [number, number, number];
  /** Length of the scene's unit in the capture's. */
  unit?: number;
  /** Pictures of the writer's renderer that a bundle holds. */
  references?: number;
}

/** Where the bulk of the scene lies: median centre and the radius around 90% of it. */
export interface Extent {
  center: [number, number, number];
  radius: number;
  /** Some thousand places of splats, x, y, z. */
  sample?: Float32Array;
  /** What was found in the sample of a scene without cameras. */
  stand?: FileStand;
}

/** How a scene stands that nobody photographed. */
export interface FileStand {
  box: Box;
  up: [number, number, number];
  /** The direction in which it is looked at first, from outside. */
  forward: [number, number, number];
  /** Where it is seen from first that closes around those who captured it. */
  inside: View | null;
}

export interface OpenRequest {
  type: "open";
  id: number;
  /** Address of the content, or its bytes with a name. */
  url?: string;
  bytes?: ArrayBuffer;
  name?: string;
  /** Whether cookies go along; absent: those of the page's own host. */
  credentials?: RequestCredentials;
  /** Most splats to draw. */
  budget: number;
  /** Highest degree of spherical harmonics to keep. */
  degree: number;
  /** Seconds, where the scene moves: what is shown first. */
  time?: number;
}

/** Asks for the chunk of a time, and for those of what is shown within `ahead` seconds of it. */
export interface WantRequest {
  type: "want";
  time: number;
  ahead: number;
}

/** Asks where moving splats are at a time whose chunk is there. */
export interface PlacesRequest {
  type: "places";
  id: number;
  time: number;
}

/** Places of the splats of one piece, [n, 3], and the box around them. */
export interface Places {
  centers: Float32Array<ArrayBuffer>;
  bounds: Float32Array<ArrayBuffer>;
}

export interface PickRequest {
  type: "pick";
  id: number;
  origin: [number, number, number];
  direction: [number, number, number];
  /** What is drawn: a pixel, and the camera that it is one of. */
  camera: { c2w: number[]; K: number[]; x: number; y: number };
  /** Seconds, where the scene moves. */
  time?: number;
}

/** Asks for a reference picture of the open bundle. */
export interface ReferenceRequest {
  type: "reference";
  id: number;
  index: number;
}

export type ToWorker =
  | OpenRequest
  | PickRequest
  | ReferenceRequest
  | WantRequest
  | PlacesRequest
  | { type: "close" };

export type FromWorker =
  | { type: "info"; id: number; info: SceneInfo }
  | { type: "poster"; id: number; bytes: Uint8Array<ArrayBuffer>; mime: string }
  | { type: "extent"; id: number; extent: Extent }
  | {
      type: "piece";
      id: number;
      packed: PackedSplats;
      stage: number;
      span?: TimeSpan | undefined;
      followers?: Followers | undefined;
    }
  | { type: "motion"; id: number; shape: MotionShape }
  | { type: "knots"; id: number; chunk: number; knots: Float32Array<ArrayBuffer> }
  | {
      type: "field";
      id: number;
      shape: FieldShape;
      layers: Field["layers"];
      mpi: Field["mpi"];
    }
  | { type: "mesh"; id: number; mesh: MeshData }
  | { type: "planes"; id: number; planes: FieldPlane[]; stage: number }
  | { type: "progress"; id: number; loaded: number; total: number; phase: "download" | "decode" }
  | { type: "done"; id: number; milliseconds: number }
  | { type: "failed"; id: number; kind: FailureKind; where: string; detail: string }
  | { type: "reference"; id: number; bytes: Uint8Array<ArrayBuffer> | null; camera: number }
  /** Of the pieces that move, in their order; null where the time's chunk is not there. */
  | { type: "places"; id: number; places: Places[] | null; milliseconds: number }
  | { type: "picked"; id: number; distance: number | null };
