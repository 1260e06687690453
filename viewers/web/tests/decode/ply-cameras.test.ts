import { describe, expect, it } from "vitest";
import { openPly } from "../../src/decode/ply";
import { camerasOf } from "../../src/decode/ply-cameras";
import { plyOf } from "../browser/splat-files";

const POSE = "1 0 0 0.5 0 0 -1 -4 0 1 0 0";

describe("cameras in a PLY's comments", () => {
  it("are read where they make sense, and other comments are passed over", () => {
    const found = camerasOf([
      "SplatRenderMode: mip",
      `scene4d camera ${POSE} 60 61 32 24 64 48 IMG 1.jpg`,
      "scene4d camera",
      `scene4d camera ${POSE} 60 61 32 24 64 x name`,
      `scene4d camera ${POSE} 60 nan 32 24 64 48 name`,
      `scene4d camera ${POSE} -60 60 32 24 64 48 name`,
      `scene4d camera ${POSE} 60 60 32 24 1e300 48 name`,
      `scene4d camera ${POSE.replaceAll("1", "2")} 60 60 32 24 64 48 name`,
    ]);
    expect(found).toEqual([
      {
        name: "IMG 1.jpg",
        c2w: [1, 0, 0, 0.5, 0, 0, -1, -4, 0, 1, 0, 0, 0, 0, 0, 1],
        K: [60, 0, 32, 0, 61, 24, 0, 0, 1],
        width: 64,
        height: 48,
      },
    ]);
  });

  it("come with the file", () => {
    const plain = Buffer.from(plyOf([[0, 0, 0]], 0.1)).toString("latin1");
    const line = `\ncomment scene4d camera ${POSE} 60 60 32 24 64 48 IMG 1.jpg\nelement vertex`;
    const told = Buffer.from(plain.replace("\nelement vertex", line), "latin1");
    expect(openPly(new Uint8Array(told)).cameras).toHaveLength(1);
    expect(openPly(new Uint8Array(Buffer.from(plain, "latin1"))).cameras).toEqual([]);
  });
});
