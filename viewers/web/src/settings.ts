import { MODES, type Mode } from "./camera/rig";
import type { Annotation, CaptureCamera, View } from "./decode/protocol";
import type { Backend } from "./engine/stage";

/** Everything that an address or a settings file may say. */
export interface Settings {
  content: string | null;
  poster: string | null;
  /** Address of the scene as USDZ, for the room that an iPhone shows; beside the page. */
  model: string | null;
  title: string | null;
  ui: boolean;
  /** Flights and inertia; also off where the system asks for reduced motion. */
  animation: boolean;
  stats: boolean;
  cameras: boolean;
  theme: "auto" | "light" | "dark";
  background: [number, number, number] | null;
  backend: Backend | null;
  mode: Mode;
  up: [number, number, number] | null;
  view: View | null;
  /** Seconds at which a scene that moves is shown, standing. */
  time: number | null;
  /** Degrees across the larger side. */
  fov: number;
  /** 1 (fastest) to 5 (finest), or null: chosen by the device. */
  quality: number | null;
  /** Lower the resolution while frames take long. */
  adaptive: boolean;
  /** Most splats, and the highest degree of spherical harmonics. */
  budget: number | null;
  degree: number;
  annotations: Annotation[];
  captureCameras: CaptureCamera[];
}

export const DEFAULTS: Settings = {
  content: null,
  poster: null,
  model: null,
  title: null,
  ui: true,
  animation: true,
  stats: false,
  cameras: false,
  theme: "auto",
  background: null,
  backend: null,
  mode: "orbit",
  up: null,
  view: null,
  time: null,
  fov: 65,
  quality: null,
  adaptive: true,
  budget: null,
  degree: 3,
  annotations: [],
  captureCameras: [],
};

/** The version of settings files that this player reads. */
export const SETTINGS_VERSION = 1;

const AXES: Record<string, [number, number, number]> = {
  x: [1, 0, 0],
  y: [0, 1, 0],
  z: [0, 0, 1],
  "-x": [-1, 0, 0],
  "-y": [0, -1, 0],
  "-z": [0, 0, -1],
};

export function axisNamed(name: string): [number, number, number] | null {
  return AXES[name.toLowerCase()] ?? null;
}

export function axisName(axis: readonly number[]): string {
  const found = Object.entries(AXES).find(([, v]) =>
    v.every((x, i) => Math.abs(x - axis[i]!) < 1e-3),
  );
  return found?.[0] ?? "";
}

/** Numbers of a list "1,2,3"; null unless there are exactly `count` finite ones. */
export function numbers(text: string | null, count: number): number[] | null {
  const values = text?.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  return values?.length === count && values.every(Number.isFinite) ? values : null;
}

export function formatView(view: View): string {
  return [...view.position, ...view.target].map((x) => Number(x.toPrecision(5))).join(",");
}

export function parseView(text: string | null): View | null {
  const v = numbers(text, 6);
  if (!v) return null;
  return { position: [v[0]!, v[1]!, v[2]!], target: [v[3]!, v[4]!, v[5]!] };
}

function flag(params: URLSearchParams, name: string): boolean {
  const value = params.get(name);
  return value !== null && value !== "0" && value !== "false";
}

function between(text: string | null, low: number, high: number): number | null {
  const value = text === null || text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(value) ? Math.max(low, Math.min(high, value)) : null;
}

function oneOf<T extends string>(text: string | null, values: readonly T[]): T | null {
  return values.find((v) => v === text) ?? null;
}

function axisOf(text: string | null): Settings["up"] {
  const axis = numbers(text, 3) as Settings["up"];
  return axisNamed(text ?? "") ?? (axis?.some((x) => x !== 0) ? axis : null);
}

/** What each parameter that has to be of a form is read with: null where it is not. */
const READERS = {
  theme: (t: string | null) => oneOf(t, ["auto", "light", "dark"] as const),
  bg: (t: string | null) => colourOf(t ?? ""),
  backend: (t: string | null) => oneOf(t, ["webgpu", "webgl2"] as const),
  mode: (t: string | null) => oneOf(t, MODES),
  up: axisOf,
  view: parseView,
  time: (t: string | null) => between(t, -1e9, 1e9),
  t: (t: string | null) => between(t, -1e9, 1e9),
  fov: (t: string | null) => between(t, 10, 150),
  quality: (t: string | null) => between(t, 1, 5),
  budget: (t: string | null) => between(t, 1, 1e8),
  degree: (t: string | null) => between(t, 0, 3),
};

/** Parameters that are there but do not parse, as "name=value": they are left out. */
export function leftOut(params: URLSearchParams): string[] {
  return Object.entries(READERS)
    .filter(([name, read]) => params.get(name) && read(params.get(name)) === null)
    .map(([name]) => `${name}=${params.get(name)}`);
}

/** `base` changed by the address' parameters; what does not parse is left out. */
export function fromParameters(params: URLSearchParams, base: Settings): Settings {
  const on = (name: string, start: boolean) => (params.has(name) ? flag(params, name) : start);
  const read = <N extends keyof typeof READERS>(name: N) =>
    READERS[name](params.get(name)) as ReturnType<(typeof READERS)[N]>;
  return {
    ...base,
    content: params.get("content") ?? base.content,
    poster: params.get("poster") ?? base.poster,
    model: params.get("model") ?? base.model,
    title: params.get("title") || base.title,
    ui: params.has("noui") ? !flag(params, "noui") : base.ui,
    animation: params.has("noanim") ? !flag(params, "noanim") : base.animation,
    stats: on("stats", base.stats),
    cameras: on("cameras", base.cameras),
    theme: read("theme") ?? base.theme,
    background: read("bg") ?? base.background,
    backend: read("backend") ?? base.backend,
    mode: read("mode") ?? base.mode,
    up: read("up") ?? base.up,
    view: read("view") ?? base.view,
    time: read("time") ?? read("t") ?? base.time,
    fov: read("fov") ?? base.fov,
    quality: read("quality") ?? base.quality,
    adaptive: on("adaptive", base.adaptive),
    budget: read("budget") ?? base.budget,
    degree: Math.floor(read("degree") ?? base.degree),
  };
}

/** "#rrggbb" or "rrggbb" as shares of 1; null for anything else. */
export function colourOf(text: string): [number, number, number] | null {
  const hex = /^#?([0-9a-f]{6})$/i.exec(text)?.[1];
  if (!hex) return null;
  const [r, g, b] = [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255);
  return [r!, g!, b!];
}

/** "rrggbb". */
export function formatColour(rgb: readonly number[]): string {
  return rgb
    .map((x) =>
      Math.round(255 * x)
        .toString(16)
        .padStart(2, "0"),
    )
    .join("");
}

/** A settings file as parameters: the same names, with JSON values. Throws what is wrong, by name. */
export function parametersOf(file: unknown): URLSearchParams {
  const data = file as Record<string, unknown>;
  if (typeof data !== "object" || data === null || Array.isArray(data))
    throw new Error("not an object of settings");
  if (data.version !== SETTINGS_VERSION)
    throw new Error(`"version" must be ${SETTINGS_VERSION}, not ${JSON.stringify(data.version)}`);
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(data)) {
    if (typeof value === "boolean") params.set(name, value ? "1" : "0");
    else if (typeof value === "string" || typeof value === "number")
      params.set(name, String(value));
    else if (Array.isArray(value) && value.every((x) => typeof x === "number"))
      params.set(name, value.join(","));
  }
  const [wrong] = leftOut(params);
  if (wrong) throw new Error(`"${wrong.split("=")[0]}" cannot be ${wrong.split("=")[1]}`);
  return params;
}

/** `base` changed by a settings file: the parameters' names with JSON values, and lists. */
export function fromFile(file: unknown, base: Settings): Settings {
  const settings = fromParameters(parametersOf(file), base);
  const data = file as Record<string, unknown>;
  return {
    ...settings,
    annotations: listOf(data, "annotations", isAnnotation) ?? base.annotations,
    captureCameras: listOf(data, "captureCameras", isCamera) ?? base.captureCameras,
  };
}

function listOf<T>(
  data: Record<string, unknown>,
  name: string,
  isItem: (item: T) => boolean,
): T[] | null {
  const list = data[name];
  if (list === undefined) return null;
  if (!Array.isArray(list)) throw new Error(`"${name}" must be a list`);
  const wrong = list.findIndex((item) => !isItem(item));
  if (wrong >= 0) throw new Error(`"${name}", entry ${wrong + 1}, lacks what such an entry needs`);
  return list;
}

function isNumbers(value: unknown, count: number): value is number[] {
  return Array.isArray(value) && value.length === count && value.every((x) => Number.isFinite(x));
}

function isAnnotation(value: Annotation): boolean {
  return typeof value?.title === "string" && isNumbers(value.position, 3);
}

export function isCamera(value: CaptureCamera): boolean {
  return isNumbers(value?.c2w, 16) && isNumbers(value.K, 9) && value.width > 0 && value.height > 0;
}
