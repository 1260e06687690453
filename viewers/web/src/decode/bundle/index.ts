import { SceneError } from "../errors";
import type { Sink } from "../open";
import type { OpenRequest } from "../protocol";
import type { ByteSource, Progress } from "../remote";

export type BundleInput =
  | { file: ByteSource; progress: Progress }
  | { folder: string; progress: Progress };

/** Whether bytes start as a bundle: a ZIP whose first member is manifest.json. */
export function isBundle(start: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(start.subarray(0, 64));
  return text.startsWith("PK\x03\x04") && text.slice(30).startsWith("manifest.json");
}

export async function openBundle(
  _input: BundleInput,
  _request: OpenRequest,
  _sink: Sink,
): Promise<void> {
  throw new SceneError("kind", "s4d", "not yet");
}
