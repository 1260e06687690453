import type { Player } from "../player";
import { axisName, DEFAULTS, formatColour, formatView } from "../settings";

/** The address of this page that shows what is shown: scene, view, lens, axes, colours, quality. */
export function linkTo(player: Player): string {
  const { scene, rig, settings } = player;
  const url = new URL(location.href);
  const set = (name: string, value: string | null) => {
    if (value === null) url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  };
  set("view", formatView(rig.view()));
  set("mode", rig.mode === "orbit" ? null : rig.mode);
  set(
    "fov",
    player.viewpoint.fov === DEFAULTS.fov
      ? null
      : String(Math.round(100 * player.viewpoint.fov) / 100),
  );
  set(
    "up",
    scene.up && (axisName(scene.up) || scene.up.map((x) => Number(x.toPrecision(5))).join()),
  );
  set("bg", scene.background && formatColour(scene.background));
  const quality = player.quality.level;
  set("quality", quality === (DEFAULTS.quality ?? 4) ? null : String(quality));
  set("theme", settings.theme === "auto" ? null : settings.theme);
  set("t", null); // another name of it
  set("time", player.clock.range ? String(Number(player.clock.time.toFixed(3))) : null);
  const opened = scene.request?.url;
  const own = settings.content && new URL(settings.content, document.baseURI).href;
  if (opened && opened !== own) set("content", relative(opened));
  // Commas and slashes may stand as they are, and people read them.
  return url.href.replaceAll("%2C", ",").replaceAll("%2F", "/");
}

/** An address on this server without the server. */
function relative(address: string): string {
  const url = new URL(address);
  return url.origin === location.origin ? url.pathname + url.search : address;
}

/** Whether the page comes from a computer that will not always be there: this one, or one nearby. */
export function isLocalServer(host = location.hostname): boolean {
  return (
    /^(localhost|127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.|\[(::1|f[cde]))/.test(
      host,
    ) || /\.(local|localhost|lan|home|internal)$/.test(host)
  );
}
