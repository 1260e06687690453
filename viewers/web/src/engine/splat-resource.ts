import {
  type BoundingBox,
  type GraphicsDevice,
  GSplatFormat,
  GSplatResourceBase,
  PIXELFORMAT_R32U,
  PIXELFORMAT_RGBA16F,
  PIXELFORMAT_RGBA32U,
  type Texture,
  Vec3,
} from "playcanvas";
import { type PackedSplats, shTexels } from "../decode/pack";

const SH_STREAMS = ["splatSH_1to3", "splatSH_4to7", "splatSH_8to11", "splatSH_12to15"];

/** One piece of a scene in the engine's uncompressed splat textures, which a worker has packed. */
export class SplatResource extends GSplatResourceBase {
  private readonly degree: number;

  constructor(device: GraphicsDevice, packed: PackedSplats) {
    const { bounds } = packed;
    const data = {
      numSplats: packed.count,
      shBands: packed.degree,
      getCenters: () => packed.centers,
      calcAabb: (box: BoundingBox) => {
        box.setMinMax(
          new Vec3(bounds[0], bounds[1], bounds[2]),
          new Vec3(bounds[3], bounds[4], bounds[5]),
        );
      },
    };
    super(device, data);
    this.degree = packed.degree;
    const format = splatFormat(device, packed.degree);
    (this as unknown as { _format: GSplatFormat })._format = format;
    this.streams.init(format, packed.count);
    this.upload("splatColor", packed.color);
    this.upload("transformA", packed.transformA);
    this.upload("transformB", packed.transformB);
    for (const [i, texels] of packed.sh.entries()) this.upload(SH_STREAMS[i]!, texels);
  }

  private upload(name: string, texels: Uint16Array | Uint32Array): void {
    const texture = this.streams.getTexture(name) as Texture;
    (texture.lock() as Uint16Array | Uint32Array).set(texels);
    texture.unlock();
  }

  override configureMaterialDefines(defines: Map<string, string>): void {
    defines.set("SH_BANDS", String(this.degree));
  }
}

function splatFormat(device: GraphicsDevice, degree: number): GSplatFormat {
  const streams = [
    { name: "splatColor", format: PIXELFORMAT_RGBA16F },
    { name: "transformA", format: PIXELFORMAT_RGBA32U },
    { name: "transformB", format: PIXELFORMAT_RGBA16F },
    ...shTexels(degree).map((channels, i) => ({
      name: SH_STREAMS[i]!,
      format: channels === 1 ? PIXELFORMAT_R32U : PIXELFORMAT_RGBA32U,
    })),
  ];
  return new GSplatFormat(device, streams, {
    readGLSL: '#include "gsplatUncompressedVS"',
    readWGSL: '#include "gsplatUncompressedVS"',
  });
}
