import type { Mode } from "./camera/rig";
import type { Annotation, CaptureCamera, View } from "./decode/protocol";
import type { Backend } from "./engine/stage";

/** Everything that an address or a settings file may say. */
export interface Settings {
  content: string | null;
  poster: string | null;
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

/** `base` changed by the address' parameters; what does not parse is left out. */
export function fromParameters(params: URLSearchParams, base: Settings): Settings {
  const rgb = /^#?([0-9a-f]{6})$/i.exec(params.get("bg") ?? "")?.[1];
  const on = (name: string, start: boolean) => (params.has(name) ? flag(params, name) : start);
  return {
    ...base,
    content: params.get("content") ?? base.content,
    poster: params.get("poster") ?? base.poster,
    title: params.get("title") ?? base.title,
    ui: params.has("noui") ? !flag(params, "noui") : base.ui,
    animation: params.has("noanim") ? !flag(params, "noanim") : base.animation,
    stats: on("stats", base.stats),
    cameras: on("cameras", base.cameras),
    theme: oneOf(params.get("theme"), ["auto", "light", "dark"]) ?? base.theme,
    background: rgb ? colorOf(rgb) : base.background,
    backend: oneOf(params.get("backend"), ["webgpu", "webgl2"]) ?? base.backend,
    mode: oneOf(params.get("mode"), ["orbit", "fly", "walk"]) ?? base.mode,
    up:
      axisNamed(params.get("up") ?? "") ??
      (numbers(params.get("up"), 3) as Settings["up"]) ??
      base.up,
    view: parseView(params.get("view")) ?? base.view,
    fov: between(params.get("fov"), 10, 150) ?? base.fov,
    quality: between(params.get("quality"), 1, 5) ?? base.quality,
    adaptive: on("adaptive", base.adaptive),
    budget: between(params.get("budget"), 1, 1e8) ?? base.budget,
    degree: Math.floor(between(params.get("degree"), 0, 3) ?? base.degree),
  };
}

function colorOf(hex: string): [number, number, number] {
  return [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255) as [
    number,
    number,
    number,
  ];
}

/** `base` changed by a settings file: the parameters' names with JSON values, and lists. */
export function fromFile(file: unknown, base: Settings): Settings {
  const data = file as Record<string, unknown> & {
    annotations?: Annotation[];
    captureCameras?: CaptureCamera[];
  };
  if (typeof data !== "object" || data === null || data.version !== SETTINGS_VERSION) {
    throw new Error(`settings need "version": ${SETTINGS_VERSION}`);
  }
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(data)) {
    if (typeof value === "boolean") params.set(name, value ? "1" : "0");
    else if (typeof value === "string" || typeof value === "number")
      params.set(name, String(value));
    else if (Array.isArray(value) && value.every((x) => typeof x === "number"))
      params.set(name, value.join(","));
  }
  const settings = fromParameters(params, base);
  const annotations = Array.isArray(data.annotations)
    ? data.annotations.filter(isAnnotation)
    : base.annotations;
  const captureCameras = Array.isArray(data.captureCameras)
    ? data.captureCameras.filter(isCamera)
    : base.captureCameras;
  return { ...settings, annotations, captureCameras };
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
