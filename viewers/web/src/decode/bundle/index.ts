import { SceneError } from "../errors";
import type { Followers } from "../motion/followers";
import { type MotionShape, Splines } from "../motion/splines";
import { extentOf } from "../order";
import { packSplats } from "../pack";
import type { CaptureCamera, OpenRequest, SceneInfo } from "../protocol";
import { guardTotal, type Sink } from "../sink";
import type { PictureDecoder } from "../sog";
import { rowsOf, type SplatData } from "../splats";
import { damaged } from "./bytes";
import { Chunks } from "./chunks";
import type { Bundle } from "./container";
import { chunks as chunksOf, type FieldKind, type KindReader, type MeshKind } from "./kind";
import { kindOf } from "./kinds";
import type { Manifest } from "./manifest.gen";
import { motionBytes } from "./splats4d";
import { checkDeclared, decodedBytes, StageDecoder } from "./stages";
import { upOf } from "./up";

type V3 = [number, number, number];

/** Delivers a bundle: what is known at once, the poster, then stage by stage. Throws SceneError. */
export async function deliverBundle(
  bundle: Bundle,
  request: OpenRequest,
  sink: Sink,
  decodePicture: PictureDecoder,
): Promise<void> {
  const { manifest } = bundle;
  const kind = kindOf(manifest);
  if (!kind) throw new SceneError("kind", "bundle", `kind ${manifest.kind} cannot be drawn`);
  checkDeclared(bundle);
  checkScene(manifest);
  kind.check(manifest, bundle.size);
  const shown = Math.min(manifest.count, request.budget);
  const degree = Math.min(manifest.sh_degree, request.degree);
  const bytes = bundle.size + decodedBytes(manifest) + motionBytes(manifest);
  guardTotal(bytes, shown, degree, "bundle");
  sink.info({ ...infoOf(bundle, shown, degree), drawable: kind.drawable });
  sink.references(async (index) => {
    const reference = manifest.references[index];
    if (!reference) throw damaged(`there is no reference ${index}`);
    return { bytes: await bundle.read(reference.member), camera: reference.camera };
  });
  const poster = await bundle.read(manifest.poster);
  sink.poster(poster, mimeOf(poster));
  const decoder = await StageDecoder.open(bundle);
  if (kind.drawable === "field") await deliverField(decoder, kind, sink);
  else if (kind.drawable === "mesh") await deliverMesh(decoder, kind, sink, decodePicture);
  else await deliverSplats(decoder, kind.open(decoder, degree), shown, request.time, sink);
}

/** Stage by stage; of what moves, the chunk of the time that is shown first at the end. */
async function deliverSplats(
  decoder: StageDecoder,
  reader: KindReader,
  shown: number,
  time: number | undefined,
  sink: Sink,
): Promise<void> {
  const { bundle, manifest } = decoder;
  const { motion } = reader;
  const stages = manifest.stages.slice(
    0,
    manifest.stages.length - (motion?.chunkStages.length ?? 0),
  );
  let shape: MotionShape | null = null;
  let drawn = 0;
  let held = 0;
  let next = bundle.read(stages[0]!.member);
  for (const [number, stage] of stages.entries()) {
    const member = await next;
    const following = stages[number + 1];
    // The next stage comes over the network while this one is decoded.
    if (following && drawn + stage.points < shown) next = bundle.read(following.member);
    next.catch(() => {});
    const decoded = decoder.decode(number, member);
    await sink.breathe();
    if (motion && number === 0) {
      shape = motion.shape();
      if (shape) sink.motion(shape);
    }
    const size = reader.size(decoded);
    held += size;
    if (following ? held > manifest.count : held !== manifest.count) {
      throw damaged(`says it has ${manifest.count} splats, but has ${held}`);
    }
    const stride = Math.max(1, Math.ceil(size / Math.max(1, shown - drawn)));
    for (const range of chunksOf(stage.points, reader.pointsPerPiece, stride)) {
      const data = reader.read(decoded, range);
      if (drawn === 0) sink.extent(extentOf(data.means));
      for (const part of motion ? apart(data, motion.followers(decoded, range)) : [{ data }]) {
        sink.piece(packSplats(part.data), number, undefined, part.followers);
      }
      drawn += data.count;
      sink.progress(drawn, shown, "decode");
      await sink.breathe();
    }
    // A thinned stage used the budget up, even where it ended a little short of it.
    if (stride > 1 || drawn >= shown) break;
  }
  if (!motion || !shape) return;
  const splines = new Splines(shape);
  const chunks = new Chunks(decoder, motion, splines, sink.knots, sink.fail);
  sink.chunks(chunks);
  await chunks.load(splines.place(time ?? shape.start).chunk);
}

/** Splats that stand and splats that move, each where there are such. */
function apart(
  data: SplatData,
  { rows, followers }: { rows: Uint32Array; followers: Followers },
): { data: SplatData; followers?: Followers }[] {
  if (rows.length === 0) return [{ data }];
  if (rows.length === data.count) return [{ data, followers }];
  const moves = new Uint8Array(data.count);
  for (const row of rows) moves[row] = 1;
  const still = Uint32Array.from({ length: data.count }, (_, i) => i).filter((i) => !moves[i]);
  return [{ data: rowsOf(data, still) }, { data: rowsOf(data, rows), followers }];
}

/** The network with the first planes, then the finer ones as they come. */
async function deliverField(decoder: StageDecoder, kind: FieldKind, sink: Sink): Promise<void> {
  const { bundle, manifest } = decoder;
  const shape = kind.shape(manifest);
  let next = bundle.read(manifest.stages[0]!.member);
  for (const number of manifest.stages.keys()) {
    const member = await next;
    const following = manifest.stages[number + 1];
    if (following) next = bundle.read(following.member);
    next.catch(() => {});
    decoder.decode(number, member);
    await sink.breathe();
    if (number === 0) {
      const { centre, radius } = shape.content;
      sink.extent({ center: centre as V3, radius });
      sink.field(shape, kind.layers(decoder), kind.mpi(decoder));
    }
    sink.planes(kind.planes(decoder, number), number);
    sink.progress(number + 1, manifest.stages.length, "decode");
    await sink.breathe();
  }
}

/** Everything at once: no part of a surface is one to look at. */
async function deliverMesh(
  decoder: StageDecoder,
  kind: MeshKind,
  sink: Sink,
  decodePicture: PictureDecoder,
): Promise<void> {
  const { bundle, manifest } = decoder;
  const stage = decoder.decode(0, await bundle.read(manifest.stages[0]!.member));
  await sink.breathe();
  const mesh = await kind.read(decoder, stage, decodePicture);
  sink.extent(extentOf(mesh.positions));
  sink.mesh(mesh);
  sink.progress(1, 1, "decode");
}

/** What the schema cannot express. */
function checkScene(manifest: Manifest): void {
  if (!isSimilarity(manifest.transform)) throw damaged("transform is not a similarity");
  if (manifest.references.some((r) => r.camera >= manifest.cameras.length)) {
    throw damaged("a reference is of a camera that does not exist");
  }
}

function infoOf(bundle: Bundle, shown: number, degree: number): Omit<SceneInfo, "drawable"> {
  const { manifest } = bundle;
  const cameras = manifest.cameras.map(
    (c): CaptureCamera => ({
      name: c.name,
      c2w: c.c2w.flat(),
      K: [c.fx, 0, c.cx, 0, c.fy, c.cy, 0, 0, 1],
      width: c.width,
      height: c.height,
      ...(c.time === undefined ? {} : { time: c.time }),
    }),
  );
  const [low, high] = manifest.limits.cameras;
  const content = manifest.limits.content;
  const moves = manifest.splats4d;
  const span = moves && moves.nodes > 0 && moves.duration > 0;
  return {
    kind: manifest.kind,
    count: manifest.count,
    shown,
    degree,
    bytes: bundle.size,
    up: upOf(cameras),
    cameras,
    limits: { low: low as V3, high: high as V3 },
    content: { low: content[0] as V3, high: content[1] as V3 },
    antialiased: manifest.antialiased,
    background: manifest.background as V3,
    unit: Math.cbrt(Math.abs(determinant(manifest.transform))),
    references: manifest.references.length,
    ...(span ? { span: { start: moves.start, end: moves.start + moves.duration } } : {}),
  };
}

/** Rotation, uniform scale, translation: columns of one length, at right angles, not mirrored. */
function isSimilarity(m: number[][]): boolean {
  const column = (c: number) => [m[0]![c]!, m[1]![c]!, m[2]![c]!];
  const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  const squared = dot(column(0), column(0));
  const tolerance = 1e-4 * squared;
  const pairs = [
    [0, 1],
    [0, 2],
    [1, 2],
  ] as const;
  const products = pairs.map(([a, b]) => dot(column(a), column(b)));
  const lengths = [1, 2].map((c) => dot(column(c), column(c)) - squared);
  const even = [...products, ...lengths].every((x) => Math.abs(x) <= tolerance);
  return even && determinant(m) > 0 && m[3]!.every((x, i) => x === (i === 3 ? 1 : 0));
}

function determinant(m: number[][]): number {
  const [a, b, c] = m as [number[], number[], number[]];
  return (
    a[0]! * (b[1]! * c[2]! - b[2]! * c[1]!) -
    a[1]! * (b[0]! * c[2]! - b[2]! * c[0]!) +
    a[2]! * (b[0]! * c[1]! - b[1]! * c[0]!)
  );
}

/** PNG, JPEG or WebP by the first bytes. */
export function mimeOf(bytes: Uint8Array): string {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  if (start.startsWith("\x89PNG")) return "image/png";
  if (start.startsWith("\xff\xd8")) return "image/jpeg";
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return "image/webp";
  throw damaged("a picture is neither PNG, JPEG nor WebP");
}
