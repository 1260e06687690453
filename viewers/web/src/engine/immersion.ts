import {
  type AppBase,
  Color,
  Entity,
  Mat4,
  Quat,
  Vec3,
  XRSPACE_LOCAL,
  XRTYPE_AR,
  XRTYPE_VR,
  type XrManager,
} from "playcanvas";
import { type Stand, standMatrix } from "../camera/stand";
import { add, cross, dot, normalize, scale, sub, type V3 } from "../camera/vec";

/** In a headset, or with the room behind the scene. */
export type Immersion = "vr" | "ar";

/** What the browser and the devices at it can show; none where there is no WebXR. */
export async function immersions(): Promise<Immersion[]> {
  const { xr } = navigator as { xr?: { isSessionSupported(mode: string): Promise<boolean> } };
  if (!xr) return [];
  const able = async (kind: Immersion) => {
    try {
      return await xr.isSessionSupported(`immersive-${kind}`);
    } catch {
      return false; // a frame that may not ask
    }
  };
  const [vr, ar] = await Promise.all([able("vr"), able("ar")]);
  return [...(vr ? ["vr" as const] : []), ...(ar ? ["ar" as const] : [])];
}

/** Whether what this back end draws can go into a headset: of WebGPU few browsers can. */
export function canImmerse(backend: "webgpu" | "webgl2"): boolean {
  return backend === "webgl2" || "XRGPUBinding" in globalThis;
}

/** One unit of the scene is one metre of the room. The camera hangs on a stand, which sticks move. */
export class Headset {
  /** Whether it shows the scene. The engine's own flag is still set while it tells of the end. */
  active = false;
  private readonly stand: Entity;
  private speed = 1;
  private up: V3 = [0, 1, 0];

  constructor(
    private readonly app: AppBase,
    private readonly camera: Entity,
    private readonly changed: (on: boolean) => void,
  ) {
    this.stand = new Entity("stand", app);
    app.root.addChild(this.stand);
    this.stand.addChild(camera);
    this.manager.on("start", () => this.became(true));
    this.manager.on("end", () => this.became(false));
  }

  private get manager(): XrManager {
    return this.app.xr!;
  }

  /** Begins; must be called from a click. Rejects where the browser or the person declines. */
  start(kind: Immersion, stand: Stand): Promise<void> {
    const m = standMatrix(stand);
    const matrix = new Mat4();
    for (let i = 0; i < 16; i++) matrix.data[4 * (i % 4) + Math.floor(i / 4)] = m[i]!;
    return new Promise((resolve, reject) => {
      const callback = (error: Error | null) => {
        if (error) {
          reject(error);
          return;
        }
        this.speed = stand.speed;
        this.up = stand.up;
        this.stand.setPosition(matrix.getTranslation(new Vec3()));
        this.stand.setRotation(new Quat().setFromMat4(matrix));
        // The room shows where nothing is drawn.
        if (kind === "ar") this.camera.camera!.clearColor = new Color(0, 0, 0, 0);
        resolve();
      };
      const type = kind === "vr" ? XRTYPE_VR : XRTYPE_AR;
      this.camera.camera!.startXr(type, XRSPACE_LOCAL, { callback });
    });
  }

  end(): void {
    if (this.active) this.manager.end();
  }

  /** Moves the stand by what the controllers' sticks say; level, and where the head looks. */
  update(dt: number): void {
    let [right, ahead] = [0, 0];
    for (const { gamepad } of this.manager.input.inputSources) {
      const [x = 0, y = 0] = gamepad?.axes.slice(2) ?? [];
      if (Math.abs(x) > DEAD) right += x;
      if (Math.abs(y) > DEAD) ahead -= y;
    }
    if (right === 0 && ahead === 0) return;
    const { forward } = this.camera;
    const level = (v: V3): V3 => sub(v, scale(this.up, dot(v, this.up)));
    const front = normalize(level([forward.x, forward.y, forward.z]));
    const way = add(scale(front, ahead), scale(cross(front, this.up), right));
    const step = scale(way, this.speed * dt);
    this.stand.translate(step[0], step[1], step[2]);
  }

  private became(active: boolean): void {
    this.active = active;
    if (!active) {
      this.stand.setPosition(0, 0, 0);
      this.stand.setRotation(new Quat());
    }
    this.changed(active);
  }
}

/** Sticks rest near zero, not at it. */
const DEAD = 0.15;
