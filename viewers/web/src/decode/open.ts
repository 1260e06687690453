import { deliverBundle } from "./bundle";
import { isBundle, openFile, openFolder } from "./bundle/container";
import { upOf } from "./bundle/up";
import { SceneError } from "./errors";
import { openGlb } from "./glb";
import { isMeshGlb, openMeshGlb } from "./mesh/glb";
import type { MeshData } from "./mesh/mesh";
import { byImportance, extentOf, ORDER_BYTES, spreadPlaces, spreadRows } from "./order";
import { packSplats } from "./pack";
import { openPly } from "./ply";
import type { Box, OpenRequest } from "./protocol";
import { MemorySource, type Progress, RemoteFile, useCredentials } from "./remote";
import { guardTotal, type Sink } from "./sink";
import { type MemberReader, openSog, type PictureDecoder } from "./sog";
import { openSplat } from "./splat";
import { CHUNK_SPLATS, type SplatSource } from "./splats";
import { openSpz } from "./spz";

/** Opens content of any format and delivers it piece by piece. Throws SceneError. */
export async function openScene(
  request: OpenRequest,
  sink: Sink,
  decodePicture: PictureDecoder,
): Promise<void> {
  useCredentials(request.credentials ?? "same-origin");
  const name = request.name ?? request.url ?? "";
  const progress: Progress = (loaded, total) => sink.progress(loaded, total, "download");
  if (/manifest\.json($|[?#])/.test(name) && request.url) {
    return deliverBundle(await openFolder(request.url, progress), request, sink, decodePicture);
  }
  const file = request.bytes
    ? new MemorySource(new Uint8Array(request.bytes))
    : await RemoteFile.open(request.url!, { progress });
  const start = await file.read(0, Math.min(64, file.size || 64));
  if (isBundle(start)) {
    return deliverBundle(await openFile(file), request, sink, decodePicture);
  }
  const bytes = file instanceof RemoteFile ? await file.all() : await file.read(0, file.size);
  if (String.fromCharCode(...start.subarray(0, 4)) === "glTF" && isMeshGlb(bytes)) {
    return deliverMesh(await openMeshGlb(bytes, decodePicture), bytes.length, sink);
  }
  const source = await openSource(bytes, name, request.url, progress, decodePicture);
  await deliver(source, bytes.length + (source.beside ?? 0), name, request, sink);
}

async function openSource(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
  url: string | undefined,
  progress: Progress,
  decodePicture: PictureDecoder,
): Promise<SplatSource> {
  const start = String.fromCharCode(...bytes.subarray(0, 8));
  if (start.startsWith("ply")) return openPly(bytes);
  if (start.startsWith("glTF")) return openGlb(bytes);
  if (start.startsWith("NGSP") || start.startsWith("\x1f\x8b")) return openSpz(bytes);
  if (start.startsWith("PK")) return openSog(bytes, decodePicture);
  if (start.trimStart().startsWith("{") && url) {
    return openSog(bytes, decodePicture, filesBeside(url, bytes.length, progress));
  }
  // no first bytes tell it: its name does
  if (/\.splat($|[?#])/i.test(name)) return openSplat(bytes);
  throw new SceneError("format", name, "not PLY, SPZ, SOG, GLB, .splat or .s4d");
}

/** Files beside the one at `url`, which has `first` bytes; `progress` is told of all together. */
function filesBeside(url: string, first: number, progress: Progress): MemberReader {
  const counts = new Map<string, { loaded: number; total: number }>();
  const tell = () => {
    let [loaded, total] = [first, first];
    for (const count of counts.values()) {
      loaded += count.loaded;
      total += Math.max(count.loaded, count.total);
    }
    progress(loaded, total);
  };
  return async (name) => {
    if (!/^[\w.-]+$/.test(name)) throw new SceneError("damaged", "SOG", `member ${name}`);
    const count = (loaded: number, total: number) => {
      counts.set(name, { loaded, total });
      tell();
    };
    const file = await RemoteFile.open(new URL(name, url).href, { whole: true, progress: count });
    return file.all();
  };
}

type V3 = [number, number, number];

/** The 3DGS PLY's axes: y points down. */
const UP: [number, number, number] = [0, -1, 0];

function deliverMesh(mesh: MeshData, bytes: number, sink: Sink): void {
  const content = boxAround(mesh.positions);
  const none = { count: 0, shown: 0, degree: 0 };
  sink.info({ kind: "mesh", drawable: "mesh", ...none, bytes, up: UP, content });
  sink.extent({ ...extentOf(mesh.positions), sample: spreadPlaces(mesh.positions) });
  sink.mesh(mesh);
  sink.progress(1, 1, "decode");
}

function boxAround(positions: Float32Array): Box {
  const [low, high]: [V3, V3] = [
    [Infinity, Infinity, Infinity],
    [-Infinity, -Infinity, -Infinity],
  ];
  for (let i = 0; i < positions.length; i++) {
    low[i % 3] = Math.min(low[i % 3]!, positions[i]!);
    high[i % 3] = Math.max(high[i % 3]!, positions[i]!);
  }
  return { low, high };
}

async function deliver(
  source: SplatSource,
  bytes: number,
  name: string,
  request: OpenRequest,
  sink: Sink,
): Promise<void> {
  const shown = Math.min(source.count, request.budget);
  const degree = Math.min(source.degree, request.degree);
  const cameras = source.cameras?.length ? source.cameras : null;
  guardTotal(bytes + (source.unpacked ?? 0) + ORDER_BYTES * source.count, shown, degree, name);
  sink.info({
    kind: "splats",
    drawable: "splats",
    count: source.count,
    shown,
    degree,
    bytes,
    ...(cameras ? { cameras, up: upOf(cameras) } : { up: UP }),
    antialiased: source.antialiased === true,
  });
  const order = byImportance(source);
  if (shown > 0) {
    const sample = source.read(spreadRows(order), 0).means;
    sink.extent({ ...extentOf(sample), sample });
  }
  for (let first = 0; first < shown; first += CHUNK_SPLATS) {
    const data = source.read(
      order.rows.subarray(first, Math.min(shown, first + CHUNK_SPLATS)),
      degree,
    );
    sink.piece(packSplats(data), Math.floor(first / CHUNK_SPLATS));
    sink.progress(Math.min(shown, first + CHUNK_SPLATS), shown, "decode");
    await sink.breathe();
  }
}
