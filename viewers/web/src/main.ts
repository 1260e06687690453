import "./ui/style.css";
import { makeApi } from "./api";
import { SceneError } from "./decode/errors";
import { answerMessages } from "./embed";
import { type Failure, Player } from "./player";
import { DEFAULTS, fromFile, fromParameters, leftOut, type Settings } from "./settings";
import { h } from "./ui/dom";
import { failureMessage } from "./ui/message";
import { Page } from "./ui/page";
import { strings } from "./ui/strings";

/** Defaults, then what the page's exporter wrote into it, then a settings file, then the address. */
async function loadSettings(): Promise<{ settings: Settings; ignored: string[] }> {
  const params = new URLSearchParams(location.search);
  let settings = { ...DEFAULTS };
  const written = document.querySelector<HTMLMetaElement>('meta[name="scene4d"]')?.content;
  if (written) settings = fromParameters(new URLSearchParams(written), settings);
  const file = params.get("settings");
  if (file) {
    const response = await fetch(file).catch((error) => {
      throw new SceneError("settings", file, `${error}`);
    });
    if (!response.ok) {
      throw new SceneError("settings", file, `the server answers ${response.status}`);
    }
    try {
      settings = fromFile(await response.json(), settings);
    } catch (error) {
      throw new SceneError("settings", file, error instanceof Error ? error.message : `${error}`);
    }
  }
  return { settings: fromParameters(params, settings), ignored: leftOut(params) };
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
    const { settings, ignored } = await loadSettings();
    const player = await Player.create(canvas, settings);
    const page = new Page(root, player);
    const api = makeApi(player, page);
    Object.assign(window, { scene4d: api });
    answerMessages(player, api);
    if (settings.content) player.open({ url: settings.content });
    else page.welcome();
    if (ignored.length > 0) page.tell(`${strings.leftOut}: ${ignored.join(", ")}`);
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
