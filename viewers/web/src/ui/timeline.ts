import type { Player } from "../player";
import { h, icon, iconButton, icons } from "./dom";
import { strings } from "./strings";

/** Seconds of the scene in a second, from which one chooses. */
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

/** A row above the toolbar for scenes that move; not there for others. */
export class Timeline {
  readonly element = h("div", { id: "timeline", class: "panel", hidden: true });
  private readonly button: HTMLButtonElement;
  private readonly loop: HTMLButtonElement;
  private readonly speed = h("button", { type: "button", class: "icon speed" });
  private readonly slider = h("input", {
    type: "range",
    "aria-label": strings.timeline,
    step: "any",
  });
  private readonly told = h("output", {});

  constructor(private readonly player: Player) {
    this.button = iconButton("play", strings.play, () => this.toggle(), { key: "Space" });
    this.loop = iconButton("loop", strings.loop, () => this.toggleLoop(), { key: "L" });
    const back = iconButton("previous", strings.previousMoment, () => this.step(-1), { key: "," });
    const on = iconButton("next", strings.nextMoment, () => this.step(1), { key: "." });
    for (const wide of [back, on, this.loop]) wide.classList.add("wide");
    this.speed.addEventListener("click", () => this.faster(1, true));
    this.nameSpeed(player.clock.speed);
    this.slider.addEventListener("input", () => {
      // Pausing shows the time that was, here too.
      const wanted = this.slider.valueAsNumber;
      player.setPlaying(false);
      player.setTime(wanted);
    });
    this.slider.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      this.toggle();
    });
    this.element.append(this.button, back, on, this.slider, this.told, this.speed, this.loop);
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

  toggleLoop(): void {
    if (this.player.clock.range) this.player.setLoop(!this.player.clock.loop);
  }

  /** The next or the previous captured moment. */
  step(by: 1 | -1): void {
    if (this.player.clock.range) this.player.stepTime(by);
  }

  /** The next of the speeds; `round`: after the last one the first. */
  faster(by: 1 | -1, round = false): void {
    const { clock } = this.player;
    if (!clock.range) return;
    const now = SPEEDS.findLastIndex((s) => s <= clock.speed);
    const next = round ? (now + by) % SPEEDS.length : Math.min(SPEEDS.length - 1, now + by);
    this.player.setSpeed(SPEEDS[Math.max(0, next)]!);
  }

  private nameSpeed(speed: number): void {
    const text = `${speed}\u00d7`;
    if (this.speed.textContent === text) return;
    this.speed.textContent = text;
    this.speed.setAttribute("aria-label", `${strings.speed} ${text}`);
    this.speed.title = `${strings.speed} (< >)`;
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
    const waits = !this.player.stage.drawable.hasTime(clock.time);
    this.element.setAttribute("aria-busy", String(waits));
    this.slider.value = String(clock.time);
    const text = `${(clock.time - clock.range.start).toFixed(1)} s`;
    this.told.value = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.nameSpeed(clock.speed);
    this.loop.setAttribute("aria-pressed", String(clock.loop));
    const [name, label] = clock.playing
      ? (["pause", strings.pause] as const)
      : (["play", strings.play] as const);
    if (this.button.getAttribute("aria-label") === label) return;
    this.button.setAttribute("aria-label", label);
    this.button.title = `${label} (Space)`;
    this.button.replaceChildren(icon(icons[name]));
  }
}
