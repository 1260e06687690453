/// <reference lib="webworker" />
import { SceneError } from "./errors";
import type { Field } from "./field/field";
import { pickInField } from "./field/pick";
import { openScene } from "./open";
import { transferables } from "./pack";
import { type Pickable, pickAlong, pickable } from "./pick";
import { decodePicture } from "./picture";
import type { FromWorker, OpenRequest, ToWorker } from "./protocol";
import type { ReferenceReader, Sink } from "./sink";
import { standOf } from "./stand";

declare const self: DedicatedWorkerGlobalScope;

let current = 0;
let pieces: Pickable[] = [];
let field: Field | null = null;
let references: ReferenceReader | null = null;

function post(message: FromWorker, transfer: Transferable[] = []): void {
  self.postMessage(message, transfer);
}

self.onmessage = (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  if (message.type === "open") void open(message);
  else if (message.type === "pick") {
    const distance = field
      ? pickInField(field, message.camera)
      : pickAlong(pieces, message.origin, message.direction, message.time);
    post({ type: "picked", id: message.id, distance });
  } else if (message.type === "reference") void reference(message.id, message.index);
  else {
    current++;
    pieces = [];
    field = null;
    references = null;
  }
};

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
  pieces = [];
  field = null;
  const started = performance.now();
  try {
    await openScene(request, sinkFor(id), decodePicture);
    post({ type: "done", id, milliseconds: performance.now() - started });
  } catch (error) {
    if (current !== id) return;
    const e =
      error instanceof SceneError
        ? error
        : new SceneError(
            error instanceof RangeError ? (field ? "field-too-big" : "too-big") : "damaged",
            request.url ?? "",
            `${error}`,
          );
    post({ type: "failed", id, kind: e.kind, where: e.where, detail: e.detail });
  }
}

class Superseded extends Error {}

function sinkFor(id: number): Sink {
  const live = () => {
    if (current !== id) throw new Superseded("another scene was opened");
  };
  let photographed = false;
  return {
    info: (info) => {
      photographed = Boolean(info.cameras?.length);
      post({ type: "info", id, info });
    },
    poster: (bytes, mime) => post({ type: "poster", id, bytes, mime }),
    extent: ({ sample, ...extent }) => {
      const stand = photographed || !sample ? null : standOf(sample);
      post({ type: "extent", id, extent: stand ? { ...extent, stand } : extent });
    },
    piece: (packed, stage, span) => {
      live();
      pieces.push(pickable(packed, span));
      post({ type: "piece", id, packed, stage, span }, transferables(packed));
    },
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
