import { CALLABLE, type Scene4dApi } from "./api";
import type { Player } from "./player";

/** What any page around the frame may call: it changes nothing, and shows nothing of the scene. */
const HARMLESS: readonly string[] = ["getView", "stats"];

/**
 * Origins whose pages may steer the player: those that the player's own page names. The address
 * names none, because whoever frames a page writes its address.
 */
export function embeddingOrigins(page: Document): Set<string> {
  const written = page.querySelector<HTMLMetaElement>('meta[name="scene4d"]')?.content ?? "";
  const named = new URLSearchParams(written).get("embed") ?? "";
  const found = new Set([location.origin]);
  for (const text of named.split(/[\s,]+/)) {
    if (URL.canParse(text) && new URL(text).origin !== "null") found.add(new URL(text).origin);
  }
  found.delete("null"); // pages on a disk and in sandboxes are all called so
  return found;
}

/** The origin of the page around the frame, where the browser tells it. */
function parentOrigin(): string | null {
  const known = location.ancestorOrigins?.[0];
  if (known) return known;
  return URL.canParse(document.referrer) ? new URL(document.referrer).origin : null;
}

/**
 * Answers `{scene4d: 1, id, method, args}` from the page around the frame with
 * `{scene4d: 1, id, result}` or `{scene4d: 1, id, error}`, and tells it `{scene4d: 1, event, ...}`.
 * Pages of origins that the player's page does not name may look, not steer.
 */
export function answerMessages(player: Player, api: Scene4dApi): void {
  if (window.parent === window) return;
  const origins = embeddingOrigins(document);
  const parent = parentOrigin();
  const trusted = parent !== null && origins.has(parent);
  const tell = (event: string, data: object = {}) =>
    window.parent.postMessage({ scene4d: 1, event, ...data }, trusted ? parent : "*");
  player.on("done", () => tell("ready", { stats: player.statistics() }));
  player.on("failed", ({ kind, detail }) => tell("failed", trusted ? { kind, detail } : { kind }));
  player.on("view", () => tell("view", { view: player.rig.view() }));
  if (trusted) {
    player.on("mode", (mode) => tell("mode", { mode }));
    player.on("focus", (point) => tell("focus", { point }));
  }
  window.addEventListener("message", (event) => {
    const message = event.data as {
      scene4d?: number;
      id?: unknown;
      method?: string;
      args?: unknown;
    };
    if (event.source !== window.parent || message?.scene4d !== 1 || !message.method) return;
    const allowed = origins.has(event.origin) ? CALLABLE : HARMLESS;
    // What another page asks for is fetched without the cookies of this one's host.
    if (message.method === "open" && event.origin !== location.origin) player.credentials = "omit";
    void answer(api, allowed, message.method, message.args).then((reply) =>
      window.parent.postMessage(
        { scene4d: 1, id: message.id, ...reply },
        event.origin === "null" ? "*" : event.origin,
      ),
    );
  });
  tell("loaded", { methods: trusted ? CALLABLE : HARMLESS });
}

async function answer(
  api: Scene4dApi,
  allowed: readonly string[],
  method: string,
  args: unknown,
): Promise<object> {
  if (!(CALLABLE as readonly string[]).includes(method)) return { error: `no method ${method}` };
  if (!allowed.includes(method)) {
    return { error: `${method} is for pages that the player's page names (embed=)` };
  }
  try {
    const call = api[method as (typeof CALLABLE)[number]] as (...a: unknown[]) => unknown;
    return { result: await call(...(Array.isArray(args) ? args : [])) };
  } catch (error) {
    return { error: String(error) };
  }
}
