import type { Statistics } from "./events";
import type { Player } from "./player";
import type { Scene } from "./scene";

/** Before it is there. */
const NO_MESH = { triangles: 0, vertices: 0, width: 0, height: 0 };
/** Before the first planes. */
const NO_FIELD = { width: 0, height: 0, slabs: 0, planes: 0, planesInFile: 0 };

/** The figures of what is shown. */
export function statisticsOf({ stage }: Player, scene: Scene, frameMs: number): Statistics {
  const { info, loaded } = scene;
  // The page goes on at its own pace while a field's picture is being made.
  const { splats, field, last, mesh, motion } = stage.drawable.statistics();
  const fieldMs = last?.milliseconds ?? 0;
  const ms = Math.max(frameMs, fieldMs);
  return {
    backend: stage.backend,
    framesPerSecond: ms > 0 ? 1000 / ms : 0,
    frameMs: ms,
    frames: stage.frames,
    sortMs: stage.sortTime,
    fieldMs,
    field: info?.drawable === "field" ? (field ?? NO_FIELD) : null,
    mesh: info?.drawable === "mesh" ? (mesh ?? NO_MESH) : null,
    motion: motion ?? null,
    splats,
    splatsInFile: info?.count ?? 0,
    degree: info?.degree ?? 0,
    width: stage.width,
    height: stage.height,
    memory: stage.drawable.bytes,
    downloaded: Math.min(loaded.bytes, loaded.total || loaded.bytes),
    size: info?.bytes ?? loaded.total,
    loadMs: loaded.milliseconds,
  };
}
