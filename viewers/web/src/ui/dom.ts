type Child = Node | string | null | undefined | false;

/** An element with attributes (`on...` are listeners) and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<
    string,
    string | boolean | number | ((event: never) => void) | null | undefined
  > = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function")
      element.addEventListener(name.slice(2), value as EventListener);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(
    ...children.filter((c): c is Node | string => c !== null && c !== undefined && c !== false),
  );
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A 24 x 24 icon of stroked paths. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export const icons = {
  orbit:
    "M12 12m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0M3.5 15c-2 -3.5 3 -8 9 -9.500c6 -1.500 9 1 8 4.500c-1 4 -6 7.500 -10.500 8.500M12 20l-2.500 -1.500l1.500 -2.500",
  fly: "M3 11l18 -8l-8 18l-2 -8z",
  walk: "M13 4.500m-1.500 0a1.500 1.500 0 1 0 3 0a1.500 1.500 0 1 0 -3 0M7 21l3 -4l0.500 -4l3 3l1 5M6 12l1 -3l4 -1l3 3l3 1M11 8l-0.500 5",
  frame:
    "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5M9.500 12a2.500 2.500 0 1 0 5 0a2.500 2.500 0 1 0 -5 0",
  reset: "M4 4v5h5M4.500 9a8 8 0 1 1 -0.500 4",
  help: "M12 21a9 9 0 1 0 0 -18a9 9 0 0 0 0 18zM9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-0.700 0.400 -1 0.800 -1 1.700M12 16.500v0.500",
  settings:
    "M4 7h10M18 7h2M16 7m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0M4 17h2M10 17h10M8 17m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0",
  fullscreen: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  immersion:
    "M4 7h16a1 1 0 0 1 1 1v8a1 1 0 0 1 -1 1h-4l-2.500 -3h-3l-2.500 3H4a1 1 0 0 1 -1 -1V8a1 1 0 0 1 1 -1zM8 11.500h0.500M15.500 11.500h0.500",
  share: "M12 15V3M8 7l4 -4l4 4M5 12v8h14v-8",
  picture: "M4 8h3l2 -3h6l2 3h3v11H4zM12 16.500a3.500 3.500 0 1 0 0 -7a3.500 3.500 0 0 0 0 7",
  cameras: "M3 7h11v10H3zM14 11l7 -4v10l-7 -4",
  measure: "M3 17L17 3l4 4L7 21zM7 13l2 2M10 10l2 2M13 7l2 2",
  stats: "M4 20V10M10 20V4M16 20v-7M21 20H3",
  close: "M6 6l12 12M18 6L6 18",
  more: "M5 12h0.010M12 12h0.010M19 12h0.010",
  play: "M7 4l13 8l-13 8z",
  pause: "M8 5v14M16 5v14",
  loop: "M17 2l4 4l-4 4M3 11v-1a4 4 0 0 1 4 -4h14M7 22l-4 -4l4 -4M21 13v1a4 4 0 0 1 -4 4H3",
  previous: "M15 5l-7 7l7 7",
  next: "M9 5l7 7l-7 7",
} as const;

/** A button with an icon, a label for readers, a tooltip, and a word where nothing hovers. */
export function iconButton(
  name: keyof typeof icons,
  label: string,
  press: () => void,
  { key, word }: { key?: string; word?: string } = {},
): HTMLButtonElement {
  const button = h("button", {
    type: "button",
    class: "icon",
    "aria-label": label,
    "aria-keyshortcuts": key,
    title: key ? `${label} (${key})` : label,
    onclick: () => press(),
  });
  button.append(icon(icons[name]));
  if (word) button.append(h("span", { class: "word", "aria-hidden": "true" }, word));
  return button;
}

export async function toggleFullscreen(): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen();
}
