import type { Mode } from "../camera/rig";
import { MODES } from "../camera/rig";
import { h, icon, iconButton, icons } from "./dom";
import { strings } from "./strings";

/** What buttons and menu items do. */
export interface ToolbarActions {
  mode(mode: Mode): void;
  frame(): void;
  reset(): void;
  cameras(): void;
  measure(): void;
  picture(): void;
  share(): void;
  settings(): void;
  help(): void;
  turnUp(): void;
  statistics(): void;
  /** Null where the browser has no full screen. */
  fullscreen: (() => void) | null;
}

/** The row of buttons; where it is narrow, some are items of a menu with words instead. */
export class Toolbar {
  readonly element = h("nav", { id: "toolbar", class: "panel", "aria-label": strings.controls });
  readonly menu: Menu;
  readonly settings: HTMLButtonElement;
  readonly more: HTMLButtonElement;
  private readonly modes = new Map<Mode, HTMLButtonElement>();
  private readonly cameras: HTMLButtonElement;
  private readonly measure: HTMLButtonElement;

  constructor(actions: ToolbarActions) {
    const gap = () => h("span", { class: "gap", "aria-hidden": "true" });
    this.cameras = toggle(
      wide("cameras", strings.cameras, actions.cameras, { key: "C", word: strings.wordCameras }),
    );
    this.measure = toggle(
      wide("measure", strings.measure, actions.measure, { key: "M", word: strings.wordMeasure }),
    );
    this.settings = iconButton("settings", strings.settings, actions.settings, {
      word: strings.wordSettings,
    });
    this.settings.setAttribute("aria-expanded", "false");
    this.menu = new Menu(itemsOf(actions));
    this.more = iconButton("more", strings.more, () => this.menu.toggle(), { word: strings.more });
    this.more.classList.add("narrow");
    this.menu.belongsTo(this.more);
    this.element.append(
      this.modeGroup(actions),
      gap(),
      iconButton("frame", strings.frame, actions.frame, { key: "F", word: strings.wordFrame }),
      wide("reset", strings.reset, actions.reset, { key: "R", word: strings.wordReset }),
      this.cameras,
      this.measure,
      gap(),
      wide("picture", strings.screenshot, actions.picture, { key: "P", word: strings.wordPicture }),
      iconButton("share", strings.share, actions.share, { word: strings.wordShare }),
      this.settings,
      wide("help", strings.help, actions.help, { key: "H", word: strings.wordHelp }),
    );
    if (actions.fullscreen) {
      this.element.append(
        wide("fullscreen", strings.fullscreen, actions.fullscreen, {
          key: "Enter",
          word: strings.wordFullscreen,
        }),
      );
    }
    this.element.append(this.more);
  }

  /** One of three, by arrow keys too; Tab stops at the chosen one. */
  private modeGroup(actions: ToolbarActions): HTMLElement {
    const group = h("div", { role: "radiogroup", "aria-label": strings.modes });
    for (const [i, mode] of MODES.entries()) {
      const button = iconButton(mode, strings[mode], () => actions.mode(mode), {
        key: String(i + 1),
        word: strings[mode],
      });
      button.setAttribute("role", "radio");
      this.modes.set(mode, button);
      group.append(button);
    }
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const now = MODES.findIndex((m) => this.modes.get(m)!.tabIndex === 0);
      const next = MODES[(now + step + MODES.length) % MODES.length]!;
      actions.mode(next);
      this.modes.get(next)!.focus();
    });
    return group;
  }

  showMode(mode: Mode): void {
    for (const [name, button] of this.modes) {
      button.setAttribute("aria-checked", String(name === mode));
      button.tabIndex = name === mode ? 0 : -1;
    }
  }

  showCameras(on: boolean): void {
    this.cameras.setAttribute("aria-pressed", String(on));
  }

  showMeasuring(on: boolean): void {
    this.measure.setAttribute("aria-pressed", String(on));
  }

  /** One more button, before the menu's; null: none. */
  add(button: HTMLElement | null): void {
    if (button) this.more.before(button);
  }
}

function itemsOf(actions: ToolbarActions): MenuItem[] {
  const items: MenuItem[] = [
    { icon: "reset", text: strings.reset, act: actions.reset },
    { icon: "measure", text: strings.measure, act: actions.measure },
    { icon: "picture", text: strings.screenshot, act: actions.picture },
    { icon: "cameras", text: strings.cameras, act: actions.cameras },
    { icon: "orbit", text: strings.turnUp, act: actions.turnUp },
    { icon: "stats", text: strings.statistics, act: actions.statistics },
    { icon: "help", text: strings.help, act: actions.help },
  ];
  if (actions.fullscreen)
    items.push({ icon: "fullscreen", text: strings.fullscreen, act: actions.fullscreen });
  return items;
}

function wide(...made: Parameters<typeof iconButton>): HTMLButtonElement {
  const button = iconButton(...made);
  button.classList.add("wide");
  return button;
}

function toggle(button: HTMLButtonElement): HTMLButtonElement {
  button.setAttribute("aria-pressed", "false");
  return button;
}

export interface MenuItem {
  icon: keyof typeof icons;
  text: string;
  act: () => void;
}

/** Items with words; arrow keys go through them, Escape and a press elsewhere close. */
export class Menu {
  readonly element = h("div", {
    id: "menu",
    class: "panel",
    role: "menu",
    "aria-label": strings.more,
    hidden: true,
  });
  private button: HTMLButtonElement | null = null;
  private readonly items: HTMLButtonElement[];

  constructor(items: readonly MenuItem[]) {
    this.items = items.map((item) => {
      const button = h(
        "button",
        {
          type: "button",
          role: "menuitem",
          tabindex: -1,
          onclick: () => {
            this.close();
            item.act();
          },
        },
        item.text,
      );
      button.prepend(icon(icons[item.icon]));
      return button;
    });
    this.element.append(...this.items);
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("pointerdown", (event) => {
      const inside = event.target instanceof Node && this.element.contains(event.target);
      const own = event.target instanceof Node && this.button?.contains(event.target);
      if (!inside && !own) this.close(false);
    });
  }

  belongsTo(button: HTMLButtonElement): void {
    this.button = button;
    button.setAttribute("aria-haspopup", "menu");
    button.setAttribute("aria-expanded", "false");
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  toggle(): void {
    if (this.open) {
      this.close();
      return;
    }
    this.element.hidden = false;
    this.button?.setAttribute("aria-expanded", "true");
    this.items[0]!.focus();
  }

  close(refocus = true): void {
    if (!this.open) return;
    this.element.hidden = true;
    this.button?.setAttribute("aria-expanded", "false");
    if (refocus) this.button?.focus();
  }

  private onKey(event: KeyboardEvent): void {
    const n = this.items.length;
    const now = this.items.indexOf(document.activeElement as HTMLButtonElement);
    const to: Record<string, number> = {
      ArrowDown: (now + 1) % n,
      ArrowUp: (now - 1 + n) % n,
      Home: 0,
      End: n - 1,
    };
    if (event.key in to) this.items[to[event.key]!]!.focus();
    else if (event.key === "Escape") this.close();
    else if (event.key === "Tab") this.close(false);
    else return;
    event.stopPropagation();
    if (event.key !== "Tab") event.preventDefault();
  }
}
