import type { Mode } from "../camera/rig";
import type { V3 } from "../camera/vec";
import { fidelity } from "../compare";
import { canImmerse, type Immersion, immersions } from "../engine/immersion";
import type { Failure, Player } from "../player";
import { isHandheld } from "../quality";
import type { Settings } from "../settings";
import { h, iconButton, toggleFullscreen } from "./dom";
import { filePicker } from "./files";
import { Hint } from "./hint";
import { listenToKeys } from "./keys";
import { isLocalServer, linkTo } from "./link";
import { failureMessage, welcomeMessage } from "./message";
import { Notes } from "./notes";
import { distanceText, Overlay } from "./overlay";
import { helpDialog, StatsPanel, settingsPanel } from "./panels";
import { quickLook } from "./quick-look";
import { savePicture } from "./screenshot";
import { joystick } from "./stick";
import { strings } from "./strings";
import { applyTheme, backdropOf } from "./theme";
import { Timeline } from "./timeline";
import { Toolbar } from "./toolbar";

const TOAST_MS = 2600;

/** Everything on the page around the canvas. */
export class Page {
  private readonly overlay: Overlay;
  private readonly poster: HTMLImageElement;
  private readonly help = helpDialog();
  private readonly stats: StatsPanel;
  private settings: HTMLElement;
  private readonly stick: HTMLElement;
  private readonly title = h("h1", { id: "title", hidden: true });
  private readonly toast = h("div", { id: "toast", class: "panel", role: "status", hidden: true });
  private readonly through = h("div", { id: "through", class: "panel", hidden: true });
  private readonly loadingText = h("span", {}, strings.loading);
  private readonly bar = h("div");
  private readonly loading: HTMLElement;
  private readonly toolbar: Toolbar;
  private readonly timeline: Timeline;
  private readonly hint: Hint;
  /** Stacked from the bottom: bars, and over them what comes and goes. */
  private readonly bars = h("div", { id: "bars" });
  private readonly dock = h("div", { id: "dock" });
  private readonly picker: HTMLInputElement;
  private notes: Notes | null = null;
  private message: HTMLElement | null = null;
  private measuring: V3[] | null = null;
  private toastTimer = 0;

  constructor(
    private readonly root: HTMLElement,
    private readonly player: Player,
  ) {
    const overlayCanvas = h("canvas", { id: "overlay", "aria-hidden": "true" });
    this.overlay = new Overlay(overlayCanvas);
    const written = document.querySelector<HTMLImageElement>("img#poster");
    this.poster = written ?? h("img", { id: "poster", alt: "", hidden: true });
    this.stats = new StatsPanel(player);
    this.stick = joystick(player.held);
    this.settings = this.makeSettings();
    this.settings.hidden = true;
    this.toolbar = new Toolbar(this.actions());
    this.timeline = new Timeline(player);
    this.hint = new Hint(player);
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
    this.picker = filePicker((bytes, name) => player.open({ bytes, name }));
    this.assemble(overlayCanvas);
    this.stats.show(player.settings.stats && player.settings.ui);
    this.showCameras(player.settings.cameras);
    this.listen();
    this.listenToKeys();
    this.setTheme(player.settings.theme);
    this.showMode(player.rig.mode);
    this.toolbar.add(quickLook(player));
    void immersions().then((kinds) => this.offerImmersion(kinds));
  }

  private assemble(overlayCanvas: HTMLElement): void {
    const { root, dock, bars } = this;
    root.append(overlayCanvas, this.poster);
    dock.append(this.loading, this.toast);
    if (this.player.settings.ui) {
      bars.append(this.timeline.element, this.toolbar.element);
      // Over the bars, but after them for keyboards.
      dock.append(bars, this.hint.element);
      root.append(this.title, this.stats.element, this.through, this.stick, dock);
      root.append(this.toolbar.menu.element, this.settings);
      new ResizeObserver(() => this.measureBars()).observe(bars);
      this.measureBars();
    } else root.append(dock);
    root.append(this.picker, this.help);
  }

  /** Tells the player what of the window is free, and the rest of the page where the bars end. */
  private measureBars(): void {
    const { height } = this.bars.getBoundingClientRect();
    const window = this.root.getBoundingClientRect();
    const bottom = height > 0 ? window.bottom - this.bars.getBoundingClientRect().top : 0;
    this.root.style.setProperty("--bars", `${bottom}px`);
    this.player.viewpoint.setInsets({ top: 0, right: 0, bottom, left: 0 });
  }

  private actions(): ConstructorParameters<typeof Toolbar>[0] {
    const { player } = this;
    return {
      mode: (mode) => player.viewpoint.setMode(mode),
      frame: () => player.viewpoint.frameScene(),
      reset: () => player.viewpoint.reset(),
      cameras: () => this.toggleCameras(),
      measure: () => this.toggleMeasure(),
      picture: () => void this.takePicture(),
      share: () => void this.share(),
      settings: () => this.toggleSettings(),
      help: () => this.help.showModal(),
      turnUp: () => player.viewpoint.setUp(player.rig.turnedUp()),
      statistics: () => this.toggleStats(),
      fullscreen: document.fullscreenEnabled ? () => void toggleFullscreen() : null,
    };
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
      button.hidden = !player.started || player.stage.drawable.standalone;
    };
    player.on("firstFrame", offer);
    player.on("scene", offer);
    offer();
    this.toolbar.add(button);
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
    });
    player.on("scene", () => this.adopt());
    player.on("info", () => this.adopt());
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
    player.on("background", (rgb) => {
      const css = rgb.map((x) => Math.round(255 * x)).join(" ");
      document.documentElement.style.setProperty("--backdrop", `rgb(${css})`);
    });
    player.on("passed", () => this.tell(strings.hintEmbedded));
    player.on("context", (lost) => (lost ? this.tell(strings.lost, true) : this.tell(null)));
    player.on("frame", (camera) => {
      this.overlay.radius = player.rig.extent.radius;
      this.overlay.cameras = player.captureCameras;
      this.overlay.frame = player.viewpoint.pictureFrame();
      this.overlay.selected = player.viewpoint.lookingThrough;
      this.overlay.measured = this.measuring;
      this.overlay.draw(camera);
      this.notes?.draw(camera);
    });
    player.onClick = (x, y) => this.pressCamera(x, y);
    player.canvas.addEventListener("pointerdown", () => this.toggleSettings(false));
    document.addEventListener("fullscreenchange", () => player.stage.redraw());
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.setTheme(player.settings.theme));
  }

  /** What stands on the page is of the scene that is shown. */
  private adopt(): void {
    const { scene, settings } = this.player;
    this.stopMeasuring();
    this.overlay.unit = scene.info?.unit ?? 1;
    this.title.textContent = scene.title;
    this.title.hidden = !scene.title;
    document.title = scene.title ?? "scene4d";
    this.notes?.element.remove();
    this.notes?.card.remove();
    const all = scene.annotations;
    this.notes = all.length > 0 ? new Notes(this.player, all) : null;
    if (this.notes && settings.ui) {
      this.dock.before(this.notes.element);
      this.bars.before(this.notes.card);
    }
    if (!this.settings.hidden) this.refreshSettings();
  }

  private listenToKeys(): void {
    const { player } = this;
    const actions = this.actions();
    const step = (by: number) => this.stepCamera(by, player.captureCameras.length);
    listenToKeys(player.canvas, {
      escape: () => this.escape(),
      listening: () => !this.message && player.settings.ui,
      playOrPause: () => this.timeline.toggle(),
      fullscreen: () => void toggleFullscreen(),
      actions: {
        "1": () => player.viewpoint.setMode("orbit"),
        "2": () => player.viewpoint.setMode("fly"),
        "3": () => player.viewpoint.setMode("walk"),
        f: actions.frame,
        r: actions.reset,
        c: actions.cameras,
        m: actions.measure,
        p: actions.picture,
        u: actions.turnUp,
        i: actions.statistics,
        h: actions.help,
        "?": actions.help,
        ",": () => this.timeline.step(-1),
        ".": () => this.timeline.step(1),
        "<": () => this.timeline.faster(-1),
        ">": () => this.timeline.faster(1),
        l: () => this.timeline.toggleLoop(),
        "[": () => step(-1),
        "]": () => step(1),
      },
    });
  }

  private escape(): void {
    if (this.message) {
      this.message.querySelector<HTMLButtonElement>("[data-back]")?.click();
      return;
    }
    this.toolbar.menu.close();
    this.toggleSettings(false);
    this.stopMeasuring();
    this.notes?.close();
    this.player.viewpoint.lookThrough(null);
  }

  private showMode(mode: Mode): void {
    this.toolbar.showMode(mode);
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

  /** Flies to the next (1) or previous (-1) note. */
  nextNote(step: number): void {
    this.notes?.next(step);
  }

  private makeSettings(): HTMLElement {
    return settingsPanel(this.player, {
      theme: (value) => this.setTheme(value as Settings["theme"]),
      stats: (on) => {
        this.player.settings.stats = on;
        this.stats.show(on);
      },
      cameras: (on) => this.showCameras(on),
      fidelity: () => void this.showFidelity(),
      close: () => this.toggleSettings(false),
    });
  }

  private setTheme(value: Settings["theme"]): void {
    this.player.settings.theme = value;
    applyTheme(value);
    this.player.setBackdrop(backdropOf(value));
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

  private refreshSettings(): void {
    const fresh = this.makeSettings();
    this.settings.replaceWith(fresh);
    this.settings = fresh;
  }

  /** Keyboards go into what opens, and back to what opened it. */
  private toggleSettings(on = this.settings.hidden): void {
    if (on === !this.settings.hidden) return;
    const inside = this.settings.contains(document.activeElement);
    if (on) this.refreshSettings();
    this.settings.hidden = !on;
    this.toolbar.settings.setAttribute("aria-expanded", String(on));
    if (on) this.settings.querySelector<HTMLElement>("button, input")?.focus();
    else if (inside) this.toolbar.settings.focus();
  }

  private toggleStats(): void {
    this.player.settings.stats = !this.player.settings.stats;
    this.stats.show(this.player.settings.stats);
  }

  private showCameras(on: boolean): void {
    this.overlay.showCameras = on;
    this.player.settings.cameras = on;
    this.toolbar.showCameras(on);
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
    const current = this.player.viewpoint.lookingThrough;
    this.player.viewpoint.lookThrough(current === null ? 0 : (current + step + count) % count);
  }

  /** A click on a frustum looks through it; whether there was one. */
  private pressCamera(x: number, y: number): boolean {
    const index = this.measuring ? null : this.overlay.cameraAt(x, y);
    if (index !== null) this.player.viewpoint.lookThrough(index);
    return index !== null;
  }

  private showThrough(index: number | null): void {
    this.through.hidden = index === null;
    if (index === null) return;
    const { captureCameras } = this.player;
    const count = captureCameras.length;
    this.through.replaceChildren(
      h("span", {}, `${strings.lookThrough} ${captureCameras[index]!.name || index + 1}`),
      iconButton("previous", strings.previous, () => this.stepCamera(-1, count), { key: "[" }),
      iconButton("next", strings.next, () => this.stepCamera(1, count), { key: "]" }),
      iconButton("close", strings.close, () => this.player.viewpoint.lookThrough(null), {
        key: "Escape",
      }),
    );
  }

  private toggleMeasure(): void {
    if (this.measuring) {
      this.stopMeasuring();
      return;
    }
    this.measuring = [];
    this.toolbar.showMeasuring(true);
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
    this.toolbar.showMeasuring(false);
    this.player.refresh();
  }

  /** The address of this page with all that changes the picture. */
  link(): string {
    return linkTo(this.player);
  }

  private async share(): Promise<void> {
    const link = this.link();
    history.replaceState(null, "", link);
    const dropped = Boolean(this.player.scene.request?.bytes);
    const local = isLocalServer() ? strings.copiedLocal : strings.copied;
    try {
      await navigator.clipboard.writeText(link);
      this.tell(dropped ? strings.copiedWithoutFile : local);
    } catch {
      // Clipboards need a secure page; the address bar holds the link, too.
      window.prompt(strings.copyByHand, link);
    }
  }

  private async takePicture(): Promise<void> {
    this.tell(strings.drawingPicture, true);
    try {
      await savePicture(this.player);
      this.tell(strings.pictureSaved);
    } catch (error) {
      console.warn("scene4d: picture:", error);
      this.tell(strings.pictureFailed);
    }
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
    if (!this.player.started) this.poster.hidden = true;
    console.error(`scene4d: ${failure.kind}: ${failure.where}: ${failure.detail}`);
    const { player } = this;
    const back = player.started
      ? () => {
          this.say(null);
          player.canvas.focus();
        }
      : null;
    this.say(
      failureMessage(failure, {
        retry: () => player.retry(),
        choose: player.settings.ui ? () => this.picker.click() : null,
        back,
      }),
    );
  }

  welcome(): void {
    this.say(welcomeMessage(() => this.picker.click()));
  }
}
