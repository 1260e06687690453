import type { Pixels } from "../engine/stage";
import type { Player } from "../player";

/** Pictures are drawn at this multiple of the window and scaled down. */
const SUPERSAMPLING = 2;
const LARGEST_SIDE = 8192;

/** PNG of the present view, `multiple` times the window's size, supersampled. */
export async function pictureBlob(player: Player, multiple = 1): Promise<Blob> {
  const { clientWidth, clientHeight } = player.canvas;
  const ratio = multiple * window.devicePixelRatio;
  const width = Math.round(clientWidth * ratio);
  const height = Math.round(clientHeight * ratio);
  const most = LARGEST_SIDE / Math.max(width, height);
  const factor = Math.max(1, Math.floor(Math.min(SUPERSAMPLING, most)));
  const pixels = await player.capture({ width: width * factor, height: height * factor });
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d")!;
  context.imageSmoothingQuality = "high";
  context.drawImage(await createImageBitmap(imageData(pixels)), 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/png" });
}

function imageData({ data, width, height }: Pixels): ImageData {
  const opaque = new Uint8ClampedArray(data);
  for (let i = 3; i < opaque.length; i += 4) opaque[i] = 255;
  return new ImageData(opaque, width, height);
}

/** Offers the picture as a download. */
export async function savePicture(player: Player): Promise<void> {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await pictureBlob(player));
  link.download = "scene.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
