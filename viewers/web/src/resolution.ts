import type { Stage } from "./engine/stage";
import { type FieldGovernor, type Quality, qualityLevel, ResolutionGovernor } from "./quality";

/** How fine the picture is: the quality that was chosen, and less of it while movement is jerky. */
export class Resolution {
  quality: Quality;
  private readonly governor = new ResolutionGovernor();

  /** `resize`: the canvas has another number of pixels. */
  constructor(
    level: number | null,
    private readonly stage: Stage,
    private readonly resize: () => void,
  ) {
    this.quality = qualityLevel(level);
  }

  choose(level: number): void {
    this.quality = qualityLevel(level);
    this.governor.reset();
  }

  /** Canvas pixels per CSS pixel. */
  get pixelRatio(): number {
    return this.quality.pixelRatio(window.devicePixelRatio) * this.governor.scale;
  }

  /** Less resolution where movement is jerky: of the canvas, or of a field's own picture. */
  moving(dt: number, fieldGovernor: FieldGovernor): void {
    const { drawable } = this.stage;
    const { last } = drawable.statistics();
    if (!drawable.standalone && this.governor.slow(dt)) this.resize();
    if (last && fieldGovernor.move(last.milliseconds / 1000, last.share))
      drawable.setShare(fieldGovernor.scale);
  }

  /** Standing still: the full resolution comes back. */
  resting(fieldGovernor: FieldGovernor): void {
    if (this.governor.rest()) this.resize();
    if (fieldGovernor.rest()) this.stage.drawable.setShare(fieldGovernor.scale);
  }
}
