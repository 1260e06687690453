import {
  ADDRESS_CLAMP_TO_EDGE,
  type AppBase,
  type BoundingBox,
  CULLFACE_NONE,
  type GraphicsDevice,
  GraphNode,
  LAYERID_WORLD,
  type Layer,
  Mesh,
  MeshInstance,
  SEMANTIC_POSITION,
  SEMANTIC_TEXCOORD0,
  ShaderMaterial,
  Texture,
} from "playcanvas";
import type { PinholeCamera } from "../camera/projection";
import { lastLevel, type MeshData, meshBytes, type Texels } from "../decode/mesh/mesh";
import type { DrawableStatistics } from "./drawable";
import { EngineDrawable } from "./engine-drawable";
import { FRAGMENT_GLSL, FRAGMENT_WGSL, VERTEX_GLSL, VERTEX_WGSL } from "./mesh-shaders";

/** Of the farthest depth: what is nearer is not drawn. */
const NEAR_SHARE = 1e-3;

/** Triangles with a texture, shown as its colours from both sides, which the engine draws. */
export class MeshView extends EngineDrawable {
  override readonly solid = true;
  private readonly layer: Layer;
  private readonly instance: MeshInstance;
  private readonly material: ShaderMaterial;
  private readonly texture: Texture;
  private readonly box: BoundingBox;
  private readonly figures: DrawableStatistics;
  readonly bytes: number;

  constructor(app: AppBase, device: GraphicsDevice, data: MeshData) {
    super();
    this.texture = textureOf(device, data.texture);
    this.material = materialOf(this.texture, lastLevel(data.texture));
    const mesh = new Mesh(device);
    mesh.setPositions(data.positions);
    mesh.setUvs(0, data.uv);
    mesh.setIndices(data.triangles);
    mesh.update();
    this.box = mesh.aabb;
    this.instance = new MeshInstance(mesh, this.material, new GraphNode("mesh"));
    this.instance.cull = false;
    this.layer = app.scene.layers.getLayerById(LAYERID_WORLD)!;
    this.layer.addMeshInstances([this.instance], true);
    this.bytes = 2 * meshBytes(data);
    const { width, height } = data.texture;
    const triangles = data.triangles.length / 3;
    const figures = { triangles, vertices: data.vertices, width, height };
    this.figures = { splats: 0, field: null, last: null, mesh: figures };
    this.redraw();
  }

  statistics(): DrawableStatistics {
    return this.figures;
  }

  setShown(shown: boolean): void {
    this.instance.visible = shown;
  }

  /** The box' nearest and farthest corner. */
  override depthsIn({ c2w }: PinholeCamera): readonly [number, number] {
    const { center, halfExtents } = this.box;
    const ahead = [-c2w[2]!, -c2w[6]!, -c2w[10]!] as const;
    const middle =
      ahead[0] * (center.x - c2w[3]!) +
      ahead[1] * (center.y - c2w[7]!) +
      ahead[2] * (center.z - c2w[11]!);
    const reach =
      Math.abs(ahead[0]) * halfExtents.x +
      Math.abs(ahead[1]) * halfExtents.y +
      Math.abs(ahead[2]) * halfExtents.z;
    const far = Math.max(middle + 1.01 * reach, 1e-3 * reach, 1e-9);
    return [Math.max(middle - 1.01 * reach, NEAR_SHARE * far), far];
  }

  destroy(): void {
    this.layer.removeMeshInstances([this.instance], true);
    this.instance.destroy();
    this.material.destroy();
    this.texture.destroy();
  }
}

function textureOf(device: GraphicsDevice, { width, height, levels }: Texels): Texture {
  return new Texture(device, {
    name: "meshTexture",
    width,
    height,
    levels,
    addressU: ADDRESS_CLAMP_TO_EDGE,
    addressV: ADDRESS_CLAMP_TO_EDGE,
  });
}

function materialOf(texture: Texture, last: number): ShaderMaterial {
  const material = new ShaderMaterial({
    uniqueName: "scene4d-mesh",
    attributes: { vertex_position: SEMANTIC_POSITION, vertex_texCoord0: SEMANTIC_TEXCOORD0 },
    vertexGLSL: VERTEX_GLSL,
    fragmentGLSL: FRAGMENT_GLSL,
    vertexWGSL: VERTEX_WGSL,
    fragmentWGSL: FRAGMENT_WGSL,
  });
  material.cull = CULLFACE_NONE;
  material.setParameter("meshTexture", texture);
  material.setParameter("lastLevel", last);
  material.update();
  return material;
}
