import type { Mode } from "../camera/rig";
import type { V3 } from "../camera/vec";
import { fidelity } from "../compare";
import { canImmerse, type Immersion, immersions } from "../engine/immersion";
import type { Failure, Player } from "../player";
import { isHandheld } from "../quality";
import { formatView, type Settings } from "../settings";
import { h, iconButton } from "./dom";
import { failureMessage, welcomeMessage } from "./message";
import { Notes } from "./notes";
import { distanceText, Overlay } from "./overlay";
import { helpDialog, StatsPanel, settingsPanel } from "./panels";
import { savePicture } from "./screenshot";
import { joystick } from "./stick";
import { strings } from "./strings";

const TOAST_MS = 2600;
const MODES: Mode[] = ["orbit", "fly", "walk"];

/** Everything on the page around the canvas. */
export class Page {
  private readonly overlay: Overlay;
  private readonly poster = h("img", { id: "poster", alt: "", hidden: true });
  private readonly help = helpDialog();
  private readonly stats: StatsPanel;
  private settings: HTMLElement;
  private readonly stick: HTMLElement;
  private readonly toast = h("div", { id: "toast", class: "panel", role: "status", hidden: true });
  private readonly through = h("div", { id: "through", class: "panel", hidden: true });
  private readonly loadingText = h("span", {}, strings.loading);
  private readonly bar = h("div");
  private readonly loading: HTMLElement;
  private readonly toolbar = h("nav", {
    id: "toolbar",
    class: "panel",
    "aria-label": strings.controls,
  });
  private readonly modeButtons = new Map<Mode, HTMLButtonElement>();
  private readonly picker = h("input", {
    type: "file",
    accept: ".s4d,.ply,.spz,.sog,.glb",
    hidden: true,
  });
  private notes: Notes | null = null;
  private message: HTMLElement | null = null;
  private measuring: V3[] | null = null;
  private toastTimer = 0;
  private camerasButton!: HTMLButtonElement;
  private measureButton!: HTMLButtonElement;
  private settingsButton!: HTMLButtonElement;

  constructor(
    private readonly root: HTMLElement,
    private readonly player: Player,
  ) {
    const overlayCanvas = h("canvas", { id: "overlay", "aria-hidden": "true" });
    this.overlay = new Overlay(overlayCanvas);
    this.stats = new StatsPanel(player);
    this.stick = joystick(player.held);
    this.settings = this.makeSettings();
    this.settings.hidden = true;
    this.loading = h(
      "div",
      {
        id: "loading",
        class: "panel",
        role: "progressbar",
        "aria-label": strings.loading,
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        hidden: true,
      },
      this.loadingText,
      h("div", { class: "bar" }, this.bar),
    );
    this.buildToolbar();
    root.append(overlayCanvas, this.poster);
    if (player.settings.ui) {
      root.append(this.stats.element, this.settings, this.stick, this.toolbar, this.through);
    }
    root.append(this.loading, this.toast, this.picker, this.help);
    this.stats.show(player.settings.stats && player.settings.ui);
    this.showCameras(player.settings.cameras);
    this.listen();
    this.takeFiles();
    setTheme(player.settings.theme);
    this.showMode(player.rig.mode);
  }

  private buildToolbar(): void {
    const { player } = this;
    const group = h("div", { role: "radiogroup", "aria-label": strings.orbit });
    for (const [i, mode] of MODES.entries()) {
      const button = iconButton(mode, strings[mode], () => player.setMode(mode), String(i + 1));
      button.setAttribute("role", "radio");
      this.modeButtons.set(mode, button);
      group.append(button);
    }
    this.camerasButton = iconButton("cameras", strings.cameras, () => this.toggleCameras(), "C");
    this.measureButton = iconButton("measure", strings.measure, () => this.toggleMeasure(), "M");
    this.settingsButton = iconButton("settings", strings.settings, () => this.toggleSettings());
    const gap = () => h("span", { class: "gap", "aria-hidden": "true" });
    this.toolbar.append(
      group,
      gap(),
      iconButton("frame", strings.frame, () => player.frameScene(), "F"),
      wide(iconButton("reset", strings.reset, () => player.reset(), "R")),
      this.camerasButton,
      wide(this.measureButton),
      gap(),
      wide(iconButton("picture", strings.screenshot, () => void this.takePicture(), "P")),
      iconButton("share", strings.share, () => void this.share()),
      this.settingsButton,
      iconButton("help", strings.help, () => this.help.showModal(), "H"),
    );
    if (document.fullscreenEnabled) {
      this.toolbar.append(
        iconButton("fullscreen", strings.fullscreen, () => void toggleFullscreen(), "Enter"),
      );
    }
    void immersions().then((kinds) => this.offerImmersion(kinds));
  }

  /** A button where a headset is there: phones show the room behind, others what they can. */
  private offerImmersion(kinds: readonly Immersion[]): void {
    const kind = kinds.includes("ar") && isHandheld() ? "ar" : kinds[0];
    if (!kind) return;
    const { player } = this;
    const button = iconButton("immersion", strings[kind], () => void this.immerse(kind));
    button.id = "immersion";
    const offer = () => {
      // Fields of light are drawn beside the engine, not by it.
      button.hidden = !player.started || player.stage.hasField;
    };
    player.on("firstFrame", offer);
    player.on("opening", offer);
    offer();
    this.toolbar.append(button);
  }

  /** Begins, or ends what has begun. */
  private async immerse(kind: Immersion): Promise<void> {
    const { stage } = this.player;
    if (stage.immersed) {
      stage.surface();
      return;
    }
    if (!canImmerse(stage.backend)) {
      const url = new URL(this.link());
      url.searchParams.set("backend", "webgl2");
      location.assign(url);
      return;
    }
    try {
      await this.player.immerse(kind);
    } catch (error) {
      console.warn("scene4d: WebXR:", error);
      this.tell(strings.immersionFailed);
    }
  }

  private listen(): void {
    const { player } = this;
    player.on("opening", () => {
      this.say(null);
      this.loading.hidden = false;
      this.progress(0, strings.loading);
      this.stopMeasuring();
    });
    player.on("info", (info) => {
      this.setNotes();
      this.overlay.unit = info.unit ?? 1;
    });
    player.on("poster", (url) => this.showPoster(url));
    player.on("progress", (share, phase) =>
      this.progress(share, phase === "download" ? strings.loading : strings.decoding),
    );
    player.on("firstFrame", () => this.poster.classList.add("gone"));
    player.on("done", () => {
      this.loading.hidden = true;
      this.poster.hidden = true;
    });
    player.on("failed", (failure) => this.fail(failure));
    player.on("mode", (mode) => this.showMode(mode));
    player.on("camera", (index) => this.showThrough(index));
    player.on("context", (lost) => (lost ? this.tell(strings.lost, true) : this.tell(null)));
    player.on("frame", (camera) => {
      this.overlay.radius = player.rig.extent.radius;
      this.overlay.cameras = player.captureCameras;
      this.overlay.frame = player.pictureFrame();
      this.overlay.selected = player.lookingThrough;
      this.overlay.measured = this.measuring;
      this.overlay.draw(camera);
      this.notes?.draw(camera);
    });
    player.canvas.addEventListener("pointerdown", () => this.toggleSettings(false));
    window.addEventListener("keydown", (event) => this.onKey(event));
    document.addEventListener("fullscreenchange", () => player.stage.redraw());
  }

  private onKey(event: KeyboardEvent): void {
    const typing =
      event.target instanceof HTMLElement &&
      event.target.closest("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || this.message) return;
    const { player } = this;
    const cameras = player.captureCameras.length;
    const actions: Record<string, () => void> = {
      "1": () => player.setMode("orbit"),
      "2": () => player.setMode("fly"),
      "3": () => player.setMode("walk"),
      f: () => player.frameScene(),
      r: () => player.reset(),
      c: () => this.toggleCameras(),
      m: () => this.toggleMeasure(),
      p: () => void this.takePicture(),
      i: () => this.toggleStats(),
      h: () => this.help.showModal(),
      "?": () => this.help.showModal(),
      "[": () => this.stepCamera(-1, cameras),
      "]": () => this.stepCamera(1, cameras),
      escape: () => this.escape(),
      enter: () =>
        void (event.target === document.body || event.target === player.canvas
          ? toggleFullscreen()
          : null),
    };
    const action = actions[event.key.toLowerCase()];
    if (!action || (!player.settings.ui && event.key !== "Escape")) return;
    action();
  }

  private escape(): void {
    this.toggleSettings(false);
    this.stopMeasuring();
    this.notes?.close();
    this.player.lookThrough(null);
  }

  private showMode(mode: Mode): void {
    for (const [name, button] of this.modeButtons) {
      button.setAttribute("aria-checked", String(name === mode));
      button.setAttribute("aria-pressed", String(name === mode));
    }
    this.stick.hidden = mode === "orbit" || !isHandheld();
  }

  private progress(share: number, text: string): void {
    const percent = Math.round(100 * Math.min(1, share));
    this.bar.style.width = `${percent}%`;
    this.loadingText.textContent = `${text} ${percent}%`;
    this.loading.setAttribute("aria-valuenow", String(percent));
  }

  private showPoster(url: string | null): void {
    this.poster.hidden = url === null;
    this.poster.classList.remove("gone");
    if (url) this.poster.src = url;
  }

  private setNotes(): void {
    this.notes?.element.remove();
    const all = [...this.player.settings.annotations, ...(this.player.info?.annotations ?? [])];
    this.notes = all.length > 0 ? new Notes(this.player, all) : null;
    if (this.notes && this.player.settings.ui) this.root.append(this.notes.element);
  }

  /** Flies to the next (1) or previous (-1) note. */
  nextNote(step: number): void {
    this.notes?.next(step);
  }

  private makeSettings(): HTMLElement {
    return settingsPanel(this.player, {
      theme: (value) => {
        this.player.settings.theme = value as Settings["theme"];
        setTheme(value);
      },
      stats: (on) => {
        this.player.settings.stats = on;
        this.stats.show(on);
      },
      cameras: (on) => this.showCameras(on),
      fidelity: () => void this.showFidelity(),
      close: () => this.toggleSettings(false),
    });
  }

  /** How near the picture is to the trainer's, at the views whose pictures the bundle holds. */
  private async showFidelity(): Promise<void> {
    this.toggleSettings(false);
    this.tell(strings.comparing, true);
    const results = await fidelity(this.player);
    const values = results.map((r) => r.psnr);
    const [low, high] = [Math.min(...values), Math.max(...values)].map((v) => v.toFixed(1));
    this.tell(`${low} - ${high} dB (${values.length})`);
  }

  private toggleSettings(on = this.settings.hidden): void {
    if (on) {
      const fresh = this.makeSettings();
      this.settings.replaceWith(fresh);
      this.settings = fresh;
    }
    this.settings.hidden = !on;
    this.settingsButton.setAttribute("aria-expanded", String(on));
  }

  private toggleStats(): void {
    this.player.settings.stats = !this.player.settings.stats;
    this.stats.show(this.player.settings.stats);
  }

  private showCameras(on: boolean): void {
    this.overlay.showCameras = on;
    this.player.settings.cameras = on;
    this.camerasButton.setAttribute("aria-pressed", String(on));
    this.player.refresh();
  }

  private toggleCameras(): void {
    if (this.player.captureCameras.length === 0) {
      this.tell(strings.noCameras);
      return;
    }
    this.showCameras(!this.overlay.showCameras);
  }

  private stepCamera(step: number, count: number): void {
    if (count === 0) return;
    const current = this.player.lookingThrough;
    this.player.lookThrough(current === null ? 0 : (current + step + count) % count);
  }

  private showThrough(index: number | null): void {
    this.through.hidden = index === null;
    if (index === null) return;
    const { captureCameras } = this.player;
    const count = captureCameras.length;
    this.through.replaceChildren(
      h("span", {}, `${strings.lookThrough} ${captureCameras[index]!.name || index + 1}`),
      iconButton("previous", strings.previous, () => this.stepCamera(-1, count), "["),
      iconButton("next", strings.next, () => this.stepCamera(1, count), "]"),
      iconButton("close", strings.close, () => this.player.lookThrough(null), "Esc"),
    );
  }

  private toggleMeasure(): void {
    if (this.measuring) {
      this.stopMeasuring();
      return;
    }
    this.measuring = [];
    this.measureButton.setAttribute("aria-pressed", "true");
    this.tell(strings.measureStart);
    this.player.onPoint = (point) => {
      if (!this.measuring || this.measuring.length >= 2) this.measuring = [];
      this.measuring.push(point);
      if (this.measuring.length === 2)
        this.tell(distanceText(this.measuring[0]!, this.measuring[1]!, this.overlay.unit));
      this.player.refresh();
    };
  }

  private stopMeasuring(): void {
    this.measuring = null;
    this.player.onPoint = null;
    this.measureButton.setAttribute("aria-pressed", "false");
    this.player.refresh();
  }

  /** The address of this page with the present view. */
  link(): string {
    const url = new URL(location.href);
    url.searchParams.set("view", formatView(this.player.rig.view()));
    if (this.player.rig.mode !== "orbit") url.searchParams.set("mode", this.player.rig.mode);
    else url.searchParams.delete("mode");
    // Commas and slashes may stand as they are, and people read them.
    return url.href.replaceAll("%2C", ",").replaceAll("%2F", "/");
  }

  private async share(): Promise<void> {
    const link = this.link();
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      this.tell(strings.copied);
    } catch {
      // Clipboards need a secure page; the address bar holds the link, too.
      window.prompt(strings.copyByHand, link);
    }
  }

  private async takePicture(): Promise<void> {
    await savePicture(this.player);
    this.tell(strings.pictureSaved);
  }

  /** A line that goes away by itself, or stays. */
  tell(text: string | null, stay = false): void {
    window.clearTimeout(this.toastTimer);
    this.toast.hidden = text === null;
    this.toast.textContent = text;
    if (!stay)
      this.toastTimer = window.setTimeout(() => {
        this.toast.hidden = true;
      }, TOAST_MS);
  }

  private say(message: HTMLElement | null): void {
    this.message?.remove();
    this.message = message;
    if (!message) return;
    this.root.append(message);
    message.querySelector("button")?.focus();
  }

  fail(failure: Failure): void {
    this.loading.hidden = true;
    console.error(`scene4d: ${failure.kind}: ${failure.where}: ${failure.detail}`);
    this.say(
      failureMessage(failure, {
        retry: () => this.player.retry(),
        choose: this.player.settings.ui ? () => this.picker.click() : null,
      }),
    );
  }

  welcome(): void {
    this.say(welcomeMessage(() => this.picker.click()));
  }

  private takeFiles(): void {
    const take = async (file: File | undefined) => {
      if (file) this.player.open({ bytes: await file.arrayBuffer(), name: file.name });
    };
    this.picker.addEventListener("change", () => void take(this.picker.files?.[0]));
    const over = (on: boolean) => document.body.classList.toggle("dropping", on);
    window.addEventListener("dragover", (event) => {
      event.preventDefault();
      over(true);
    });
    window.addEventListener("dragleave", () => over(false));
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      over(false);
      void take(event.dataTransfer?.files[0]);
    });
    this.overlayClicks();
  }

  /** A click on a frustum looks through it. */
  private overlayClicks(): void {
    this.player.canvas.addEventListener("click", (event) => {
      const index = this.overlay.cameraAt(event.offsetX, event.offsetY);
      if (index !== null) this.player.lookThrough(index);
    });
  }
}

/** Left out where the screen is narrow. */
function wide(button: HTMLButtonElement): HTMLButtonElement {
  button.classList.add("wide");
  return button;
}

function setTheme(value: string): void {
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}

async function toggleFullscreen(): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen();
}
