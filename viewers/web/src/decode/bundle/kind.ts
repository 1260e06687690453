import type { Field, FieldPlane, FieldShape } from "../field/field";
import type { MeshData } from "../mesh/mesh";
import type { Followers } from "../motion/followers";
import type { MotionShape } from "../motion/splines";
import type { PictureDecoder } from "../sog";
import type { SplatData } from "../splats";
import type { Manifest } from "./manifest.gen";
import type { DecodedStage, StageDecoder } from "./stages";
import type { Range } from "./values";

/**
 * How one kind of bundle becomes something to draw: splats, a field of light, or a mesh. Kinds that
 * need another drawable (fields in time) get one beside these, and the timeline its times.
 */
export type Kind = SplatKind | FieldKind | MeshKind;

interface AnyKind {
  /** Throws where the manifest of a bundle of `size` bytes says what this kind cannot be. */
  check(manifest: Manifest, size: number): void;
}

export interface SplatKind extends AnyKind {
  readonly drawable: "splats";
  /** Reads stages, in order, with harmonics up to `degree`. */
  open(decoder: StageDecoder, degree: number): KindReader;
}

export interface FieldKind extends AnyKind {
  readonly drawable: "field";
  shape(manifest: Manifest): FieldShape;
  /** The network, once stage 0 is decoded. */
  layers(decoder: StageDecoder): Field["layers"];
  /** The MPIs, once stage 0 is decoded; null where there are none. */
  mpi(decoder: StageDecoder): Field["mpi"];
  /** The planes of a decoded stage. */
  planes(decoder: StageDecoder, stage: number): FieldPlane[];
}

export interface MeshKind extends AnyKind {
  readonly drawable: "mesh";
  /** The mesh of the only stage, once it is decoded. */
  read(
    decoder: StageDecoder,
    stage: DecodedStage,
    decodePicture: PictureDecoder,
  ): Promise<MeshData>;
}

export interface KindReader {
  /** Splats that a decoded stage holds. */
  size(stage: DecodedStage): number;
  /** So many points become one drawable piece. */
  readonly pointsPerPiece: number;
  /** Splats of the points in `range`: one for each point, then those that points bring along. */
  read(stage: DecodedStage, range: Range): SplatData;
  /** Where some of them move. */
  readonly motion?: MotionReader;
}

/** What moves, of a kind whose last stages are chunks of time. */
export interface MotionReader {
  /** Numbers of the stages of the chunks, the last ones. */
  readonly chunkStages: readonly number[];
  /** Once stage 0 is decoded; null where nothing moves. */
  shape(): MotionShape | null;
  /** Which of the points in `range`, counted in it, move, and how. */
  followers(stage: DecodedStage, range: Range): { rows: Uint32Array; followers: Followers };
  /** [segments + 3, N, 6] of a chunk whose stage was just decoded. */
  knots(chunk: number): Float32Array<ArrayBuffer>;
}

/** Ranges that take every `stride`-th of `points` items, `size` at a time. */
export function* chunks(points: number, size: number, stride: number): Generator<Range> {
  for (let from = 0; from < points; from += size * stride) {
    yield { from, to: Math.min(points, from + size * stride), stride };
  }
}
