import type { FieldShape } from "./field";

/** Texels of a stored block along an axis. */
export const BLOCK = 8;
/** Texels of a block's cell in the atlas: its own and its neighbours' next ones. */
export const CELL = BLOCK + 1;
/** Cells in a row of the atlas: at most 4096 texels. */
const MAX_ACROSS = 455;

/** Places where blocks could be, of all slabs and planes. */
export function blockPlaces({ slabs, mpi }: FieldShape): number {
  if (!mpi) return 0;
  const { columns, rows } = mpi;
  return slabs.length * slabs[0]!.disparities.length * (rows / BLOCK) * (columns / BLOCK);
}

/** Cells across and down of the atlas of `blocks` blocks, of which there may be none. */
export function atlasCells(blocks: number): { across: number; down: number } {
  const across = Math.max(1, Math.min(MAX_ACROSS, blocks));
  return { across, down: Math.max(1, Math.ceil(blocks / across)) };
}

/**
 * The MPIs of all slabs: multiplane images of premultiplied colour, of which some blocks are
 * stored. Each has a cell of 9 x 9 texels, so that one bilinear look-up needs no other cell.
 */
export interface FieldMpi {
  /** For each place, in the order slab, plane, row, column: 0, or 1 + the number of its block. */
  readonly index: Uint32Array<ArrayBuffer>;
  /** Cells row by row: RGBA, 8 bits. */
  readonly atlas: Uint8Array<ArrayBuffer>;
  /** Texels. */
  readonly width: number;
  readonly height: number;
}

/** Bytes of an atlas and its index. */
export function mpiBytes({ index, atlas }: FieldMpi): number {
  return index.byteLength + atlas.byteLength;
}

/**
 * An atlas of `texels` [blocks, 8, 8, 4], in 1 / 255; `index`: for each place 0, or 1 + the number
 * of its block.
 */
export function makeMpi(
  shape: FieldShape,
  index: Uint32Array<ArrayBuffer>,
  texels: Uint8Array<ArrayBuffer>,
): FieldMpi {
  const across = shape.mpi!.columns / BLOCK;
  const down = shape.mpi!.rows / BLOCK;
  const cells = atlasCells(shape.mpi!.blocks);
  const [width, height] = [CELL * cells.across, CELL * cells.down];
  // Whole texels, four bytes each.
  const cellTexels = new Uint32Array(width * height);
  const blockTexels = new Uint32Array(texels.buffer, texels.byteOffset, texels.length / 4);
  /** Copies `columns` x `rows` first texels of a block to (x, y) of a cell. */
  const copy = (
    block: number,
    cell: number,
    x: number,
    y: number,
    columns: number,
    rows: number,
  ) => {
    if (block === 0) return;
    const left = CELL * (cell % cells.across) + x;
    const top = CELL * Math.floor(cell / cells.across) + y;
    for (let v = 0; v < rows; v++) {
      const from = BLOCK * (BLOCK * (block - 1) + v);
      const to = (top + v) * width + left;
      for (let u = 0; u < columns; u++) cellTexels[to + u] = blockTexels[from + u]!;
    }
  };
  for (let i = 0; i < index.length; i++) {
    if (index[i] === 0) continue;
    const cell = index[i]! - 1;
    const right = (i % across) + 1 < across;
    const below = (Math.floor(i / across) % down) + 1 < down;
    copy(index[i]!, cell, 0, 0, BLOCK, BLOCK);
    if (right) copy(index[i + 1]!, cell, BLOCK, 0, 1, BLOCK);
    if (below) copy(index[i + across]!, cell, 0, BLOCK, BLOCK, 1);
    if (right && below) copy(index[i + across + 1]!, cell, BLOCK, BLOCK, 1, 1);
  }
  return { index, atlas: new Uint8Array(cellTexels.buffer), width, height };
}

/** Place and offset of the texel that holds (x, y) of an MPI plane, x and y in texels. */
export function cellOf(
  { mpi, slabs }: FieldShape,
  slab: number,
  plane: number,
  x: number,
  y: number,
): { place: number; x: number; y: number } {
  const { columns, rows } = mpi!;
  const column = Math.floor(Math.min(Math.floor(x), columns - 2) / BLOCK);
  const row = Math.floor(Math.min(Math.floor(y), rows - 2) / BLOCK);
  const mpiPlane = slab * slabs[0]!.disparities.length + plane;
  const place = (mpiPlane * (rows / BLOCK) + row) * (columns / BLOCK) + column;
  return { place, x: x - BLOCK * column, y: y - BLOCK * row };
}

/** Red, green, blue (times alpha) and alpha of an MPI plane at (x, y); null: its block is not stored. */
export function mpiTexelAt(
  shape: FieldShape,
  { index, atlas, width }: FieldMpi,
  slab: number,
  plane: number,
  x: number,
  y: number,
): number[] | null {
  const at = cellOf(shape, slab, plane, x, y);
  const block = index[at.place]!;
  if (block === 0) return null;
  const across = width / CELL;
  // At the far edge of an MPI plane the fraction is 1.
  const [u, v] = [Math.min(BLOCK - 1, Math.floor(at.x)), Math.min(BLOCK - 1, Math.floor(at.y))];
  const [fx, fy] = [at.x - u, at.y - v];
  const left = CELL * ((block - 1) % across) + u;
  const top = CELL * Math.floor((block - 1) / across) + v;
  const texel = (dx: number, dy: number, c: number) =>
    atlas[4 * ((top + dy) * width + left + dx) + c]! / 255;
  return [0, 1, 2, 3].map((c) => {
    const upper = (1 - fx) * texel(0, 0, c) + fx * texel(1, 0, c);
    const lower = (1 - fx) * texel(0, 1, c) + fx * texel(1, 1, c);
    return (1 - fy) * upper + fy * lower;
  });
}
