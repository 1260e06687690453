import { SceneError } from "./errors";
import { MAX_BUFFER_BYTES } from "./splats";

/** The first request asks for so much: a manifest and often the poster. */
const FIRST_BYTES = 65536;
const ATTEMPTS = 4;
const PAUSE_MS = 400;

let credentials: RequestCredentials = "same-origin";

/** Whether cookies go along with what is fetched from now on. */
export function useCredentials(mode: RequestCredentials): void {
  credentials = mode;
}

export type Progress = (loaded: number, total: number) => void;
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** Bytes that arrive by parts. */
export interface ByteSource {
  /** Bytes of the whole, 0 while unknown. */
  readonly size: number;
  /** Resolves once these bytes are there. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** Bytes that are all here. */
export class MemorySource implements ByteSource {
  constructor(private readonly bytes: Uint8Array<ArrayBuffer>) {}

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = offset + length;
    if (end > this.size) return Promise.reject(cutOff("file", this.size, end));
    return Promise.resolve(this.bytes.subarray(offset, end));
  }
}

/**
 * A file on a server: by Range requests where the server answers them, else as one download whose
 * beginning can be read while the rest still comes. A dropped connection is taken up again.
 */
export class RemoteFile implements ByteSource {
  size = 0;
  /** Bytes that the server said it would send, where they may be compressed ones; else 0. */
  private announced = 0;
  private buffer = new Uint8Array(0);
  private received = 0;
  private ranged = false;
  private failure: unknown = null;
  private complete = false;
  private waiting: (() => void)[] = [];
  private loaded = 0;

  private constructor(
    private readonly url: string,
    private readonly fetcher: Fetch,
    private readonly progress: Progress,
    private readonly signal?: AbortSignal,
  ) {}

  /** Fetches the beginning. `whole`: do not bother with ranges. */
  static async open(
    url: string,
    options: { fetcher?: Fetch; progress?: Progress; whole?: boolean; signal?: AbortSignal } = {},
  ): Promise<RemoteFile> {
    const fetcher = options.fetcher ?? ((u, init) => fetch(u, init));
    const file = new RemoteFile(url, fetcher, options.progress ?? (() => {}), options.signal);
    await file.start(options.whole === true);
    return file;
  }

  private async start(whole: boolean): Promise<void> {
    let response = await this.request(whole ? null : [0, FIRST_BYTES - 1], true);
    if (response.status === 206) {
      if (await this.takeStart(response)) return;
      response = await this.request(null);
    }
    const length = Number(response.headers.get("Content-Length") ?? 0);
    this.setSize(length);
    if (compressed(response) || response.type === "cors") {
      // Of another host's answer a page may not see whether it was compressed.
      this.announced = length;
      this.size = 0;
    }
    this.buffer = new Uint8Array(this.size || FIRST_BYTES);
    void this.stream(response).catch((error: unknown) => {
      this.failure = error;
      this.wake();
    });
  }

  /** Takes the first range; false where ranges are of no use and the whole must be asked for. */
  private async takeStart(response: Response): Promise<boolean> {
    const range = /(\d+)-(\d+)\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
    // Another host hides the size unless it allows pages to see it; parts of what a host
    // compressed cannot be unpacked.
    if (!range || compressed(response)) return false;
    const [first, last, total] = range.slice(1).map(Number) as [number, number, number];
    this.setSize(total);
    const start = new Uint8Array(await this.body(response, [0, FIRST_BYTES - 1]));
    if (start.length !== last - first + 1) return false;
    this.ranged = true;
    this.buffer = start;
    this.received = start.length;
    this.report(this.received);
    return true;
  }

  private setSize(size: number): void {
    if (size > MAX_BUFFER_BYTES * 4) throw new SceneError("too-big", this.url, `${size} bytes`);
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (length > MAX_BUFFER_BYTES) throw new SceneError("too-big", this.url, `${length} bytes`);
    const end = offset + length;
    if (end <= this.received) return this.buffer.slice(offset, end);
    if (this.ranged) {
      if (end > this.size) throw cutOff(this.url, this.size, end);
      return this.ranges(offset, end);
    }
    while (this.received < end) {
      if (this.failure) throw this.failure;
      if ((this.size > 0 || this.complete) && end > this.size)
        throw cutOff(this.url, this.size, end);
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    return this.buffer.slice(offset, end);
  }

  /** Everything; `size` is known then. */
  async all(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.size > 0) return this.read(0, this.size);
    while (!this.size && !this.complete) {
      if (this.failure) throw this.failure;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    return this.read(0, this.size);
  }

  /** One range, resumed where the connection broke. */
  private async ranges(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const out = new Uint8Array(end - start);
    const here = this.buffer.subarray(start, this.received);
    out.set(here);
    let at = here.length;
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await this.request([start + at, end - 1]);
        if (response.status !== 206)
          throw new SceneError("network", this.url, "no longer answers Range");
        for await (const chunk of chunksOf(response)) {
          out.set(chunk.subarray(0, out.length - at), at);
          at += Math.min(chunk.length, out.length - at);
          this.report(chunk.length);
        }
        if (at >= out.length) return out;
        throw new Error(`${at} of ${out.length} bytes came`);
      } catch (error) {
        await this.pauseOrThrow(error, attempt);
      }
    }
  }

  private async stream(first: Response): Promise<void> {
    let response = first;
    let farthest = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        for await (const chunk of chunksOf(response)) {
          this.append(chunk);
          // Without Range a retry starts over: only what was never reached before is progress.
          if (this.received > farthest) attempt = 0;
          farthest = Math.max(farthest, this.received);
        }
        if (this.size === 0) this.size = this.received;
        if (this.received < this.size)
          throw new Error(`${this.received} of ${this.size} bytes came`);
        this.complete = true;
        this.wake();
        return;
      } catch (error) {
        await this.pauseOrThrow(error, attempt);
        response = await this.request(this.size > 0 ? [this.received, this.size - 1] : null);
        if (response.status === 200) {
          this.received = 0;
          this.loaded = 0;
        }
      }
    }
  }

  private append(chunk: Uint8Array): void {
    const needed = this.received + chunk.length;
    if (needed > MAX_BUFFER_BYTES)
      throw new SceneError("too-big", this.url, `over ${needed} bytes`);
    if (needed > this.buffer.length) {
      const grown = new Uint8Array(
        Math.min(MAX_BUFFER_BYTES, Math.max(needed, 2 * this.buffer.length)),
      );
      grown.set(this.buffer.subarray(0, this.received));
      this.buffer = grown;
    }
    this.buffer.set(chunk, this.received);
    this.received = needed;
    this.report(chunk.length);
    this.wake();
  }

  private async pauseOrThrow(error: unknown, attempt: number): Promise<void> {
    if (error instanceof SceneError || this.signal?.aborted) throw error;
    if (attempt + 1 >= ATTEMPTS) {
      throw new SceneError("network", this.url, `the connection broke: ${error}`);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * 2 ** attempt));
  }

  /**
   * `orWhole`: without the range from the second attempt on. Browsers ask for ranges uncompressed,
   * and fail where the host compresses all the same.
   */
  private async request(range: [number, number] | null, orWhole = false): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      try {
        const headers: Record<string, string> = {};
        if (range && !(orWhole && attempt > 0)) headers.Range = `bytes=${range[0]}-${range[1]}`;
        const init: RequestInit = { headers, credentials };
        if (this.signal) init.signal = this.signal;
        const response = await this.fetcher(this.url, init);
        if (response.status === 404 || response.status === 403 || response.status === 410) {
          throw new SceneError("not-found", this.url, `the server answers ${response.status}`);
        }
        if (!response.ok) throw new Error(`the server answers ${response.status}`);
        return response;
      } catch (error) {
        const last = !orWhole || attempt > 0; // an old browser asks first whether it may use Range
        if (last && error instanceof TypeError && (await isHidden(this.url))) {
          throw new SceneError("cors", this.url, "its server lets no page of this origin read it");
        }
        await this.pauseOrThrow(error, attempt);
      }
    }
  }

  /** The body of the first part, with its own retries. */
  private async body(response: Response, range: [number, number]): Promise<ArrayBuffer> {
    for (let attempt = 0, next = response; ; attempt++) {
      try {
        return await next.arrayBuffer();
      } catch (error) {
        await this.pauseOrThrow(error, attempt);
        next = await this.request(range);
      }
    }
  }

  private report(bytes: number): void {
    this.loaded += bytes;
    this.progress(
      this.loaded,
      this.size || (this.announced && Math.max(this.announced, this.loaded)),
    );
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}

/** Whether another host's server answers, but hides its answer from this page (CORS). */
async function isHidden(url: string): Promise<boolean> {
  const own = globalThis.location?.origin;
  if (own === undefined || !/^https?:/.test(url) || new URL(url).origin === own) return false;
  const stop = new AbortController();
  try {
    await fetch(url, { mode: "no-cors", credentials: "omit", signal: stop.signal });
    stop.abort(); // that it answers is enough
    return true;
  } catch {
    return false;
  }
}

/** Whether lengths in the answer's head count other bytes than those that are read. */
function compressed(response: Response): boolean {
  return !/^(identity)?$/i.test(response.headers.get("Content-Encoding") ?? "");
}

function cutOff(url: string, size: number, end: number): SceneError {
  return new SceneError("damaged", url, `cut off: ${size} bytes, at least ${end} expected`);
}

async function* chunksOf(response: Response): AsyncGenerator<Uint8Array> {
  const reader = response.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
