import type { FieldShape } from "../field/field";
import { atlasCells, CELL, type FieldSheets, makeSheets, TILE, tilePlaces } from "../field/sheets";
import { damaged } from "./bytes";
import type { Manifest } from "./manifest.gen";
import type { StageDecoder } from "./stages";

const MAX_PLACES = 2 ** 22;
const CHANNELS = 4;
/** Codes of one row of a tile, and of a tile. */
const ROW = CHANNELS * TILE;
const CODES = TILE * ROW;

/** What the schema cannot say of an entry's sheets. */
export function checkSheets(shape: FieldShape): void {
  const { sheets, slabs } = shape;
  if (!sheets) return;
  if (sheets.columns % TILE !== 0 || sheets.rows % TILE !== 0) {
    throw damaged("sheets are not made of whole tiles");
  }
  if (slabs.some(({ disparities }) => !(disparities[0]! > 0))) {
    throw damaged("a slab has a sheet at infinity");
  }
  const places = tilePlaces(shape);
  if (places > MAX_PLACES || sheets.tiles > places) {
    throw damaged(`sheets have ${sheets.tiles} tiles and ${places} places of them`);
  }
}

/** Items, components and stage of the sheets' arrays. */
export function sheetArrays(shape: FieldShape): [string, [number, number, number]][] {
  if (!shape.sheets) return [];
  return [
    ["sheet_tiles", [tilePlaces(shape), 1, 0]],
    ["sheet_texels", [TILE * TILE * shape.sheets.tiles, CHANNELS, 0]],
  ];
}

export function checkSheetArrays({ arrays }: Manifest, shape: FieldShape): void {
  if (shape.sheets && arrays.some((a) => a.name.startsWith("sheet_") && a.quantiser)) {
    throw damaged("an array of sheets has a quantiser");
  }
}

/** Bytes of sheets: their numbers; and the atlas and index of worker, page and texture. */
export function sheetMemory(shape: FieldShape): number {
  if (!shape.sheets) return 0;
  const { tiles } = shape.sheets;
  const { across, down } = atlasCells(tiles);
  const atlas = 4 * CELL * CELL * across * down;
  return 6 * CODES * tiles + 4 * tilePlaces(shape) + 3 * (atlas + 2 * tilePlaces(shape));
}

/** The sheets of a bundle whose first stage is decoded; null: it has none. */
export function readSheets(decoder: StageDecoder, shape: FieldShape): FieldSheets | null {
  if (!shape.sheets) return null;
  const { tiles, step } = shape.sheets;
  const index = tileNumbers(decoder.fixed("sheet_tiles").data, tiles);
  const codes = texelCodes(shape, index, decoder.fixed("sheet_texels").data);
  const values = Uint8Array.from({ length: 256 }, (_, c) =>
    Math.min(255, Math.floor(step * c + 0.5)),
  );
  return makeSheets(
    shape,
    index,
    codes.map((code) => values[code]!),
  );
}

/** For each place 0, or 1 + the number of its tile. */
function tileNumbers(stored: Float32Array, tiles: number): Uint16Array<ArrayBuffer> {
  const index = new Uint16Array(stored.length);
  let found = 0;
  for (let i = 0; i < index.length; i++) {
    if (stored[i] !== 0 && stored[i] !== 1) throw damaged("a tile is neither stored nor not");
    if (stored[i] === 1) index[i] = ++found;
    if (found > tiles) break;
  }
  if (found !== tiles) throw damaged(`not ${tiles} tiles are stored, but ${found}`);
  return index;
}

/**
 * [tiles, 8, 8, 4]: codes of texels from what they differ by from their neighbours to the left and
 * above (SPEC.md, section 8).
 */
export function texelCodes(
  { sheets, slabs }: FieldShape,
  index: Uint16Array,
  items: ArrayLike<number>,
): Uint8Array<ArrayBuffer> {
  const [across, down] = [sheets!.columns / TILE, sheets!.rows / TILE];
  const count = sheets!.tiles * CODES;
  // Behind the last tile stands the texel of what is not stored.
  const codes = new Uint8Array(count + CHANNELS);
  const sheetCount = slabs.length * slabs[0]!.disparities.length;
  for (let place = 0; place < sheetCount * down * across; place++) {
    if (index[place] === 0) continue;
    const start = (offset: number, there: boolean) => {
      const number = there ? index[place - offset]! : 0;
      return number > 0 ? (number - 1) * CODES : -1;
    };
    const notFirst = place % across > 0;
    const notTop = Math.floor(place / across) % down > 0;
    decodeTile(codes, items, {
      here: start(0, true),
      left: start(1, notFirst),
      above: start(across, notTop),
      corner: start(across + 1, notFirst && notTop),
    });
  }
  return codes.subarray(0, count);
}

/** Where the codes of a tile and of its neighbours begin; -1: not stored. */
interface Around {
  here: number;
  left: number;
  above: number;
  corner: number;
}

function decodeTile(
  codes: Uint8Array,
  items: ArrayLike<number>,
  { here, left, above, corner }: Around,
): void {
  const none = codes.length - CHANNELS;
  const last = ROW - CHANNELS;
  const bottom = CODES - ROW;
  for (let y = 0; y < TILE; y++) {
    for (let x = 0; x < TILE; x++) {
      const at = here + ROW * y + CHANNELS * x;
      let [w, n, nw] = [at - CHANNELS, at - ROW, at - ROW - CHANNELS];
      if (x === 0) {
        w = left < 0 ? none : left + ROW * y + last;
        nw = left < 0 ? none : left + ROW * (y - 1) + last;
      }
      if (y === 0) {
        n = above < 0 ? none : above + bottom + CHANNELS * x;
        nw = above < 0 ? none : above + bottom + CHANNELS * (x - 1);
        if (x === 0) nw = corner < 0 ? none : corner + CODES - CHANNELS;
      }
      // Rows take turns in their direction.
      decodeTexel(codes, at, [w, n, nw], items, here + ROW * y + CHANNELS * (y % 2 ? 7 - x : x));
    }
  }
}

/** The texel at `at` from those to its left, above it, and to the left of that one. */
function decodeTexel(
  codes: Uint8Array,
  at: number,
  [w, n, nw]: [number, number, number],
  items: ArrayLike<number>,
  from: number,
): void {
  const [wa, na, nwa] = [codes[w + 3]!, codes[n + 3]!, codes[nw + 3]!];
  const [low, high] = wa < na ? [wa, na] : [na, wa];
  const median = nwa >= high ? low : nwa <= low ? high : wa + na - nwa;
  const alpha = median + items[from]!;
  const total = wa + na;
  const expected = (c: number) =>
    total === 0
      ? Math.floor(alpha / 2)
      : Math.floor((2 * alpha * (codes[w + c]! + codes[n + c]!) + total) / (2 * total));
  const e1 = items[from + 1]!;
  const red = expected(0) + e1 + items[from + 2]!;
  const green = expected(1) + e1;
  const blue = expected(2) + e1 + items[from + 3]!;
  if (!(Math.min(alpha, red, green, blue) >= 0 && Math.max(alpha, red, green, blue) <= 255)) {
    throw damaged("a texel of a sheet has a code outside 0 to 255");
  }
  codes[at] = red;
  codes[at + 1] = green;
  codes[at + 2] = blue;
  codes[at + 3] = alpha;
}
