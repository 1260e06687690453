import schema from "../../../../../mobile_export/manifest.schema.json";
import { SceneError } from "../errors";
import { damaged } from "./bytes";
import type { Manifest } from "./manifest.gen";

interface Rule {
  $ref?: string;
  oneOf?: Rule[];
  const?: unknown;
  enum?: unknown[];
  type?: string | string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  pattern?: string;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  items?: Rule;
  required?: string[];
  properties?: Record<string, Rule>;
}

const DEFINITIONS = schema.$defs as unknown as Record<string, Rule>;
const KINDS: readonly string[] = schema.properties.kind.enum;

/** The manifest's JSON, checked: format, version, kind, then structure. Throws SceneError. */
export function parseManifest(bytes: Uint8Array): Manifest {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    checkStrict(text);
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(`manifest.json is not valid JSON (${error})`);
  }
  const head = value as Partial<Record<"format" | "version" | "kind", unknown>> | null;
  if (typeof head !== "object" || head === null || head.format !== "s4d") {
    throw new SceneError("format", "bundle", "manifest.json does not say format s4d");
  }
  if (typeof head.version !== "string" || !/^1\.\d{1,4}$/.test(head.version)) {
    throw new SceneError("version", "bundle", `is of version ${head.version}; 1.x is known`);
  }
  if (!KINDS.includes(head.kind as string)) {
    throw new SceneError(
      "kind",
      "bundle",
      `is of kind ${head.kind}; ${KINDS.join(", ")} are known`,
    );
  }
  const fault = faults(value, schema as unknown as Rule, "").next().value;
  if (fault) throw damaged(`manifest.json: ${fault}`);
  return value as Manifest;
}

const DEEPEST = 64;

/** Refuses what JSON.parse lets pass: repeated keys, numbers beyond double, endless nesting. */
function checkStrict(text: string): void {
  const token = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|-?\d[\d.eE+-]*/g;
  const objects: (Set<string> | null)[] = [];
  let previous = "";
  for (const [found] of text.matchAll(token)) {
    if (found === "{") objects.push(new Set());
    else if (found === "[") objects.push(null);
    else if (found === "}" || found === "]") objects.pop();
    else if (found === ":") {
      const keys = objects.at(-1);
      if (keys?.has(previous)) throw new Error(`the key ${previous} is given twice`);
      keys?.add(previous);
    } else if (/^[-\d]/.test(found) && !Number.isFinite(Number(found))) {
      throw new Error(`${found} is no finite number`);
    }
    if (objects.length > DEEPEST) throw new Error("nested too deeply");
    previous = found;
  }
}

function* faults(value: unknown, given: Rule, at: string): Generator<string> {
  const rule = given.$ref ? DEFINITIONS[given.$ref.split("/").at(-1)!]! : given;
  if (rule.oneOf) {
    const fits = rule.oneOf.some((option) => faults(value, option, at).next().done);
    if (!fits) yield `${at} is none of the allowed forms`;
    return;
  }
  if (rule.const !== undefined && value !== rule.const) yield `${at} must be ${rule.const}`;
  if (rule.enum && !rule.enum.includes(value)) yield `${at} must be one of ${rule.enum.join(", ")}`;
  if (rule.type && ![rule.type].flat().some((t) => isOf(value, t))) {
    yield `${at || "the manifest"} must be of type ${rule.type}`;
    return;
  }
  if (typeof value === "number") yield* numberFaults(value, rule, at);
  else if (typeof value === "string") {
    if (rule.pattern && !new RegExp(rule.pattern).test(value))
      yield `${at} does not match ${rule.pattern}`;
    if (value.length > (rule.maxLength ?? value.length)) yield `${at} is too long`;
  } else if (Array.isArray(value)) yield* listFaults(value, rule, at);
  else if (typeof value === "object" && value !== null) {
    yield* objectFaults(value as Record<string, unknown>, rule, at);
  }
}

function isOf(value: unknown, type: string): boolean {
  if (type === "integer") return Number.isInteger(value);
  if (type === "number") return Number.isFinite(value);
  if (type === "array") return Array.isArray(value);
  if (type === "null") return value === null;
  if (type === "object")
    return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}

function* numberFaults(value: number, rule: Rule, at: string): Generator<string> {
  const low = rule.minimum ?? Number.NEGATIVE_INFINITY;
  if (value < low || value > (rule.maximum ?? Number.POSITIVE_INFINITY))
    yield `${at} is out of range: ${value}`;
  if (rule.exclusiveMinimum !== undefined && value <= rule.exclusiveMinimum) {
    yield `${at} must be above ${rule.exclusiveMinimum}`;
  }
}

function* listFaults(value: unknown[], rule: Rule, at: string): Generator<string> {
  if (value.length < (rule.minItems ?? 0) || value.length > (rule.maxItems ?? value.length)) {
    yield `${at} has ${value.length} items`;
  } else if (rule.items) {
    for (const [i, item] of value.entries()) yield* faults(item, rule.items, `${at}[${i}]`);
  }
}

function* objectFaults(value: Record<string, unknown>, rule: Rule, at: string): Generator<string> {
  const inside = (name: string) => (at ? `${at}.${name}` : name);
  for (const name of rule.required ?? []) {
    if (!Object.hasOwn(value, name)) yield `${inside(name)} is missing`;
  }
  for (const [name, item] of Object.entries(value)) {
    const known = rule.properties?.[name];
    if (known) yield* faults(item, known, inside(name));
  }
}
