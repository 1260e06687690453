import type { FieldShape } from "../field/field";
import { atlasCells, CELL, type FieldSheets, makeSheets, TILE, tilePlaces } from "../field/sheets";
import { damaged } from "./bytes";
import { carriedBytes, checkLimit, VALUES } from "./limits";
import type { Manifest } from "./manifest.gen";
import type { StageDecoder } from "./stages";
import { CHANNELS, tileTexels } from "./tile-transform";

const MAX_PLACES = 2 ** 22;
const LEAST_DISPARITY = 1e-15;

/** What the schema cannot say of an entry's sheets. */
export function checkSheets(shape: FieldShape): void {
  const { sheets, slabs } = shape;
  if (!sheets) return;
  if (sheets.steps.some((steps) => steps.length !== sheets.steps[0]!.length)) {
    throw damaged("channels of sheets have different numbers of frequencies");
  }
  if (sheets.columns % TILE !== 0 || sheets.rows % TILE !== 0) {
    throw damaged("sheets are not made of whole tiles");
  }
  if (slabs.some(({ disparities }) => !(disparities[0]! >= LEAST_DISPARITY))) {
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
  const { tiles, steps } = shape.sheets;
  return [
    ["sheet_tiles", [tilePlaces(shape), 1, 0]],
    ["sheet_levels", [tiles, 1, 0]],
    ["sheet_frequencies", [tiles, CHANNELS * steps[0]!.length, 0]],
  ];
}

export function checkSheetArrays(manifest: Manifest, shape: FieldShape): void {
  if (shape.sheets && manifest.arrays.some((a) => a.name.startsWith("sheet_") && a.quantiser)) {
    throw damaged("an array of sheets has a quantiser");
  }
  if (shape.sheets) {
    const texels = CHANNELS * TILE * TILE * shape.sheets.tiles;
    checkLimit(VALUES, texels, carriedBytes(manifest));
  }
}

/** Bytes of sheets beside their codes: the texels; and atlas and index of worker, page, texture. */
export function sheetMemory(shape: FieldShape): number {
  if (!shape.sheets) return 0;
  const { tiles } = shape.sheets;
  const { across, down } = atlasCells(tiles);
  const atlas = CHANNELS * CELL * CELL * across * down;
  return CHANNELS * TILE * TILE * tiles + 3 * (atlas + 4 * tilePlaces(shape));
}

/** The sheets of a bundle whose first stage is decoded, once; null: it has none. */
export function readSheets(decoder: StageDecoder, shape: FieldShape): FieldSheets | null {
  if (!shape.sheets) return null;
  const { tiles, steps } = shape.sheets;
  const index = tileNumbers(decoder.take("sheet_tiles")[0]!, tiles);
  const [levels, frequencies] = [decoder.take("sheet_levels"), decoder.take("sheet_frequencies")];
  return makeSheets(shape, index, tileTexels(frequencies, levels[0]!, steps));
}

/** For each place 0, or 1 + the number of its tile. */
function tileNumbers(stored: Int32Array, tiles: number): Uint32Array<ArrayBuffer> {
  const index = new Uint32Array(stored.length);
  let found = 0;
  for (let i = 0; i < index.length; i++) {
    if (stored[i] !== 0 && stored[i] !== 1) throw damaged("a tile is neither stored nor not");
    if (stored[i] === 1) index[i] = ++found;
  }
  if (found !== tiles) throw damaged(`not ${tiles} tiles are stored, but ${found}`);
  return index;
}
