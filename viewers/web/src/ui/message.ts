import type { Failure } from "../player";
import { h } from "./dom";
import { failures, foreignServer, strings } from "./strings";

export interface MessageActions {
  retry: (() => void) | null;
  choose: (() => void) | null;
  /** Back to a scene that is still shown. */
  back?: (() => void) | null;
}

/** A person-readable page about what went wrong, with a way on. */
export function failureMessage(failure: Failure, actions: MessageActions): HTMLElement {
  const [title, usual] = failures[failure.kind];
  const advice = failure.kind === "network" && isForeign(failure.where) ? foreignServer : usual;
  const { retry, choose, back } = actions;
  return h(
    "div",
    {
      id: "message",
      role: "alertdialog",
      "aria-labelledby": "message-title",
      "data-kind": failure.kind,
    },
    h(
      "div",
      { class: "panel" },
      h("h2", { id: "message-title" }, title),
      h("p", {}, advice),
      h(
        "details",
        {},
        h("summary", {}, "Details"),
        `${shortened(failure.where)}: ${failure.detail}`,
      ),
      h(
        "div",
        { class: "actions" },
        retry &&
          h(
            "button",
            { type: "button", class: "text main", id: "retry", onclick: retry },
            strings.retry,
          ),
        choose &&
          h("button", { type: "button", class: "text", onclick: choose }, strings.openAnother),
        back &&
          h(
            "button",
            { type: "button", class: "text", "data-back": true, onclick: back },
            strings.backToScene,
          ),
      ),
    ),
  );
}

function isForeign(where: string): boolean {
  try {
    const { origin, protocol } = new URL(where);
    return /^https?:$/.test(protocol) && origin !== location.origin;
  } catch {
    return false;
  }
}

/** An address without its token and parameters. */
function shortened(where: string): string {
  try {
    const url = new URL(where);
    return url.pathname.split("/").at(-1) || url.host;
  } catch {
    return where;
  }
}

/** The page without a scene: a place to drop a file. */
export function welcomeMessage(choose: () => void): HTMLElement {
  return h(
    "div",
    { id: "message", "data-kind": "welcome" },
    h(
      "div",
      { class: "panel" },
      h("h2", {}, strings.dropHere),
      h(
        "div",
        { class: "drop" },
        h("p", {}, strings.dropHint),
        h("p", {}),
        h("button", { type: "button", class: "text main", onclick: choose }, strings.choose),
      ),
    ),
  );
}
