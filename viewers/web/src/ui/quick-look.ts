import type { Player } from "../player";
import { NO_WISHES } from "../scene";
import { h, icons } from "./dom";
import { strings } from "./strings";

/**
 * iPhones have no WebXR, but show a USDZ in the room: by a link of this form alone, whose only child
 * is a picture. Null where the browser does not, or the page has no model that lies beside it.
 */
export function quickLook(player: Player): HTMLAnchorElement | null {
  const { model } = player.settings;
  const address = model && new URL(model, document.baseURI);
  if (!address || address.origin !== location.origin) return null;
  const picture = h("img", { alt: "", width: 24, height: 24, src: drawn(icons.immersion) });
  const label = { "aria-label": strings.ar, title: strings.ar };
  const link = h("a", { id: "quick-look", rel: "ar", href: address.href, ...label }, picture);
  if (!link.relList.supports("ar")) return null;
  // It is of the scene that the settings name.
  player.on("scene", () => {
    link.hidden = player.scene.wishes === NO_WISHES;
  });
  return link;
}

/** An icon as an image's address; its grey is seen on light panels and on dark ones. */
function drawn(path: string): string {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#888" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round"><path d="${path}"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}
