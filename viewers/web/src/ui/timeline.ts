import type { Player } from "../player";
import { h, icon, iconButton, icons } from "./dom";
import { strings } from "./strings";

/** A row above the toolbar for scenes that move; not there for others. */
export class Timeline {
  readonly element = h("div", { id: "timeline", class: "panel", hidden: true });
  private readonly button: HTMLButtonElement;
  private readonly slider = h("input", {
    type: "range",
    "aria-label": strings.timeline,
    step: "any",
  });
  private readonly told = h("output", {});

  constructor(private readonly player: Player) {
    this.button = iconButton("play", strings.play, () => this.toggle(), { key: "Space" });
    this.slider.addEventListener("input", () => {
      player.setPlaying(false);
      player.setTime(this.slider.valueAsNumber);
    });
    this.element.append(this.button, this.slider, this.told);
    player.on("info", () => this.adopt());
    player.on("scene", () => this.adopt());
    player.on("time", () => this.show());
  }

  /** Whether there was something to play. */
  toggle(): boolean {
    const { clock } = this.player;
    if (!clock.range) return false;
    this.player.setPlaying(!clock.playing);
    return true;
  }

  private adopt(): void {
    const { range } = this.player.clock;
    this.element.hidden = range === null;
    if (!range) return;
    this.slider.min = String(range.start);
    this.slider.max = String(range.end);
    this.show();
  }

  private show(): void {
    const { clock } = this.player;
    if (!clock.range) return;
    this.slider.value = String(clock.time);
    const text = `${(clock.time - clock.range.start).toFixed(1)} s`;
    this.told.value = text;
    this.slider.setAttribute("aria-valuetext", text);
    const [name, label] = clock.playing
      ? (["pause", strings.pause] as const)
      : (["play", strings.play] as const);
    if (this.button.getAttribute("aria-label") === label) return;
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.replaceChildren(icon(icons[name]));
  }
}
