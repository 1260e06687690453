import type { PinholeCamera } from "../camera/projection";
import type { Field, FieldPlane } from "../decode/field/field";
import type { FieldRenderer, FieldTarget } from "./renderer";

/** Makes a renderer on a fresh canvas. Throws SceneError. */
export type MakeRenderer = (canvas: HTMLCanvasElement, field: Field) => FieldRenderer;

/**
 * A field on a canvas of its own, exactly over the engine's; input goes through it. A new picture
 * is begun when the one before is done, and a graphics context that was lost is made again.
 */
export class FieldView {
  private readonly canvas = document.createElement("canvas");
  private renderer: FieldRenderer | null;
  private dirty = true;

  constructor(
    under: HTMLCanvasElement,
    private readonly field: Field,
    private readonly make: MakeRenderer,
  ) {
    this.canvas.setAttribute("aria-hidden", "true");
    this.canvas.className = "field";
    this.renderer = make(this.canvas, field);
    under.after(this.canvas);
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.renderer = null;
    });
    this.canvas.addEventListener("webglcontextrestored", () => this.remake());
  }

  /** The graphics device is another one now. */
  remake(): void {
    this.renderer = this.make(this.canvas, this.field);
    this.dirty = true;
  }

  get bytes(): number {
    return this.renderer?.bytes ?? 0;
  }

  /** Of the last picture. */
  get milliseconds(): number {
    return this.renderer?.milliseconds ?? 0;
  }

  add(planes: readonly FieldPlane[]): void {
    for (const { index, values } of planes) this.field.planes[index] = values;
    this.renderer?.setPlanes(planes);
    this.dirty = true;
  }

  redraw(): void {
    this.dirty = true;
  }

  /** Draws where something has changed and the picture before is done; whether it did. */
  update(view: PinholeCamera, target: FieldTarget): boolean {
    const { renderer } = this;
    if (!renderer?.idle() || !this.dirty || !renderer.draw(view, target)) return false;
    this.dirty = false;
    return true;
  }

  read(view: PinholeCamera, target: FieldTarget): Promise<Uint8Array> {
    if (!this.renderer) return Promise.reject(new Error("the graphics context is lost"));
    return this.renderer.read(view, target);
  }

  destroy(): void {
    this.canvas.remove();
    this.renderer?.destroy();
    this.renderer = null;
  }
}
