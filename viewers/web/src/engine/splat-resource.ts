import {
  type BoundingBox,
  type GraphicsDevice,
  GSplatFormat,
  GSplatResourceBase,
  PIXELFORMAT_R32U,
  PIXELFORMAT_RGBA16F,
  PIXELFORMAT_RGBA32F,
  PIXELFORMAT_RGBA32U,
  type Texture,
  Vec3,
} from "playcanvas";
import { FOLLOWED, type Followers } from "../decode/motion/followers";
import { type PackedSplats, shTexels } from "../decode/pack";
import type { Places } from "../decode/protocol";
import { READ_GLSL, READ_WGSL } from "./motion-shaders";

const SH_STREAMS = ["splatSH_1to3", "splatSH_4to7", "splatSH_8to11", "splatSH_12to15"];

/** How a piece moves, and the texture with the poses that its splats follow. */
export interface Motion {
  followers: Followers;
  poses: Texture;
}

type Corner = ArrayLike<number>;

/** One piece of a scene in the engine's uncompressed splat textures, which a worker has packed. */
export class SplatResource extends GSplatResourceBase {
  private readonly degree: number;
  private readonly windows: boolean;
  /** Whether its splats follow nodes. */
  readonly moves: boolean;

  constructor(device: GraphicsDevice, packed: PackedSplats, motion: Motion | null = null) {
    const { bounds } = packed;
    const data = {
      numSplats: packed.count,
      shBands: packed.degree,
      getCenters: () => packed.centers,
      calcAabb: (box: BoundingBox) => setBox(box, bounds),
    };
    super(device, data);
    this.degree = packed.degree;
    this.moves = motion !== null;
    this.windows = Boolean(motion?.followers.windows);
    const format = splatFormat(device, packed.degree, motion?.followers ?? null);
    (this as unknown as { _format: GSplatFormat })._format = format;
    this.streams.init(format, packed.count);
    this.upload("splatColor", packed.color);
    this.upload("transformA", packed.transformA);
    this.upload("transformB", packed.transformB);
    for (const [i, texels] of packed.sh.entries()) this.upload(SH_STREAMS[i]!, texels);
    if (motion) this.uploadMotion(motion);
  }

  private uploadMotion({ followers, poses }: Motion): void {
    const { count, nodes, weights, windows } = followers;
    const texels = new Uint32Array(4 * count);
    for (let i = 0; i < count; i++) {
      const at = FOLLOWED * i;
      texels[4 * i] = nodes[at]! | (nodes[at + 1]! << 16);
      texels[4 * i + 1] = nodes[at + 2]! | (nodes[at + 3]! << 16);
      for (let j = 0; j < FOLLOWED; j++) texels[4 * i + 2]! |= weights[at + j]! << (8 * j);
    }
    this.upload("motionNodes", texels);
    if (windows) this.upload("motionWindow", windows);
    (this.parameters as Map<string, unknown>).set("motionPoses", poses);
  }

  private upload(name: string, texels: Uint16Array | Uint32Array | Float32Array): void {
    const texture = this.streams.getTexture(name) as Texture;
    (texture.lock() as typeof texels).set(texels);
    texture.unlock();
  }

  /** Its splats are elsewhere now: the engine sorts them anew. */
  moveTo({ centers, bounds }: Places): void {
    this.centers = centers;
    this.enclose(bounds);
  }

  /** The box around its splats is another one now. */
  enclose(bounds: Corner): void {
    setBox(this.aabb, bounds);
    this.centersVersion++;
  }

  override configureMaterialDefines(defines: Map<string, string>): void {
    defines.set("SH_BANDS", String(this.degree));
    if (this.windows) defines.set("MOTION_WINDOWS", "");
  }
}

function setBox(box: BoundingBox, bounds: Corner): void {
  box.setMinMax(
    new Vec3(bounds[0], bounds[1], bounds[2]),
    new Vec3(bounds[3], bounds[4], bounds[5]),
  );
}

function splatFormat(
  device: GraphicsDevice,
  degree: number,
  followers: Followers | null,
): GSplatFormat {
  const streams: { name: string; format: number }[] = [
    { name: "splatColor", format: PIXELFORMAT_RGBA16F },
    { name: "transformA", format: PIXELFORMAT_RGBA32U },
    { name: "transformB", format: PIXELFORMAT_RGBA16F },
    ...shTexels(degree).map((channels, i) => ({
      name: SH_STREAMS[i]!,
      format: channels === 1 ? PIXELFORMAT_R32U : PIXELFORMAT_RGBA32U,
    })),
  ];
  if (followers) streams.push({ name: "motionNodes", format: PIXELFORMAT_RGBA32U });
  if (followers?.windows) streams.push({ name: "motionWindow", format: PIXELFORMAT_RGBA32F });
  const still = '#include "gsplatUncompressedVS"';
  return new GSplatFormat(device, streams, {
    readGLSL: followers ? READ_GLSL : still,
    readWGSL: followers ? READ_WGSL : still,
  });
}
