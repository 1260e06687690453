import { damaged } from "./bytes";
import type { Structure } from "./lpgs-structure";

interface Level {
  resolution: number;
  rows: number;
  /** First row in the table. */
  start: number;
  /** Every vertex has a row of its own. */
  dense: boolean;
}

const [PRIME_Y, PRIME_Z] = [2654435761 | 0, 805459861];

/** Trilinear features of places, from a hash grid (Instant NGP, Mueller et al. 2022). */
export class HashGrid {
  private readonly levels: Level[] = [];
  private readonly features: number;
  private readonly weights = new Float64Array(8);
  private readonly rows = new Int32Array(8);

  constructor(
    private readonly structure: Structure,
    private readonly table: Float32Array,
    columns: number,
  ) {
    const { rows, resolutions, features } = structure.grid!;
    const total = rows.reduce((a, b) => a + b, 0);
    if (columns !== features || table.length !== total * features) {
      throw damaged("array grid does not have the rows that lpgs.grid declares");
    }
    let start = 0;
    for (const [l, resolution] of resolutions.entries()) {
      const dense = rows[l] === (resolution + 1) ** 3;
      this.levels.push({ resolution, rows: rows[l]!, start, dense });
      start += rows[l]!;
    }
    this.features = features;
  }

  /** Writes the features of the place x, y, z to `out` from `at` on. */
  look(x: number, y: number, z: number, out: Float64Array, at: number): void {
    const { centre, radius, contraction } = this.structure;
    let cx = (x - centre[0]) / radius;
    let cy = (y - centre[1]) / radius;
    let cz = (z - centre[2]) / radius;
    if (contraction) {
      const n = Math.max(1, Math.sqrt(cx * cx + cy * cy + cz * cz));
      const s = (2 - 1 / n) / (4 * n);
      cx = s * cx + 0.5;
      cy = s * cy + 0.5;
      cz = s * cz + 0.5;
    } else {
      cx = cx / 2 + 0.5;
      cy = cy / 2 + 0.5;
      cz = cz / 2 + 0.5;
    }
    cx = Math.max(0, Math.min(1, cx));
    cy = Math.max(0, Math.min(1, cy));
    cz = Math.max(0, Math.min(1, cz));
    const { features, table, weights, rows } = this;
    for (const level of this.levels) {
      this.corners(level, cx, cy, cz);
      for (let f = 0; f < features; f++, at++) {
        let sum = 0;
        for (let c = 0; c < 8; c++) sum += weights[c]! * table[rows[c]! * features + f]!;
        out[at] = sum;
      }
    }
  }

  /** Rows and weights of the eight vertices around a point of the unit cube. */
  private corners(level: Level, cx: number, cy: number, cz: number): void {
    const { weights, rows } = this;
    const R = level.resolution;
    const lx = Math.min(Math.floor(cx * R), R - 1);
    const ly = Math.min(Math.floor(cy * R), R - 1);
    const lz = Math.min(Math.floor(cz * R), R - 1);
    const fx = cx * R - lx;
    const fy = cy * R - ly;
    const fz = cz * R - lz;
    for (let c = 0; c < 8; c++) {
      const dx = c >> 2;
      const dy = (c >> 1) & 1;
      const dz = c & 1;
      weights[c] = (dx ? fx : 1 - fx) * (dy ? fy : 1 - fy) * (dz ? fz : 1 - fz);
      const vx = lx + dx;
      const vy = ly + dy;
      const vz = lz + dz;
      const row = level.dense
        ? (vx * (R + 1) + vy) * (R + 1) + vz
        : ((vx ^ Math.imul(vy, PRIME_Y) ^ Math.imul(vz, PRIME_Z)) >>> 0) % level.rows;
      rows[c] = level.start + row;
    }
  }
}
