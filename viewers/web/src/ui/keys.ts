/** What the page's keys do, beside those that move the camera. */
export interface PageKeys {
  escape(): void;
  /** Space, with the scene in the focus: whether it did anything. */
  playOrPause(): boolean;
  /** Enter, with the scene in the focus. */
  fullscreen(): void;
  /** By the key's name in small letters. */
  actions: Record<string, () => void>;
  /** False while something else has the page. */
  listening(): boolean;
}

/** Listens to the whole page; not while somebody types, nor with a modifier. */
export function listenToKeys(canvas: HTMLElement, keys: PageKeys): void {
  window.addEventListener("keydown", (event) => {
    const target = event.target instanceof HTMLElement ? event.target : null;
    const key = event.key.toLowerCase();
    if (key === "escape" && !target?.closest("dialog")) {
      keys.escape();
      return;
    }
    const typing = target?.closest("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys.listening()) return;
    const free = target === document.body || target === canvas;
    if (key === " " && free && keys.playOrPause()) event.preventDefault();
    if (key === "enter" && free) keys.fullscreen();
    keys.actions[key]?.();
  });
}
