import { SceneError } from "../errors";
import { type ByteSource, MemorySource, type Progress, RemoteFile } from "../remote";
import { readZip } from "../zip";
import { crc32, damaged, inflate, sha256 } from "./bytes";
import type { Manifest, Member } from "./manifest.gen";
import { parseManifest } from "./schema";

const ALIGNMENT = 16;
const MAX_MANIFEST_BYTES = 16 << 20;
const MANIFEST = "manifest.json";
/** The ZIP's number of deflate (RFC 1951). */
const DEFLATED = 8;
/** Bytes of the ZIP's end-of-directory record, the last of the file. */
const END_RECORD = 22;

/** A bundle whose manifest is checked; members are verified when read. */
export interface Bundle {
  manifest: Manifest;
  /** Bytes of the file, or of all files of the folder. */
  size: number;
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
}

/** Whether bytes start as a bundle: a ZIP whose first member is manifest.json. */
export function isBundle(start: Uint8Array): boolean {
  const text = String.fromCharCode(...start.subarray(0, 64));
  return text.startsWith("PK\x03\x04") && text.slice(30).startsWith(MANIFEST);
}

/** Opens a bundle in one file. */
export async function openFile(file: ByteSource): Promise<Bundle> {
  const header = await file.read(0, 30);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const length = view.getUint32(18, true);
  const start = 30 + view.getUint16(26, true) + view.getUint16(28, true);
  const text = await manifestText(view, (size) => file.read(start, size));
  const manifest = parseManifest(text);
  const members = checkedMembers(manifest);
  for (const member of members.values()) {
    const outside = file.size > 0 && member.offset + member.length > file.size;
    if (member.offset < start + length || outside) {
      throw damaged(
        `member ${member.name} reaches beyond the file (it may be cut off) or into the manifest`,
      );
    }
  }
  if (file instanceof MemorySource) checkDirectory(await file.read(0, file.size), members);
  else if (file.size > 0 && file.size < endOf(members) + END_RECORD) {
    throw damaged("the ZIP directory is cut off");
  }
  return {
    manifest,
    size: file.size || endOf(members),
    read: (name) => verified(members, name, (m) => file.read(m.offset, m.length)),
  };
}

/** The manifest's text, of the file's first 30 bytes and a reader of what is stored behind. */
async function manifestText(
  header: DataView,
  read: (length: number) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const method = header.getUint16(8, true);
  const stored = header.getUint32(18, true);
  const length = header.getUint32(22, true);
  const known = method === DEFLATED || (method === 0 && stored === length);
  if (!known || (header.getUint16(6, true) & 9) !== 0) {
    throw damaged("manifest.json is encrypted or compressed otherwise than by deflate");
  }
  if (Math.max(stored, length) > MAX_MANIFEST_BYTES) {
    throw damaged(`manifest.json declares ${Math.max(stored, length)} bytes`);
  }
  const bytes = await read(stored);
  const text = method === 0 ? bytes : await inflate(MANIFEST, bytes, length, "deflate-raw");
  if (text.length !== length) throw damaged("manifest.json does not inflate to its length");
  if (crc32(text) !== header.getUint32(14, true)) {
    throw damaged("manifest.json does not have its CRC-32");
  }
  return text;
}

/** Opens an unpacked bundle by the address of its manifest.json. */
export async function openFolder(url: string, progress: Progress): Promise<Bundle> {
  const text = await (await RemoteFile.open(url, { whole: true })).all();
  const manifest = parseManifest(text);
  const members = checkedMembers(manifest);
  const size = text.length + manifest.members.reduce((sum, m) => sum + m.length, 0);
  let before = text.length;
  const fetchMember = async (member: Member) => {
    const report: Progress = (loaded) => progress(before + loaded, size);
    const file = await RemoteFile.open(new URL(member.name, url).href, {
      whole: true,
      progress: report,
    });
    const bytes = await file.all();
    before += bytes.length;
    return bytes;
  };
  return { manifest, size, read: (name) => verified(members, name, fetchMember) };
}

/** Where the whole file is here, its ZIP directory must say the same as the manifest. */
function checkDirectory(bytes: Uint8Array<ArrayBuffer>, members: Map<string, Member>): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - END_RECORD;
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) {
    throw damaged("no ZIP directory at its end: cut off, or data behind it");
  }
  const listed = readZip(bytes, MANIFEST);
  const same = [...members.values()].every((m) => listed.get(m.name)?.length === m.length);
  if (!same || listed.size !== members.size) {
    throw damaged("the ZIP directory does not list the members of the manifest");
  }
}

function endOf(members: Map<string, Member>): number {
  return Math.max(...[...members.values()].map((m) => m.offset + m.length));
}

/** Members by name: none twice, aligned, in rising order without overlap. */
function checkedMembers(manifest: Manifest): Map<string, Member> {
  const members = new Map<string, Member>();
  let end = 0;
  for (const member of manifest.members) {
    if (members.has(member.name) || member.name === MANIFEST) {
      throw damaged(`member ${member.name} is listed twice`);
    }
    if (member.offset < end || member.offset % ALIGNMENT !== 0) {
      throw damaged(`member ${member.name} overlaps another or is not aligned`);
    }
    end = member.offset + member.length;
    members.set(member.name, member);
  }
  return members;
}

async function verified(
  members: Map<string, Member>,
  name: string,
  fetch: (member: Member) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const member = members.get(name);
  if (!member) throw new SceneError("damaged", name, "the bundle has no such member");
  const bytes = await fetch(member);
  if (bytes.length !== member.length) {
    throw new SceneError("damaged", name, `cut off: ${bytes.length} of ${member.length} bytes`);
  }
  if ((await sha256(bytes)) !== member.sha256) {
    throw new SceneError("damaged", name, "its SHA-256 is not that of the manifest");
  }
  return bytes;
}
