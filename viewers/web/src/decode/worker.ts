/// <reference lib="webworker" />
import type { Chunks } from "./bundle/chunks";
import { type FailureKind, SceneError } from "./errors";
import type { Field } from "./field/field";
import { pickInField } from "./field/pick";
import { pickInMesh } from "./mesh/pick";
import { MovingPieces } from "./motion/moving";
import { openScene } from "./open";
import { transferables } from "./pack";
import { type Pickable, pickAlong, pickable } from "./pick";
import { decodePicture } from "./picture";
import type { FromWorker, OpenRequest, PickRequest, SceneInfo, ToWorker } from "./protocol";
import type { ReferenceReader, Sink } from "./sink";
import { standOf } from "./stand";

declare const self: DedicatedWorkerGlobalScope;

let current = 0;
let pieces: Pickable[] = [];
let field: Field | null = null;
/** What a click meets of a mesh. */
let surface: Parameters<typeof pickInMesh>[0] | null = null;
/** What `too-big` means here: advice differs. */
let tooBig: FailureKind = "too-big";
let references: ReferenceReader | null = null;
/** What moves. */
let moving = new MovingPieces();
let chunks: Chunks | null = null;

function post(message: FromWorker, transfer: Transferable[] = []): void {
  self.postMessage(message, transfer);
}

self.onmessage = (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  if (message.type === "open") void open(message);
  else if (message.type === "pick") {
    post({ type: "picked", id: message.id, distance: picked(message) });
  } else if (message.type === "reference") void reference(message.id, message.index);
  else if (message.type === "want") chunks?.want(message.time, message.ahead);
  else if (message.type === "places") {
    const started = performance.now();
    const places = chunks && moving.at(chunks.splines, message.time);
    const buffers = places?.flatMap((p) => [p.centers.buffer, p.bounds.buffer]);
    const milliseconds = performance.now() - started;
    post({ type: "places", id: message.id, places, milliseconds }, buffers);
  } else {
    current++;
    forget();
  }
};

/** Distance along the ray; null in the void. */
function picked({ origin, direction, camera, time }: PickRequest): number | null {
  if (field) return pickInField(field, camera);
  if (surface) return pickInMesh(surface, origin, direction);
  return pickAlong(piecesAt(time ?? 0), origin, direction, time);
}

function forget(): void {
  pieces = [];
  field = null;
  surface = null;
  tooBig = "too-big";
  references = null;
  moving = new MovingPieces();
  chunks = null;
}

function piecesAt(time: number): readonly Pickable[] {
  return [...pieces, ...moving.pickables(chunks?.splines ?? null, time)];
}

async function reference(id: number, index: number): Promise<void> {
  try {
    const found = await references!(index);
    post({ type: "reference", id, ...found });
  } catch {
    // The page says that there is nothing to compare with.
    post({ type: "reference", id, bytes: null, camera: 0 });
  }
}

async function open(request: OpenRequest): Promise<void> {
  const { id } = request;
  current = id;
  forget();
  const started = performance.now();
  try {
    await openScene(request, sinkFor(id), decodePicture);
    post({ type: "done", id, milliseconds: performance.now() - started });
  } catch (error) {
    fail(id, request.url ?? "", error);
  }
}

function fail(id: number, where: string, error: unknown): void {
  if (current !== id) return;
  const e =
    error instanceof SceneError
      ? error
      : new SceneError(error instanceof RangeError ? "too-big" : "damaged", where, `${error}`);
  const kind = e.kind === "too-big" ? tooBig : e.kind;
  post({ type: "failed", id, kind, where: e.where, detail: e.detail });
}

const TOO_BIG: { [drawable in SceneInfo["drawable"]]: FailureKind } = {
  splats: "too-big",
  field: "field-too-big",
  mesh: "mesh-too-big",
};

class Superseded extends Error {}

function sinkFor(id: number): Sink {
  const live = () => {
    if (current !== id) throw new Superseded("another scene was opened");
  };
  let known = false;
  return {
    info: (info) => {
      // A bundle says where its content is, and what of it is seen first.
      known = Boolean(info.cameras?.length && info.content);
      tooBig = TOO_BIG[info.drawable];
      post({ type: "info", id, info });
    },
    poster: (bytes, mime) => post({ type: "poster", id, bytes, mime }),
    extent: ({ sample, ...extent }) => {
      const stand = known || !sample ? null : standOf(sample);
      post({ type: "extent", id, extent: stand ? { ...extent, stand } : extent });
    },
    piece: (packed, stage, span, followers) => {
      live();
      if (followers) moving.add(packed, followers);
      else pieces.push(pickable(packed, span));
      post({ type: "piece", id, packed, stage, span, followers }, transferables(packed));
    },
    motion: (shape) => {
      live();
      post({ type: "motion", id, shape });
    },
    knots: (chunk, knots) => {
      live();
      post({ type: "knots", id, chunk, knots }, [knots.buffer]);
    },
    chunks: (made) => {
      chunks = made;
    },
    fail: (error) => fail(id, "", error),
    field: (shape, layers, mpi) => {
      live();
      field = { shape, layers, planes: shape.feature_planes.map(() => null), mpi };
      post({ type: "field", id, shape, layers, mpi });
    },
    planes: (planes, stage) => {
      live();
      for (const { index, values } of planes) field!.planes[index] = values;
      post({ type: "planes", id, planes, stage });
    },
    mesh: (mesh) => {
      live();
      const { positions, triangles, uv, texture } = mesh;
      surface = { positions: positions.slice(), triangles: triangles.slice() };
      const arrays = [positions, triangles, uv, ...texture.levels];
      post(
        { type: "mesh", id, mesh },
        arrays.map((a) => a.buffer),
      );
    },
    progress: (loaded, total, phase) => post({ type: "progress", id, loaded, total, phase }),
    references: (read) => {
      references = read;
    },
    breathe: async () => {
      await new Promise((resolve) => setTimeout(resolve, 0));
      live();
    },
  };
}
