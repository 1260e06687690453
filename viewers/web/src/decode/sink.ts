import type { Chunks, TakeKnots } from "./bundle/chunks";
import { SceneError } from "./errors";
import type { Field, FieldPlane, FieldShape } from "./field/field";
import type { MeshData } from "./mesh/mesh";
import type { Followers } from "./motion/followers";
import type { MotionShape } from "./motion/splines";
import type { PackedSplats } from "./pack";
import type { Extent, SceneInfo, TimeSpan } from "./protocol";
import { CHUNK_SPLATS, splatBytes } from "./splats";

/** Everything a scene needs in memory at once must stay below this. */
export const MAX_TOTAL_BYTES = 1.5e9;

/** One reference picture, and the number of its camera. */
export type ReferenceReader = (
  index: number,
) => Promise<{ bytes: Uint8Array<ArrayBuffer>; camera: number }>;

/** Where an opened scene's parts go. */
export interface Sink {
  info(info: SceneInfo): void;
  poster(bytes: Uint8Array<ArrayBuffer>, mime: string): void;
  extent(extent: Extent): void;
  /** `span`: when it is there, where parts come and go; `followers`: how it moves. */
  piece(packed: PackedSplats, stage: number, span?: TimeSpan, followers?: Followers): void;
  /** How nodes will move that the pieces which follow may hang on. */
  motion(shape: MotionShape): void;
  /** A chunk of that motion, as it comes. */
  knots: TakeKnots;
  /** From where the chunks of other times come. */
  chunks(chunks: Chunks): void;
  /** What comes later could not be had. */
  fail(error: unknown): void;
  /** A field of light, of which no plane is there yet. */
  field(shape: FieldShape, layers: Field["layers"], mpi: Field["mpi"]): void;
  /** Planes of a field; those of the first stage make the first picture. */
  planes(planes: FieldPlane[], stage: number): void;
  /** A mesh, whole. */
  mesh(mesh: MeshData): void;
  progress(loaded: number, total: number, phase: "download" | "decode"): void;
  /** How to get at the pictures that the writer's renderer made. */
  references(read: ReferenceReader): void;
  /** Lets other messages through between pieces. */
  breathe(): Promise<void>;
}

/**
 * Refuses a scene that passes the bound: `bytes` of the file and of what is decoded from it, the
 * textures and their copies, and what drawing, sorting and picking keep for every splat.
 */
export function guardTotal(bytes: number, count: number, degree: number, where: string): void {
  const textures = count * (32 + (degree > 0 ? 16 * degree + 16 : 0));
  const needed = bytes + 2 * textures + count * (32 + 24 + 26) + splatBytes(CHUNK_SPLATS, degree);
  if (!(needed <= MAX_TOTAL_BYTES)) {
    throw new SceneError("too-big", where, `${count} splats need ${Math.round(needed / 1e6)} MB`);
  }
}
