/** Writes the manifest's TypeScript types from its JSON schema; part of every build and check. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "json-schema-to-typescript";

const root = join(import.meta.dirname, "..");
const schemaFile = join(root, "../../mobile_export/manifest.schema.json");
const target = join(root, "src/decode/bundle/manifest.gen.ts");

/** Fixed lengths would become tuple types with thousands of alternatives; they are checked anyway. */
function withoutLengths(value) {
  if (Array.isArray(value)) return value.map(withoutLengths);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([k]) => k !== "minItems" && k !== "maxItems");
  return Object.fromEntries(kept.map(([k, v]) => [k, withoutLengths(v)]));
}

export async function writeManifestTypes() {
  const schema = withoutLengths(JSON.parse(readFileSync(schemaFile, "utf8")));
  const text = await compile(schema, "Manifest", {
    bannerComment:
      "/* Made from mobile_export/manifest.schema.json by build/manifest-types.mjs. */",
    additionalProperties: false,
  });
  writeFileSync(target, text);
}

if (process.argv[1] === import.meta.filename) await writeManifestTypes();
