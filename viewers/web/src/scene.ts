import { Clock } from "./camera/clock";
import type { Stance } from "./camera/rig";
import type { V3 } from "./camera/vec";
import type { Field, FieldPlane } from "./decode/field/field";
import type {
  Annotation,
  CaptureCamera,
  Extent,
  FromWorker,
  OpenRequest,
  PickRequest,
  Places,
  PlacesRequest,
  ReferenceRequest,
  SceneInfo,
  ToWorker,
  View,
} from "./decode/protocol";
import type { FieldView } from "./draw/field-view";
import { Layer } from "./engine/layer";
import { FieldGovernor } from "./quality";
import type { Settings } from "./settings";

/** What is opened: an address, or a file's bytes. */
export type Content = { url: string } | { bytes: ArrayBuffer; name: string };

/** What the page's settings say of one scene, and of no other. */
export interface Wishes {
  view: View | null;
  up: V3 | null;
  background: V3 | null;
  title: string | null;
  /** Seconds. */
  time: number | null;
  annotations: readonly Annotation[];
  captureCameras: readonly CaptureCamera[];
}

export const NO_WISHES: Wishes = {
  view: null,
  up: null,
  background: null,
  title: null,
  time: null,
  annotations: [],
  captureCameras: [],
};

/** What the page's settings say of the scene that they name. */
export function wishesOf(settings: Settings): Wishes {
  const { view, up, background, title, time, annotations, captureCameras } = settings;
  return { view, up, background, title, time, annotations, captureCameras };
}

/** Seconds that are fetched before they are shown, at the clock's own speed. */
const AHEAD = 10;

/**
 * Everything that belongs to one scene: what is known of it, what of it is drawn, where it is seen
 * from, and the worker that reads it. Another scene is another object; nothing is carried over.
 */
export class Scene {
  readonly layer = new Layer();
  readonly clock = new Clock();
  readonly fieldGovernor = new FieldGovernor();
  info: SceneInfo | null = null;
  extent: Extent | null = null;
  cameras: readonly CaptureCamera[];
  /** Chosen for this scene; null: its own, or the page's. */
  background: V3 | null;
  /** Chosen for this scene; null: found. */
  up: V3 | null;
  /** The picture of the first piece is on the canvas. */
  started = false;
  finished = false;
  failed = false;
  /** A field of light that is arriving, or has. */
  field: Field | null = null;
  /** What draws it, from its first planes on. */
  fieldView: FieldView | null = null;
  loaded = { bytes: 0, total: 0, milliseconds: 0 };
  /** The number of the training camera that is looked through. */
  through: number | null = null;
  /** How the picture follows the window's size; null once a hand has moved. */
  fit: "home" | "frame" | null = "home";
  /** Whether the first view still looks for what it turns around. */
  pivot = false;
  posterUrl: string | null = null;
  /** The camera's state while another scene takes this one's place. */
  stance: Stance | null = null;
  private readonly worker: Worker;
  private readonly answers = new Map<number, (message: FromWorker | null) => void>();
  private asked = 0;
  private closed = false;

  /** Begins to read. */
  constructor(
    readonly request: OpenRequest | null,
    readonly wishes: Wishes,
    receive: (scene: Scene, message: FromWorker) => void,
  ) {
    this.cameras = wishes.captureCameras;
    this.background = wishes.background;
    this.up = wishes.up;
    this.worker = new Worker(new URL("./decode/worker.ts", import.meta.url), { type: "module" });
    this.worker.onmessage = (event: MessageEvent<FromWorker>) => {
      const message = event.data;
      if (this.closed) return;
      const { type } = message;
      if (type === "picked" || type === "reference" || type === "places") {
        this.answers.get(message.id)?.(message);
        this.answers.delete(message.id);
      } else receive(this, message);
    };
    this.worker.onerror = (event) => {
      const detail = event.message ?? "the decoder did not start";
      receive(this, { type: "failed", id: 0, kind: "damaged", where: "decoder", detail });
    };
    if (request) this.post(request);
  }

  private post(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  /** Null where the scene was closed meanwhile. */
  ask(request: PickRequest | ReferenceRequest | PlacesRequest): Promise<FromWorker | null> {
    if (this.closed) return Promise.resolve(null);
    const id = ++this.asked;
    return new Promise((resolve) => {
      this.answers.set(id, resolve);
      this.post({ ...request, id });
    });
  }

  /** Asks for the motion of a time, and of what comes after it while the clock goes on. */
  want(seconds: number): void {
    const { playing, speed } = this.clock;
    this.post({ type: "want", time: seconds, ahead: playing ? AHEAD * Math.max(1, speed) : 0 });
  }

  /** Where the splats that move are at a time; null where that is not known. */
  async places(seconds: number): Promise<{ places: Places[]; milliseconds: number } | null> {
    const answer = await this.ask({ type: "places", id: 0, time: seconds });
    if (answer?.type !== "places" || !answer.places) return null;
    return { places: answer.places, milliseconds: answer.milliseconds };
  }

  /** A name for the page: what the settings or the scene say, or the file's own. */
  get title(): string | null {
    if (this.wishes.title ?? this.info?.title) return this.wishes.title ?? this.info!.title!;
    const where = this.request?.name ?? this.request?.url;
    if (!where) return null;
    const parts = where.split(/[?#]/)[0]!.split("/");
    const name = parts.pop()!;
    // A folder's index says nothing; its folder does.
    const told = /^(manifest|meta)\.json$/.test(name) ? (parts.pop() ?? name) : name;
    try {
      return decodeURIComponent(told) || null;
    } catch {
      return told;
    }
  }

  get annotations(): readonly Annotation[] {
    return [...this.wishes.annotations, ...(this.info?.annotations ?? [])];
  }

  takePlanes(planes: readonly FieldPlane[]): void {
    for (const { index, values } of planes) this.field!.planes[index] = values;
  }

  /** Stops reading; what asked is answered with null. */
  close(): void {
    this.closed = true;
    this.worker.terminate();
    for (const resolve of this.answers.values()) resolve(null);
    this.answers.clear();
    if (this.posterUrl) URL.revokeObjectURL(this.posterUrl);
    this.posterUrl = null;
  }
}
