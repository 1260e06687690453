import type { PinholeCamera } from "../camera/projection";
import type { Field, FieldPlane } from "../decode/field/field";
import type { FieldStatistics } from "../events";
import type { FieldRenderer, FieldTarget } from "./renderer";

/** Makes a renderer on a fresh canvas. Throws SceneError. */
export type MakeRenderer = (canvas: HTMLCanvasElement, field: Field) => FieldRenderer;

/** A picture that has been drawn: its pixels before they were scaled, and how long it took. */
export interface DoneFieldPicture {
  width: number;
  height: number;
  share: number;
  milliseconds: number;
}

/**
 * A field on a canvas of its own, exactly over the engine's; input goes through it. A new picture
 * is begun when the one before is done, and a graphics context that was lost is made again.
 */
export class FieldView {
  private readonly canvas = document.createElement("canvas");
  private renderer: FieldRenderer | null;
  private dirty = true;
  /** What is being drawn, if anything is; captures in between have sizes of their own. */
  private begun: Omit<DoneFieldPicture, "milliseconds"> | null = null;
  /** What the last picture was, once it was done. */
  last: DoneFieldPicture | null = null;

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
    this.begun = null;
    this.dirty = true;
  }

  get bytes(): number {
    return this.renderer?.bytes ?? 0;
  }

  statistics(): FieldStatistics {
    const { shape, planes } = this.field;
    return {
      width: this.last?.width ?? 0,
      height: this.last?.height ?? 0,
      slabs: shape.slabs.length,
      planes: planes.filter(Boolean).length,
      planesInFile: planes.length,
    };
  }

  add(planes: readonly FieldPlane[]): void {
    for (const { index, values } of planes) this.field.planes[index] = values;
    this.renderer?.setPlanes(planes);
    this.dirty = true;
  }

  redraw(): void {
    this.dirty = true;
  }

  /** Hidden while another scene is shown. */
  setShown(shown: boolean): void {
    this.canvas.hidden = !shown;
  }

  /** Draws where something has changed and the picture before is done; whether it did. */
  update(view: PinholeCamera, target: FieldTarget): boolean {
    const { renderer } = this;
    if (!renderer?.idle()) return false;
    if (this.begun) {
      this.last = { ...this.begun, milliseconds: renderer.milliseconds };
      this.begun = null;
    }
    if (!this.dirty || !renderer.draw(view, target)) return false;
    const { width, height } = renderer.decoded;
    this.begun = { width, height, share: target.share };
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
