import type { V3 } from "../camera/vec";
import type { Settings } from "../settings";

type Theme = Settings["theme"];

/** Grey, so that dark and light things both stand out from it. */
const BACKDROPS: Record<"light" | "dark", V3> = {
  light: [0.8, 0.81, 0.83],
  dark: [0.27, 0.28, 0.3],
};

export function applyTheme(value: Theme): void {
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}

/** The colour behind scenes that have none of their own. */
export function backdropOf(value: Theme): V3 {
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return BACKDROPS[value === "auto" ? system : value];
}
