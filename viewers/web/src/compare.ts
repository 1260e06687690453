import type { CaptureCamera } from "./decode/protocol";
import type { CaptureOptions } from "./engine/stage";
import type { Player } from "./player";

/** RGBA of an opaque picture. */
export async function pixelsOf(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8ClampedArray> {
  const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
}

/** A picture that a bundle holds, and the camera that it was made with. */
export interface Reference {
  bytes: Uint8Array<ArrayBuffer>;
  camera: CaptureCamera;
}

/** PSNR in dB against each reference picture of the open bundle, drawn at its camera. */
export async function fidelity(
  player: Player,
  options?: CaptureOptions,
): Promise<{ camera: string; psnr: number }[]> {
  const results: { camera: string; psnr: number }[] = [];
  const count = player.info?.references ?? 0;
  // Each view is drawn for the comparison alone, not once more on the canvas.
  player.stage.setPaused(true);
  // The pictures were drawn before the bundle's own colour, whatever is behind the scene here.
  player.stage.setBackground(player.info?.background ?? [0, 0, 0]);
  try {
    for (let index = 0; index < count; index++) {
      const reference = await player.reference(index);
      if (!reference) throw new Error(`no reference ${index}`);
      const wanted = await pixelsOf(reference.bytes);
      player.viewpoint.setCamera(reference.camera);
      const { time } = reference.camera;
      const drawn = await player.capture({ ...(time === undefined ? {} : { time }), ...options });
      results.push({ camera: reference.camera.name, psnr: psnr(drawn.data, wanted) });
    }
  } finally {
    player.viewpoint.setCamera(null);
    player.stage.setBackground(player.background);
    player.stage.setPaused(document.hidden);
  }
  return results;
}

/** Peak signal-to-noise ratio in dB of two RGBA pictures, alpha left out. */
export function psnr(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`pictures of ${a.length} and ${b.length} values`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    if ((i & 3) === 3) continue;
    const difference = a[i]! - b[i]!;
    sum += difference * difference;
  }
  const mean = sum / ((3 * a.length) / 4);
  return mean === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10((255 * 255) / mean);
}
