import type { Player, Statistics } from "../player";
import { isHandheld } from "../quality";
import { axisName, axisNamed, colourOf, formatColour, type Settings } from "../settings";
import { h, iconButton } from "./dom";
import { helpRows, strings } from "./strings";

/** The keyboard and gesture help, a modal dialog. */
export function helpDialog(): HTMLDialogElement {
  const hover = window.matchMedia("(any-hover: hover)").matches;
  const rows = helpRows(isHandheld(), hover).map(([keys, meaning]) =>
    h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, meaning)),
  );
  const dialog = h("dialog", { class: "panel", "aria-label": strings.help, id: "help" });
  const close = iconButton("close", strings.close, () => dialog.close());
  dialog.append(
    h("header", {}, h("h2", {}, strings.help), close),
    h("table", {}, h("tbody", {}, ...rows)),
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}

function range(
  label: string,
  id: string,
  limits: { min: number; max: number; step: number; value: number },
  show: (value: number) => string,
  change: (value: number) => void,
): HTMLElement {
  const output = h("output", { for: id }, show(limits.value));
  const input = h("input", { type: "range", id, ...limits });
  input.addEventListener("input", () => {
    output.value = show(input.valueAsNumber);
    input.setAttribute("aria-valuetext", output.value);
    change(input.valueAsNumber);
  });
  return h(
    "div",
    { class: "field" },
    h("div", { class: "row" }, h("label", { for: id }, label), output),
    input,
  );
}

function select(
  label: string,
  id: string,
  options: readonly (readonly [string, string])[],
  value: string,
  change: (value: string) => void,
): HTMLElement {
  const input = h(
    "select",
    { id },
    ...options.map(([v, text]) => h("option", { value: v, selected: v === value }, text)),
  );
  input.addEventListener("change", () => change(input.value));
  return h("div", { class: "field" }, h("label", { for: id }, label), input);
}

function check(label: string, checked: boolean, change: (on: boolean) => void): HTMLElement {
  const input = h("input", { type: "checkbox", checked });
  input.addEventListener("change", () => change(input.checked));
  return h("label", { class: "check" }, input, label);
}

export interface SettingsActions {
  theme(value: string): void;
  stats(on: boolean): void;
  cameras(on: boolean): void;
  fidelity(): void;
  close(): void;
}

/** Quality, lens, axes, appearance; made anew when it is opened. */
export function settingsPanel(player: Player, actions: SettingsActions): HTMLElement {
  const steps = strings.qualitySteps.split(",");
  const up = axisName(player.rig.upAxis);
  const axes = ["y", "-y", "z", "-z", "x", "-x"].map((name) => [name, name.toUpperCase()] as const);
  const themes = strings.themes.split(",").map((t) => t.split(":") as [string, string]);
  const { settings } = player;
  return h(
    "section",
    { class: "panel side", id: "settings", "aria-label": strings.settings },
    h(
      "header",
      {},
      h("h2", {}, strings.settings),
      iconButton("close", strings.close, actions.close),
    ),
    range(
      strings.quality,
      "quality",
      { min: 1, max: 5, step: 1, value: player.quality.level },
      (v) => steps[v - 1]!,
      (v) => player.setQuality(v),
    ),
    check(strings.adaptive, settings.adaptive, (on) => {
      settings.adaptive = on;
    }),
    range(
      strings.fov,
      "fov",
      { min: 20, max: 120, step: 1, value: Math.round(player.viewpoint.fov) },
      (v) => `${v}°`,
      (v) => player.viewpoint.setFov(v),
    ),
    select(strings.up, "up", up ? axes : [["", strings.upOther], ...axes], up, (name) => {
      player.viewpoint.setUp(axisNamed(name) ?? player.rig.upAxis);
    }),
    background(player),
    select(strings.theme, "theme", themes, settings.theme, actions.theme),
    check(strings.statistics, settings.stats, actions.stats),
    check(strings.showAll, settings.cameras, actions.cameras),
    player.info?.references
      ? h(
          "button",
          { type: "button", class: "text", id: "fidelity", onclick: actions.fidelity },
          strings.fidelity,
        )
      : null,
  );
}

const FIXED = { black: [0, 0, 0], white: [1, 1, 1] } as const;

/** What is behind the scene: its own, the page's, or a colour. */
function background(player: Player): HTMLElement {
  const { background: chosen } = player.scene;
  const colour = h("input", {
    type: "color",
    "aria-label": strings.colour,
    id: "colour",
    value: `#${formatColour(player.background)}`,
  });
  const set = (rgb: Settings["background"]) => {
    player.setBackground(rgb);
    colour.value = `#${formatColour(player.background)}`;
  };
  const options = strings.backgrounds.split(",").map((o) => o.split(":") as [string, string]);
  const hex = chosen && formatColour(chosen);
  const now = hex === null ? "auto" : ({ "000000": "black", ffffff: "white" }[hex] ?? "own");
  const choice = select(strings.background, "background", options, now, (value) => {
    if (value === "own") {
      set(colourOf(colour.value));
      colour.focus();
    } else set(value === "auto" ? null : [...FIXED[value as keyof typeof FIXED]]);
  });
  colour.addEventListener("input", () => {
    player.setBackground(colourOf(colour.value));
    choice.querySelector("select")!.value = "own";
  });
  choice.classList.add("with-colour");
  choice.append(colour);
  return choice;
}

const MEGA = 1e6;

/** What there is of splats, or of a mesh; of a field, its picture before it is scaled, and what it
 * is made of. */
function drawnRows(s: Statistics): [string, string][] {
  if (s.field) {
    const { width, height, slabs, planes, planesInFile } = s.field;
    return [
      [strings.statPicture, width > 0 ? `${width} x ${height}, ${s.fieldMs.toFixed(1)} ms` : "-"],
      [strings.statSlabs, String(slabs)],
      [strings.statPlanes, `${planes} / ${planesInFile}`],
    ];
  }
  if (s.mesh) {
    const { triangles, vertices, width, height } = s.mesh;
    return [
      [strings.statTriangles, triangles.toLocaleString("en")],
      [strings.statVertices, vertices.toLocaleString("en")],
      [strings.statTexture, `${width} x ${height}`],
    ];
  }
  const [shown, all] = [s.splats, s.splatsInFile].map((n) => n.toLocaleString("en"));
  return [
    [strings.statSplats, `${shown} / ${all}`],
    [strings.statDegree, String(s.degree)],
  ];
}

/** The figures, refreshed twice a second. */
export class StatsPanel {
  readonly element = h("aside", { class: "panel", id: "stats", "aria-label": strings.statistics });
  private timer = 0;

  constructor(private readonly player: Player) {}

  show(on: boolean): void {
    this.element.hidden = !on;
    window.clearInterval(this.timer);
    if (!on) return;
    this.refresh();
    this.timer = window.setInterval(() => this.refresh(), 500);
  }

  private refresh(): void {
    const s = this.player.statistics();
    const rows: [string, string][] = [
      [strings.statBackend, s.backend === "webgpu" ? "WebGPU" : "WebGL 2"],
      [strings.statFps, `${s.framesPerSecond.toFixed(0)} /s, ${s.frameMs.toFixed(1)} ms`],
      ...drawnRows(s),
      [strings.statSize, `${s.width} x ${s.height}`],
      [strings.statMemory, `${(s.memory / MEGA).toFixed(1)} MB`],
      [strings.statFile, `${(s.downloaded / MEGA).toFixed(1)} / ${(s.size / MEGA).toFixed(1)} MB`],
    ];
    if (s.backend === "webgl2" && !s.field && !s.mesh)
      rows.push([strings.statSort, `${s.sortMs.toFixed(1)} ms`]);
    if (s.loadMs > 0) rows.push([strings.statLoad, `${(s.loadMs / 1000).toFixed(2)} s`]);
    this.element.replaceChildren(
      h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    );
  }
}
