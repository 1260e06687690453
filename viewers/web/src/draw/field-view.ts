import type { Field, FieldPlane } from "../decode/field/field";
import type { Drawable, DrawableStatistics, Frame, Picture } from "../engine/drawable";
import type { FieldRenderer } from "./renderer";

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
export class FieldView implements Drawable {
  readonly standalone = true;
  readonly solid = false;
  private readonly canvas = document.createElement("canvas");
  private renderer: FieldRenderer | null;
  private dirty = true;
  /** What is being drawn, if anything is; captures in between have sizes of their own. */
  private begun: Omit<DoneFieldPicture, "milliseconds"> | null = null;
  /** What the last picture was, once it was done. */
  private last: DoneFieldPicture | null = null;
  private share = 1;

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

  /** Of a field: its size is 0 before the first picture. */
  statistics(): DrawableStatistics {
    const { last } = this;
    const { shape, planes } = this.field;
    const field = {
      width: last?.width ?? 0,
      height: last?.height ?? 0,
      slabs: shape.slabs.length,
      planes: planes.filter(Boolean).length,
      planesInFile: planes.length,
    };
    return { splats: 0, field, last };
  }

  add(planes: readonly FieldPlane[]): void {
    for (const { index, values } of planes) this.field.planes[index] = values;
    this.renderer?.setPlanes(planes);
    this.dirty = true;
  }

  redraw(): void {
    this.dirty = true;
  }

  setShown(shown: boolean): void {
    this.canvas.hidden = !shown;
  }

  /** Nothing in a field moves yet. */
  hasTime(): boolean {
    return true;
  }

  setTime(): boolean {
    return false;
  }

  /** A field has no splats. */
  limit(): boolean {
    return false;
  }

  setShare(share: number): void {
    this.share = share;
    this.dirty = true;
  }

  depthsIn(): null {
    return null;
  }

  boxAt(): null {
    return null;
  }

  update({ view, target }: Frame): boolean {
    const { renderer } = this;
    if (!view || !renderer?.idle()) return false;
    if (this.begun) {
      this.last = { ...this.begun, milliseconds: renderer.milliseconds };
      this.begun = null;
    }
    const { share } = this;
    if (!this.dirty || !renderer.draw(view, { ...target, share })) return false;
    const { width, height } = renderer.decoded;
    this.begun = { width, height, share };
    this.dirty = false;
    return true;
  }

  read({ view, target }: Picture): Promise<Uint8Array> {
    if (!this.renderer) return Promise.reject(new Error("the graphics context is lost"));
    return this.renderer.read(view, { ...target, share: 1 });
  }

  destroy(): void {
    this.canvas.remove();
    this.renderer?.destroy();
    this.renderer = null;
  }
}
