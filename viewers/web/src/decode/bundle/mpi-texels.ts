import type { FieldShape } from "../field/field";
import { atlasCells, BLOCK, blockPlaces, CELL, type FieldMpi, makeMpi } from "../field/mpi";
import { blockTexels, CHANNELS } from "./block-transform";
import { damaged } from "./bytes";
import { carriedBytes, checkLimit, VALUES } from "./limits";
import type { Manifest } from "./manifest.gen";
import type { StageDecoder } from "./stages";

const MAX_PLACES = 2 ** 22;
const LEAST_DISPARITY = 1e-15;

/** What the schema cannot say of an entry's MPIs. */
export function checkMpi(shape: FieldShape): void {
  const { mpi, slabs } = shape;
  if (!mpi) return;
  if (mpi.steps.some((steps) => steps.length !== mpi.steps[0]!.length)) {
    throw damaged("channels of MPIs have different numbers of frequencies");
  }
  if (mpi.columns % BLOCK !== 0 || mpi.rows % BLOCK !== 0) {
    throw damaged("MPIs are not made of whole blocks");
  }
  if (slabs.some(({ disparities }) => !(disparities[0]! >= LEAST_DISPARITY))) {
    throw damaged("a slab has an MPI plane at infinity");
  }
  const places = blockPlaces(shape);
  if (places > MAX_PLACES || mpi.blocks > places) {
    throw damaged(`MPIs have ${mpi.blocks} blocks and ${places} places of them`);
  }
}

/** Items, components and stage of the MPIs' arrays. */
export function mpiArrays(shape: FieldShape): [string, [number, number, number]][] {
  if (!shape.mpi) return [];
  const { blocks, steps } = shape.mpi;
  return [
    ["mpi_blocks", [blockPlaces(shape), 1, 0]],
    ["mpi_levels", [blocks, 1, 0]],
    ["mpi_frequencies", [blocks, CHANNELS * steps[0]!.length, 0]],
  ];
}

export function checkMpiArrays(manifest: Manifest, shape: FieldShape): void {
  if (shape.mpi && manifest.arrays.some((a) => a.name.startsWith("mpi_") && a.quantiser)) {
    throw damaged("an array of MPIs has a quantiser");
  }
  if (shape.mpi) {
    const texels = CHANNELS * BLOCK * BLOCK * shape.mpi.blocks;
    checkLimit(VALUES, texels, carriedBytes(manifest));
  }
}

/** Bytes of MPIs beside their codes: the texels; and atlas and index of worker, page, texture. */
export function mpiMemory(shape: FieldShape): number {
  if (!shape.mpi) return 0;
  const { blocks } = shape.mpi;
  const { across, down } = atlasCells(blocks);
  const atlas = CHANNELS * CELL * CELL * across * down;
  return CHANNELS * BLOCK * BLOCK * blocks + 3 * (atlas + 4 * blockPlaces(shape));
}

/** The MPIs of a bundle whose first stage is decoded, once; null: it has none. */
export function readMpi(decoder: StageDecoder, shape: FieldShape): FieldMpi | null {
  if (!shape.mpi) return null;
  const { blocks, steps } = shape.mpi;
  const index = blockNumbers(decoder.take("mpi_blocks")[0]!, blocks);
  const [levels, frequencies] = [decoder.take("mpi_levels"), decoder.take("mpi_frequencies")];
  return makeMpi(shape, index, blockTexels(frequencies, levels[0]!, steps));
}

/** For each place 0, or 1 + the number of its block. */
function blockNumbers(stored: Int32Array, blocks: number): Uint32Array<ArrayBuffer> {
  const index = new Uint32Array(stored.length);
  let found = 0;
  for (let i = 0; i < index.length; i++) {
    if (stored[i] !== 0 && stored[i] !== 1) throw damaged("a block is neither stored nor not");
    if (stored[i] === 1) index[i] = ++found;
  }
  if (found !== blocks) throw damaged(`not ${blocks} blocks are stored, but ${found}`);
  return index;
}
