import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const ROOT = join(import.meta.dirname, "..");
const MODULES = join(ROOT, "node_modules");

/** The file with the licences of everything that travels in the build. */
export const NOTICES = "THIRD-PARTY-NOTICES.txt";

interface Package {
  name: string;
  version: string;
  license?: string;
  dependencies?: Record<string, string>;
}

function described(folder: string): Package {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
}

/** Names of the packages that the player needs at run time, with what these need. */
function shipped(): string[] {
  const found = new Set<string>();
  const visit = (names: string[]) => {
    for (const name of names) {
      if (found.has(name)) continue;
      found.add(name);
      visit(Object.keys(described(join(MODULES, name)).dependencies ?? {}));
    }
  };
  visit(Object.keys(described(ROOT).dependencies ?? {}));
  return [...found].sort();
}

/** The text of the notices. Throws where a package has no licence text. */
export function notices(): string {
  const own = readFileSync(join(ROOT, "../../LICENSE"), "utf8");
  const parts = shipped().map((name) => {
    const folder = join(MODULES, name);
    const file = readdirSync(folder).find((f) => /^(licen[cs]e|copying)(\.|$)/i.test(f));
    if (!file) throw new Error(`${name} has no licence text to ship`);
    const { version, license } = described(folder);
    const text = readFileSync(join(folder, file), "utf8").trim();
    return `${name} ${version} (${license ?? "see below"})\n\n${text}\n`;
  });
  const head =
    "The scene4d player is licensed under the Apache License, Version 2.0 (at the end).\n";
  const rule = `\n${"-".repeat(78)}\n\n`;
  return [`${head}It contains the following software.\n`, ...parts, own.trim(), ""].join(rule);
}

/** Writes the notices into the build; fails where a module comes from a package without one. */
export function thirdPartyNotices(): Plugin {
  return {
    name: "scene4d-notices",
    apply: "build",
    generateBundle(_, bundle) {
      const known = shipped();
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        for (const id of Object.keys(chunk.modules)) {
          const name = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id)?.[1];
          if (name && !known.includes(name) && existsSync(join(MODULES, name))) {
            throw new Error(`${name} is in the build, but is no dependency of package.json`);
          }
        }
      }
      this.emitFile({ type: "asset", fileName: NOTICES, source: notices() });
    },
  };
}
