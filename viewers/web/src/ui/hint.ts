import type { Player } from "../player";
import { isHandheld } from "../quality";
import { h, iconButton } from "./dom";
import { strings } from "./strings";

const SEEN = "scene4d-hint";
const SHOWN_MS = 9000;

/** How to move, on the first visit; gone once somebody has. */
export class Hint {
  readonly element = h("div", { id: "hint", class: "panel", role: "note", hidden: true });

  constructor(player: Player) {
    this.element.append(
      h("span", {}, isHandheld() ? strings.hintTouch : strings.hintMouse),
      iconButton("close", strings.close, () => this.close()),
    );
    const off = player.on("firstFrame", () => {
      off();
      if (!player.settings.ui || seen()) return;
      this.element.hidden = false;
      window.setTimeout(() => {
        this.element.hidden = true;
      }, SHOWN_MS);
    });
    const enough = () => {
      if (!this.element.hidden) this.close();
    };
    player.on("steer", enough);
    player.on("mode", enough); // a joystick may stand there now
  }

  private close(): void {
    this.element.hidden = true;
    try {
      localStorage.setItem(SEEN, "1");
    } catch {
      // A frame without storage shows it again.
    }
  }
}

function seen(): boolean {
  try {
    return localStorage.getItem(SEEN) !== null;
  } catch {
    return true;
  }
}
