import { SceneError } from "./errors";
import type { Picture } from "./sog";

/**
 * Exact bytes of a lossless picture, in a worker or a page.
 *
 * A 2D canvas would premultiply by alpha and lose colours under transparent pixels; a WebGL
 * texture keeps them.
 */
export async function decodePicture(bytes: Uint8Array<ArrayBuffer>): Promise<Picture> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), {
      premultiplyAlpha: "none",
      colorSpaceConversion: "none",
    });
  } catch (error) {
    throw new SceneError("damaged", "picture", String(error));
  }
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) throw new SceneError("no-graphics", "WebGL2", "needed to read pictures");
  const most = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
  if (width > most || height > most) {
    throw new SceneError("too-big", "picture", `${width} x ${height}, here at most ${most}`);
  }
  const data = new Uint8Array(width * height * 4);
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  bitmap.close();
  return { width, height, data };
}
