import { SceneError } from "./errors";
import { allocateSplats, coefficients, SH_C0, type SplatSource, setQuat } from "./splats";

/** Bytes of a splat: position and sizes as floats, colour and opacity, rotation as bytes. */
const ROW = 32;

/** The splats of a .splat file (antimatter15): no header, no harmonics. Throws `damaged`. */
export function openSplat(bytes: Uint8Array): SplatSource {
  if (bytes.length === 0 || bytes.length % ROW !== 0) {
    throw new SceneError("damaged", ".splat", `${bytes.length} bytes: not a multiple of ${ROW}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const K3 = 3 * coefficients(0);
  return {
    count: bytes.length / ROW,
    degree: 0,
    read: (rows) => {
      const out = allocateSplats(rows.length, 0);
      for (let i = 0; i < rows.length; i++) {
        const at = ROW * rows[i]!;
        for (let a = 0; a < 3; a++) {
          const [mean, size] = [0, 12].map((o) => view.getFloat32(at + o + 4 * a, true));
          out.means[3 * i + a] = mean!;
          out.scales[3 * i + a] = size!;
          out.sh[K3 * i + a] = (bytes[at + 24 + a]! / 255 - 0.5) / SH_C0;
        }
        out.opacities[i] = bytes[at + 27]! / 255;
        const [w, x, y, z] = [28, 29, 30, 31].map((o) => (bytes[at + o]! - 128) / 128);
        setQuat(out.quats, i, w!, x!, y!, z!);
      }
      return out;
    },
  };
}
