import { type PinholeCamera, project } from "../camera/projection";
import { length, sub, type V3 } from "../camera/vec";
import type { CaptureCamera } from "../decode/protocol";
import { strings } from "./strings";

type Point = { x: number; y: number };

/** Lines over the picture: frusta of the training cameras, the measured distance, a frame. */
export class Overlay {
  cameras: readonly CaptureCamera[] = [];
  showCameras = false;
  selected: number | null = null;
  frame: { x: number; y: number; width: number; height: number } | null = null;
  measured: V3[] | null = null;
  /** Scene radius: frusta are drawn at a share of it. */
  radius = 1;
  /** Length of the scene's unit in the capture's. */
  unit = 1;
  private readonly context: CanvasRenderingContext2D;
  private apexes: (Point | null)[] = [];

  constructor(readonly canvas: HTMLCanvasElement) {
    this.context = canvas.getContext("2d")!;
  }

  /** Draws for a camera given in CSS pixels. */
  draw(camera: PinholeCamera): void {
    const ratio = window.devicePixelRatio;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.context.scale(ratio, ratio);
    if (this.showCameras) this.drawFrusta(camera);
    if (this.frame) this.drawFrame(this.frame);
    if (this.measured) this.drawMeasure(camera, this.measured);
  }

  private stroke(color: string, width: number): void {
    this.context.strokeStyle = color;
    this.context.lineWidth = width;
  }

  private line(a: Point | null, b: Point | null): void {
    if (!a || !b) return;
    this.context.moveTo(a.x, a.y);
    this.context.lineTo(b.x, b.y);
  }

  private drawFrusta(camera: PinholeCamera): void {
    const size = this.radius * 0.12;
    this.apexes = this.cameras.map((c) => project(camera, [c.c2w[3]!, c.c2w[7]!, c.c2w[11]!]));
    for (const [i, c] of this.cameras.entries()) {
      if (i === this.selected && this.frame) continue;
      const eye = [3, 7, 11].map((k) => camera.c2w[k]! - c.c2w[k]!) as V3;
      // The one we stand in would be a frame around the picture.
      if (length(eye) < size) continue;
      const apex = this.apexes[i]!;
      const corners = cornersOf(c, size).map((p) => project(camera, p));
      this.context.beginPath();
      for (let k = 0; k < 4; k++) {
        this.line(apex, corners[k]!);
        this.line(corners[k]!, corners[(k + 1) % 4]!);
      }
      this.stroke("rgba(0,0,0,0.45)", 3);
      this.context.stroke();
      this.stroke(i === this.selected ? "#ffd24a" : "#7db4ff", 1.3);
      this.context.stroke();
    }
  }

  private drawFrame(frame: { x: number; y: number; width: number; height: number }): void {
    this.context.setLineDash([6, 5]);
    this.stroke("rgba(255,255,255,0.8)", 1);
    this.context.strokeRect(frame.x + 0.5, frame.y + 0.5, frame.width - 1, frame.height - 1);
    this.context.setLineDash([]);
  }

  private drawMeasure(camera: PinholeCamera, points: V3[]): void {
    const pixels = points.map((p) => project(camera, p));
    const c = this.context;
    if (pixels.length === 2 && pixels[0] && pixels[1]) {
      c.beginPath();
      this.line(pixels[0], pixels[1]);
      this.stroke("rgba(0,0,0,0.6)", 4);
      c.stroke();
      this.stroke("#ffd24a", 2);
      c.stroke();
      const text = distanceText(points[0]!, points[1]!, this.unit);
      const at = { x: (pixels[0].x + pixels[1].x) / 2, y: (pixels[0].y + pixels[1].y) / 2 - 12 };
      c.font = "600 14px system-ui, sans-serif";
      c.textAlign = "center";
      this.stroke("rgba(0,0,0,0.8)", 4);
      c.strokeText(text, at.x, at.y);
      c.fillStyle = "#ffd24a";
      c.fillText(text, at.x, at.y);
    }
    for (const p of pixels) {
      if (!p) continue;
      c.beginPath();
      c.arc(p.x, p.y, 5, 0, 2 * Math.PI);
      c.fillStyle = "#ffd24a";
      c.fill();
      this.stroke("rgba(0,0,0,0.8)", 1.5);
      c.stroke();
    }
  }

  /** The training camera drawn at a pixel, or null. */
  cameraAt(x: number, y: number): number | null {
    if (!this.showCameras) return null;
    let best: number | null = null;
    let distance = 14;
    for (const [i, p] of this.apexes.entries()) {
      const d = p ? Math.hypot(p.x - x, p.y - y) : Number.POSITIVE_INFINITY;
      if (d < distance) [best, distance] = [i, d];
    }
    return best;
  }
}

/** The corners of a camera's picture at a depth, in the world. */
function cornersOf(c: CaptureCamera, depth: number): V3[] {
  const corners: [number, number][] = [
    [0, 0],
    [c.width, 0],
    [c.width, c.height],
    [0, c.height],
  ];
  return corners.map(([u, v]) => {
    const x = ((u - c.K[2]!) / c.K[0]!) * depth;
    const y = (-(v - c.K[5]!) / c.K[4]!) * depth;
    const m = c.c2w;
    return [0, 1, 2].map(
      (r) => m[4 * r]! * x + m[4 * r + 1]! * y - m[4 * r + 2]! * depth + m[4 * r + 3]!,
    ) as V3;
  });
}

export function distanceText(a: V3, b: V3, unit: number): string {
  return `${Number((unit * length(sub(a, b))).toPrecision(4))} ${strings.measureUnits}`;
}
