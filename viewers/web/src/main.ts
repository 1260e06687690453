import "./ui/style.css";
import { makeApi } from "./api";
import { SceneError } from "./decode/errors";
import { answerMessages } from "./embed";
import { type Failure, Player } from "./player";
import { DEFAULTS, fromFile, fromParameters, type Settings } from "./settings";
import { h } from "./ui/dom";
import { failureMessage } from "./ui/message";
import { Page } from "./ui/page";
import { strings } from "./ui/strings";

/** Defaults, then what the page's exporter wrote into it, then a settings file, then the address. */
async function loadSettings(): Promise<Settings> {
  const params = new URLSearchParams(location.search);
  let settings = { ...DEFAULTS };
  const written = document.querySelector<HTMLMetaElement>('meta[name="scene4d"]')?.content;
  if (written) settings = fromParameters(new URLSearchParams(written), settings);
  const file = params.get("settings");
  if (file) {
    try {
      const response = await fetch(file);
      if (!response.ok) throw new Error(`the server answers ${response.status}`);
      settings = fromFile(await response.json(), settings);
    } catch (error) {
      throw new SceneError("not-found", file, `settings: ${error}`);
    }
  }
  return fromParameters(params, settings);
}

function asFailure(error: unknown): Failure {
  if (error instanceof SceneError)
    return { kind: error.kind, where: error.where, detail: error.detail };
  return { kind: "damaged", where: "player", detail: String(error) };
}

async function main(): Promise<void> {
  const root = document.querySelector<HTMLElement>("#player")!;
  const canvas = h("canvas", { tabindex: 0, "aria-label": strings.canvas });
  root.append(canvas);
  try {
    const settings = await loadSettings();
    const player = await Player.create(canvas, settings);
    const page = new Page(root, player);
    const api = makeApi(player, page);
    Object.assign(window, { scene4d: api });
    answerMessages(player, api);
    if (settings.title) document.title = settings.title;
    if (settings.content) player.open({ url: settings.content });
    else page.welcome();
    if (settings.poster && settings.content) player.showPoster(settings.poster);
  } catch (error) {
    const failure = asFailure(error);
    console.error("scene4d:", error);
    root.append(failureMessage(failure, { retry: () => location.reload(), choose: null }));
    Object.assign(window, { scene4d: { ready: Promise.reject(error) } });
    (window as unknown as { scene4d: { ready: Promise<void> } }).scene4d.ready.catch(() => {});
  }
}

void main();
