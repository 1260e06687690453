/** Width and height that a WebP, PNG or JPEG file declares, before anyone decodes it; null for others. */
export function pictureSize(bytes: Uint8Array): { width: number; height: number } | null {
  if (bytes.length < 30) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (at: number) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (view.getUint32(0) === 0x89504e47 && text(12) === "IHDR") {
    return { width: view.getUint32(16), height: view.getUint32(20) };
  }
  if (view.getUint16(0) === 0xffd8) return jpegSize(view);
  if (text(0) !== "RIFF" || text(8) !== "WEBP") return null;
  // WebP's container specification: lossy, lossless, and extended, whose canvas the frame fills.
  if (text(12) === "VP8 ") {
    return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  }
  if (text(12) === "VP8L") {
    const sizes = view.getUint32(21, true);
    return { width: (sizes & 0x3fff) + 1, height: ((sizes >>> 14) & 0x3fff) + 1 };
  }
  if (text(12) !== "VP8X") return null;
  const three = (at: number) => view.getUint16(at, true) + (bytes[at + 2]! << 16) + 1;
  return { width: three(24), height: three(27) };
}

/** That of the first frame header (ITU-T T.81, annex B). */
function jpegSize(view: DataView): { width: number; height: number } | null {
  for (let at = 2; at + 9 <= view.byteLength; at += 2 + view.getUint16(at + 2)) {
    const marker = view.getUint16(at);
    if (marker < 0xff01) return null;
    // Of those from SOF0 to SOF15 three are others: DHT, JPG and DAC.
    const frame =
      marker >= 0xffc0 && marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker);
    if (frame) return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
  }
  return null;
}
