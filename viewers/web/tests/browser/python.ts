/** scene4d's own command, for tests of what it exports and serves. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { ROOT } from "./harness";

const PYTHON = [
  process.env.SCENE4D_PYTHON,
  join(ROOT, "../../.venv/bin/python"),
  join(ROOT, "../../.venv/Scripts/python.exe"),
].find((path) => path && existsSync(path));

/** Tests that need Python are left out where it is not installed (make test-player), never in CI. */
export const withoutPython = !PYTHON && !process.env.CI;

const ARGUMENTS = ["-m", "scene4d.cli.main"];

/**
 * Runs commands one after the other in one process: to import everything takes seconds. A word with
 * a star is what it stands for by then, as in a shell.
 */
export async function scene4d(...commands: string[][]): Promise<void> {
  if (!PYTHON) throw new Error("no Python with scene4d; set SCENE4D_PYTHON");
  const script =
    "import glob, json, sys; from scene4d.cli.main import main; " +
    "found = lambda word: glob.glob(word) if '*' in word else [word]; " +
    "sys.exit(max(main([f for word in words for f in found(word)]) " +
    "for words in json.loads(sys.argv[1])))";
  await promisify(execFile)(PYTHON, ["-c", script, JSON.stringify(commands)]);
}

export interface Viewing {
  /** What the verb printed: an address that ends with the token and a slash. */
  url: string;
  /** What it told besides. */
  told: () => string;
  /** Ctrl-C; resolves to the exit status. */
  end: () => Promise<number | null>;
}

/** `scene4d view ...`, once it has said where. */
export async function viewing(...args: string[]): Promise<Viewing> {
  if (!PYTHON) throw new Error("no Python with scene4d; set SCENE4D_PYTHON");
  const child: ChildProcess = spawn(PYTHON, [...ARGUMENTS, "view", "--no-open", ...args]);
  let told = "";
  child.stderr!.on("data", (data) => {
    told += data;
  });
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const url = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout!.on("data", (data) => {
      text += data;
      if (text.includes("\n")) resolve(text.trim());
    });
    child.on("error", reject);
    void ended.then((code) => reject(new Error(`scene4d view ended with ${code}: ${told}`)));
  });
  const end = () => {
    child.kill("SIGINT");
    return ended;
  };
  return { url, told: () => told, end };
}
