import { damaged } from "./bytes";
import type { Array as ArrayEntry, Manifest } from "./manifest.gen";

/** At most `free` + `perByte` for each byte of the codes, and never more than `most`. */
interface Limit {
  what: string;
  free: number;
  perByte: number;
  most: number;
}

const POINTS: Limit = { what: "points", free: 2 ** 18, perByte: 2, most: 2 ** 24 };
const CODES: Limit = { what: "codes", free: 2 ** 22, perByte: 32, most: 2 ** 29 };
/** Numbers that codes become: those of arrays, of Gaussians, of the texels of MPIs. */
export const VALUES: Limit = { what: "values", free: 2 ** 22, perByte: 64, most: 2 ** 30 };
/** Multiplications of a network that is evaluated when a bundle is opened. */
export const PRODUCTS: Limit = { what: "products", free: 2 ** 32, perByte: 2 ** 16, most: 2 ** 40 };
/** Distances from which the nodes of moving splats are told. */
export const DISTANCES: Limit = { what: "distances", free: 2 ** 26, perByte: 1024, most: 2 ** 32 };
const MAX_CHANNELS = 16384;
const MAX_REFERENCES = 4;

/** Bytes of all streams, which fill the members of the stages. */
export function carriedBytes({ stages }: Manifest): number {
  return stages.reduce((sum, s) => sum + s.streams.reduce((part, t) => part + t.length, 0), 0);
}

/** Refuses more than the bytes that carry a bundle's codes can mean. Throws `damaged`. */
export function checkLimit({ what, free, perByte, most }: Limit, declared: number, bytes: number) {
  const limit = Math.min(most, free + perByte * bytes);
  if (!(declared <= limit)) {
    throw damaged(`declares ${declared} ${what} in ${bytes} bytes of codes; ${limit} at most`);
  }
}

/** The bounds of SPEC.md, section 2, and that no byte is counted twice or for nothing. */
export function checkLimits(manifest: Manifest): void {
  checkStreams(manifest);
  const { stages, arrays, count, sh_degree } = manifest;
  const bytes = carriedBytes(manifest);
  const points = stages.reduce((sum, s) => sum + s.points, 0);
  const channels = arrays.reduce((sum, a) => sum + a.components, 0);
  if (channels > MAX_CHANNELS) throw damaged(`more than ${MAX_CHANNELS} channels`);
  checkLimit(POINTS, points, bytes);
  const entries = new Map(arrays.map((a) => [a.name, a]));
  const sum = (width: (a: ArrayEntry) => number) =>
    arrays.reduce((total, a) => total + (a.items ?? points) * width(a), 0);
  checkLimit(
    CODES,
    sum((a) => a.components),
    bytes,
  );
  checkLimit(
    VALUES,
    sum((a) => columns(a, entries)),
    bytes,
  );
  checkLimit(VALUES, count * (11 + 3 * (sh_degree + 1) ** 2), bytes);
}

/** Values of one item; what refers to nothing or to itself is refused when it is used. */
export function columns(
  a: ArrayEntry,
  entries: ReadonlyMap<string, ArrayEntry>,
  depth = 0,
): number {
  const of = (name: string | undefined) => {
    const found = name === undefined ? undefined : entries.get(name);
    return found && depth < MAX_REFERENCES ? columns(found, entries, depth + 1) : null;
  };
  const book = a.quantiser?.type === "codebook" ? of(a.quantiser.array) : null;
  return of(a.basis) ?? a.components * (book ?? 1);
}

/** The streams of a stage lie one behind the other and fill its member, which is its own. */
function checkStreams({ stages, members, poster, tables, references }: Manifest): void {
  const lengths = new Map(members.map((m) => [m.name, m.length]));
  const used = new Set([poster, tables, ...references.map((r) => r.member)]);
  for (const [number, { member, streams }] of stages.entries()) {
    if (used.has(member)) throw damaged(`member ${member} of stage ${number} is used elsewhere`);
    used.add(member);
    let at = 0;
    for (const stream of streams) {
      if (stream.offset !== at) throw damaged(`streams of stage ${number} overlap or leave a gap`);
      at += stream.length;
    }
    if (at !== lengths.get(member)) throw damaged(`streams do not fill their member ${member}`);
  }
}
