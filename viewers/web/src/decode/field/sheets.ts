import type { FieldShape } from "./field";

/** Texels of a stored tile along an axis. */
export const TILE = 8;
/** Texels of a tile's cell in the atlas: its own and its neighbours' next ones. */
export const CELL = TILE + 1;
/** Cells in a row of the atlas: at most 4096 texels. */
const MAX_ACROSS = 455;

/** Places where tiles could be, of all slabs and planes. */
export function tilePlaces({ slabs, sheets }: FieldShape): number {
  if (!sheets) return 0;
  const { columns, rows } = sheets;
  return slabs.length * slabs[0]!.disparities.length * (rows / TILE) * (columns / TILE);
}

/** Cells across and down of the atlas of `tiles` tiles, of which there may be none. */
export function atlasCells(tiles: number): { across: number; down: number } {
  const across = Math.max(1, Math.min(MAX_ACROSS, tiles));
  return { across, down: Math.max(1, Math.ceil(tiles / across)) };
}

/**
 * The sheets of all slabs: multiplane images of premultiplied colour, of which some tiles are
 * stored. Each has a cell of 9 x 9 texels, so that one bilinear look-up needs no other cell.
 */
export interface FieldSheets {
  /** For each place, in the order slab, plane, row, column: 0, or 1 + the number of its tile. */
  readonly index: Uint32Array<ArrayBuffer>;
  /** Cells row by row: RGBA, 8 bits. */
  readonly atlas: Uint8Array<ArrayBuffer>;
  /** Texels. */
  readonly width: number;
  readonly height: number;
}

/** Bytes of an atlas and its index. */
export function sheetBytes({ index, atlas }: FieldSheets): number {
  return index.byteLength + atlas.byteLength;
}

/**
 * An atlas of `texels` [tiles, 8, 8, 4], in 1 / 255; `index`: for each place 0, or 1 + the number
 * of its tile.
 */
export function makeSheets(
  shape: FieldShape,
  index: Uint32Array<ArrayBuffer>,
  texels: Uint8Array<ArrayBuffer>,
): FieldSheets {
  const across = shape.sheets!.columns / TILE;
  const down = shape.sheets!.rows / TILE;
  const cells = atlasCells(shape.sheets!.tiles);
  const [width, height] = [CELL * cells.across, CELL * cells.down];
  // Whole texels, four bytes each.
  const cellTexels = new Uint32Array(width * height);
  const tileTexels = new Uint32Array(texels.buffer, texels.byteOffset, texels.length / 4);
  /** Copies `columns` x `rows` first texels of a tile to (x, y) of a cell. */
  const copy = (
    tile: number,
    cell: number,
    x: number,
    y: number,
    columns: number,
    rows: number,
  ) => {
    if (tile === 0) return;
    const left = CELL * (cell % cells.across) + x;
    const top = CELL * Math.floor(cell / cells.across) + y;
    for (let v = 0; v < rows; v++) {
      const from = TILE * (TILE * (tile - 1) + v);
      const to = (top + v) * width + left;
      for (let u = 0; u < columns; u++) cellTexels[to + u] = tileTexels[from + u]!;
    }
  };
  for (let i = 0; i < index.length; i++) {
    if (index[i] === 0) continue;
    const cell = index[i]! - 1;
    const right = (i % across) + 1 < across;
    const below = (Math.floor(i / across) % down) + 1 < down;
    copy(index[i]!, cell, 0, 0, TILE, TILE);
    if (right) copy(index[i + 1]!, cell, TILE, 0, 1, TILE);
    if (below) copy(index[i + across]!, cell, 0, TILE, TILE, 1);
    if (right && below) copy(index[i + across + 1]!, cell, TILE, TILE, 1, 1);
  }
  return { index, atlas: new Uint8Array(cellTexels.buffer), width, height };
}

/** Place and offset of the texel that holds (x, y) of a sheet, x and y in texels. */
export function cellOf(
  { sheets, slabs }: FieldShape,
  slab: number,
  plane: number,
  x: number,
  y: number,
): { place: number; x: number; y: number } {
  const { columns, rows } = sheets!;
  const column = Math.floor(Math.min(Math.floor(x), columns - 2) / TILE);
  const row = Math.floor(Math.min(Math.floor(y), rows - 2) / TILE);
  const sheet = slab * slabs[0]!.disparities.length + plane;
  const place = (sheet * (rows / TILE) + row) * (columns / TILE) + column;
  return { place, x: x - TILE * column, y: y - TILE * row };
}

/** Red, green, blue (times alpha) and alpha of a sheet at (x, y); null: its tile is not stored. */
export function sheetAt(
  shape: FieldShape,
  { index, atlas, width }: FieldSheets,
  slab: number,
  plane: number,
  x: number,
  y: number,
): number[] | null {
  const at = cellOf(shape, slab, plane, x, y);
  const tile = index[at.place]!;
  if (tile === 0) return null;
  const across = width / CELL;
  // At the far edge of a sheet the fraction is 1.
  const [u, v] = [Math.min(TILE - 1, Math.floor(at.x)), Math.min(TILE - 1, Math.floor(at.y))];
  const [fx, fy] = [at.x - u, at.y - v];
  const left = CELL * ((tile - 1) % across) + u;
  const top = CELL * Math.floor((tile - 1) / across) + v;
  const texel = (dx: number, dy: number, c: number) =>
    atlas[4 * ((top + dy) * width + left + dx) + c]! / 255;
  return [0, 1, 2, 3].map((c) => {
    const upper = (1 - fx) * texel(0, 0, c) + fx * texel(1, 0, c);
    const lower = (1 - fx) * texel(0, 1, c) + fx * texel(1, 1, c);
    return (1 - fy) * upper + fy * lower;
  });
}
