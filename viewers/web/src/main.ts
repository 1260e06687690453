import { packSplats } from "./decode/pack";
import { decodePly } from "./decode/ply";
import { Stage } from "./engine/stage";

async function main(): Promise<void> {
  const params = new URLSearchParams(location.search);
  const canvas = document.querySelector("canvas")!;
  const stage = await Stage.create(canvas, params.has("webgpu") ? ["webgpu"] : ["webgl2"]);
  const bytes = new Uint8Array(await (await fetch(params.get("content")!)).arrayBuffer());
  for (const piece of decodePly(bytes)) stage.add(packSplats(piece));
  Object.assign(window, { scene4d: { stage, ready: Promise.resolve() } });
}
main().catch((e) => {
  console.error(e);
  Object.assign(window, { failed: String(e) });
});
