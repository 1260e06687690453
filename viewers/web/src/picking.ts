import { type PinholeCamera, rayThrough } from "./camera/projection";
import { add, scale, type V3 } from "./camera/vec";
import type { Scene } from "./scene";

/** What is picked from, and who hears of it. */
export interface PickingHost {
  readonly scene: Scene;
  readonly viewpoint: { camera(): PinholeCamera };
  /** A click has found a surface; `fly`: a double one. */
  takePoint(point: V3, fly: boolean): void;
}

/** Which surface lies under a pixel, and what clicks mean. */
export class Picking {
  /** Takes clicks that mean something else (a training camera): whether this was one. */
  onClick: ((x: number, y: number) => boolean) | null = null;
  /** The surface at the last click, while a second one may follow. */
  private clicked: Promise<V3 | null> | null = null;

  constructor(private readonly host: PickingHost) {}

  /** A second click belongs to none before. */
  forget(): void {
    this.clicked = null;
  }

  /** The surface at a CSS pixel; time in seconds; null in the void. */
  async pick(x: number, y: number, time: number): Promise<V3 | null> {
    const camera = this.host.viewpoint.camera();
    const ray = rayThrough(camera, x, y);
    const origin: V3 = [camera.c2w[3]!, camera.c2w[7]!, camera.c2w[11]!];
    const drawn = { c2w: Array.from(camera.c2w), K: Array.from(camera.K), x, y };
    const pick = { type: "pick", id: 0, origin, direction: ray, camera: drawn, time } as const;
    const answer = await this.host.scene.ask(pick);
    const distance = answer?.type === "picked" ? answer.distance : null;
    return distance === null ? null : add(origin, scale(ray, distance / Math.hypot(...ray)));
  }

  click(x: number, y: number): void {
    this.clicked = null;
    if (this.onClick?.(x, y)) return;
    const clicked = this.pick(x, y, this.host.scene.clock.time);
    this.clicked = clicked;
    void clicked.then((point) => {
      // A second click may have come first: then it flies there.
      if (point && clicked === this.clicked) this.host.takePoint(point, false);
    });
  }

  /** A second click soon after the first: to where the first one was, whatever lies there now. */
  async fly(): Promise<void> {
    const { clicked } = this;
    if (!clicked) return;
    const point = await clicked;
    if (point && clicked === this.clicked) this.host.takePoint(point, true);
  }
}
