/** Up to so many are kept in order while they are looked for; beyond, all are sorted. */
const FEW = 32;

/**
 * Which nodes are the r-th nearest of a place (SPEC.md, section 9), by squared distances in integers
 * below 2^53; equal ones in the order of their numbers.
 */
export class Ranks {
  private readonly distances: Float64Array;
  private sorted: Float64Array | null = null;
  /** The nearest so far, in order. */
  private readonly near = new Uint16Array(FEW);
  private readonly nearest = new Float64Array(FEW);

  /** `rest`: [N, 3] integers. */
  constructor(
    private readonly rest: Int32Array,
    private readonly nodes: number,
  ) {
    this.distances = new Float64Array(nodes);
  }

  /** Replaces the ranks at `at` .. `at` + 3 by the numbers of nodes. */
  resolve(x: number, y: number, z: number, ranks: Uint16Array, at: number): void {
    const { rest, distances, nodes } = this;
    for (let n = 0, c = 0; n < nodes; n++, c += 3) {
      const dx = rest[c]! - x;
      const dy = rest[c + 1]! - y;
      const dz = rest[c + 2]! - z;
      distances[n] = dx * dx + dy * dy + dz * dz;
    }
    const most = Math.max(ranks[at]!, ranks[at + 1]!, ranks[at + 2]!, ranks[at + 3]!);
    if (most < FEW) {
      this.takeNearest(most + 1);
      for (let j = at; j < at + 4; j++) ranks[j] = this.near[ranks[j]!]!;
    } else {
      this.sorted ??= new Float64Array(nodes);
      this.sorted.set(distances);
      this.sorted.sort();
      for (let j = at; j < at + 4; j++) ranks[j] = this.ofRank(ranks[j]!);
    }
  }

  /** The `count` nearest ones, into `near`. */
  private takeNearest(count: number): void {
    const { distances, near, nearest, nodes } = this;
    let held = 0;
    let worst = Number.POSITIVE_INFINITY;
    for (let n = 0; n < nodes; n++) {
      const d = distances[n]!;
      if (held === count && d >= worst) continue;
      let at = held < count ? held++ : count - 1;
      for (; at > 0 && nearest[at - 1]! > d; at--) {
        nearest[at] = nearest[at - 1]!;
        near[at] = near[at - 1]!;
      }
      nearest[at] = d;
      near[at] = n;
      worst = nearest[held - 1]!;
    }
  }

  private ofRank(rank: number): number {
    const distance = this.sorted![rank]!;
    let equal = rank - this.sorted!.indexOf(distance);
    let n = this.distances.indexOf(distance);
    for (; equal > 0; equal--) n = this.distances.indexOf(distance, n + 1);
    return n;
  }
}
