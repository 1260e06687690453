import { SceneError } from "./errors";

/**
 * Stored members of a ZIP by name, but the one named `except`, which may be compressed. Throws
 * `format` for other compressed ones, `damaged` when cut off.
 */
export function readZip(
  bytes: Uint8Array<ArrayBuffer>,
  except?: string,
): Map<string, Uint8Array<ArrayBuffer>> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new SceneError("damaged", "ZIP", "no directory at its end: cut off");
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  const members = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let i = 0; i < count; i++) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== 0x02014b50) {
      throw new SceneError("damaged", "ZIP", "its directory cannot be read");
    }
    const length = view.getUint32(at + 24, true);
    const nameLength = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const local = view.getUint32(at + 42, true);
    const stored = view.getUint16(at + 10, true) === 0;
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (name === except) continue;
    if (!stored) {
      throw new SceneError("format", "ZIP", `${name} is compressed`);
    }
    if (local + 30 > bytes.length) throw new SceneError("damaged", "ZIP", `${name} is cut off`);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (start + length > bytes.length) throw new SceneError("damaged", "ZIP", `${name} is cut off`);
    members.set(name, bytes.subarray(start, start + length));
  }
  return members;
}
