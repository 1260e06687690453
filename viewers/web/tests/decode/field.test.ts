import { describe, expect, it } from "vitest";
import { fieldLayers, productsOf, upsamplingOf } from "../../src/decode/field/field";
import { makeMpi, mpiTexelAt } from "../../src/decode/field/mpi";
import { pickInField } from "../../src/decode/field/pick";
import { fieldDistance, fieldPicture, pixelOf } from "../../src/decode/field/picture";
import { slabRay, slabsOf, slabWeights } from "../../src/decode/field/rays";
import {
  randomField,
  randomFieldWithMpi,
  randomMpi,
  randomNumbers,
  smallShape,
} from "./random-field";

/** Looks along +z of the world from the viewpoint of the small slabs, x to the right. */
const LOOKING = [-1, 0, 0, 0.1, 0, 1, 0, -0.2, 0, 0, -1, -2, 0, 0, 0, 1];
const camera = (width: number, height: number, c2w = LOOKING, cx = width / 2) => ({
  c2w,
  K: [60, 0, cx, 0, 60, height / 2, 0, 0, 1],
  width,
  height,
});

describe("rays in slabs", () => {
  it("are their tangent at infinity and their place on a plane at its distance", () => {
    const shape = smallShape();
    const d = [0.3, -0.2, 1].map((v) => v / Math.hypot(0.3, -0.2, 1));
    const { coordinates, inside } = slabRay(shape, 0, [0.3, 0.1, -1.5], d);
    const scaled = (q: number) => ((q + 1.4) / 2.9) * 2 - 1;
    // In the slab's frame the origin is (0.2, 0.3, 0.5).
    const at = (s: number) => [s * 0.2 + (1 - s * 0.5) * 0.3, s * 0.3 + (1 - s * 0.5) * -0.2];
    const wanted = [0, 0.25, 0.5].flatMap((s) => at(s).map(scaled));
    expect(coordinates.map((c) => c.toFixed(12))).toEqual(wanted.map((c) => c.toFixed(12)));
    expect(inside).toBe(1);
  });

  it("parallel to the planes have no tangent and lie outside", () => {
    const { coordinates, inside } = slabRay(smallShape(), 0, [0.1, -0.2, -2], [1, 0, 0]);
    expect(inside).toBe(0);
    for (const c of coordinates) expect(c).toBeCloseTo((1.4 / 2.9) * 2 - 1, 12);
  });

  it("fade over a tenth of half the range beyond it", () => {
    const shape = smallShape();
    const edge = (c: number) => ((c + 1) / 2) * 2.9 - 1.4;
    const insideAt = (c: number) => {
      const n = Math.hypot(edge(c), 1);
      return slabRay(shape, 0, [0.1, -0.2, -2], [edge(c) / n, 0, 1 / n]).inside;
    };
    expect(insideAt(0.99)).toBe(1);
    expect(insideAt(1.05)).toBeCloseTo(0.5, 9);
    expect(insideAt(1.11)).toBe(0);
  });

  it("cost their parallax and obliqueness, and more where they are hardly inside", () => {
    const shape = smallShape();
    const unit = (v: number[]) => v.map((x) => x / Math.hypot(...v));
    // Through the viewpoint, along the axis: the least that there is.
    expect(slabRay(shape, 0, [0.1, -0.2, -2], [0, 0, 1]).cost).toBeCloseTo(0.001, 12);
    const askew = slabRay(shape, 0, [0.1, -0.2, -2], unit([0.3, 0.4, 1]));
    expect(askew.cost).toBeCloseTo(0.05 * 0.5 + 0.001, 12);
    // Past the viewpoint at (0.3, -0.4): 0.5 units, and disparities from 0 to 0.5.
    const beside = slabRay(shape, 0, [0.4, -0.6, -1], [0, 0, 1]);
    expect(beside.cost).toBeCloseTo(0.5 * 0.5 + 0.001, 12);
    const edge = ((1.05 + 1) / 2) * 2.9 - 1.4;
    const half = slabRay(shape, 0, [0.1, -0.2, -2], unit([edge, 0, 1]));
    expect(half.inside).toBeCloseTo(0.5, 9);
    expect(half.cost).toBeCloseTo((0.05 * edge + 0.001) / 0.5, 9);
    const parallel = slabRay(shape, 0, [0.1, -0.2, -2], [1, 0, 0]);
    expect(parallel.cost).toBeCloseTo(1000, 9);
  });

  it("have weights that sum to 1, change continuously and leave all but three slabs", () => {
    const random = randomNumbers(3);
    for (let i = 0; i < 200; i++) {
      const costs = Array.from({ length: 5 }, () => 1 + random());
      const weights = slabWeights(costs, 2);
      expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
      expect(weights.filter((w) => w > 0).length).toBeLessThanOrEqual(3);
      // The cheapest counts most.
      const cheapest = costs.indexOf(Math.min(...costs));
      expect(weights[cheapest]).toBe(Math.max(...weights));
      const near = slabWeights([costs[0]! + 1e-6, ...costs.slice(1)], 2);
      const change = Math.max(...weights.map((w, s) => Math.abs(w - near[s]!)));
      // 1e-6 of cost; the smallest sum of three weights seen here makes it a thousandfold.
      expect(change).toBeLessThan(1e-2);
    }
    expect(slabWeights([1, 1, 1, 1], 2)).toEqual([1, 0, 0, 0]);
    expect(slabWeights([1, 5], 2)).toEqual([1, 0]);
    expect(slabWeights([1, 2], 2)).toEqual([2 / 3, 1 / 3]);
  });
});

describe("mpi", () => {
  const { shape, index, texels } = randomMpi(smallShape(["z", "x"]));
  const { columns, rows } = shape.mpi!;
  const mpi = makeMpi(shape, index, texels);

  /** SPEC.md word by word, from the blocks as they are stored. */
  function direct(slab: number, plane: number, x: number, y: number): number[] {
    const number = (column: number, row: number) => {
      const place = ((slab * 3 + plane) * (rows / 8) + (row >> 3)) * (columns / 8) + (column >> 3);
      return index[place]! - 1;
    };
    const texel = (column: number, row: number, c: number) => {
      const block = column < columns && row < rows ? number(column, row) : -1;
      return block < 0 ? 0 : texels[((block * 8 + (row & 7)) * 8 + (column & 7)) * 4 + c]! / 255;
    };
    const x0 = Math.min(Math.floor(x), columns - 2);
    const y0 = Math.min(Math.floor(y), rows - 2);
    if (number(x0, y0) < 0) return [0, 0, 0, 0];
    const [fx, fy] = [x - x0, y - y0];
    return [0, 1, 2, 3].map(
      (c) =>
        (1 - fy) * ((1 - fx) * texel(x0, y0, c) + fx * texel(x0 + 1, y0, c)) +
        fy * ((1 - fx) * texel(x0, y0 + 1, c) + fx * texel(x0 + 1, y0 + 1, c)),
    );
  }

  it("read from the atlas what their blocks hold, also between blocks and at the edges", () => {
    const random = randomNumbers(5);
    const places: [number, number][] = [
      [0, 0],
      [columns - 1, rows - 1],
      [columns - 1, 3.5],
      [7.5, 7.5],
      [8, 7.25],
      [15.999, 8],
    ];
    for (let i = 0; i < 300; i++) {
      places.push([((random() + 1) / 2) * (columns - 1), ((random() + 1) / 2) * (rows - 1)]);
    }
    let empty = 0;
    for (const [x, y] of places) {
      for (let slab = 0; slab < 2; slab++) {
        for (let plane = 0; plane < 3; plane++) {
          const found = mpiTexelAt(shape, mpi, slab, plane, x, y);
          if (!found) empty++;
          const wanted = direct(slab, plane, x, y);
          for (const [c, v] of (found ?? [0, 0, 0, 0]).entries()) {
            expect(v).toBeCloseTo(wanted[c]!, 9);
          }
        }
      }
    }
    const share = empty / (6 * places.length);
    expect(share).toBeGreaterThan(0.3);
    expect(share).toBeLessThan(0.7);
  });

  it("hide each other, the nearest first, and say how far away they are", () => {
    const one = randomMpi(smallShape(), { columns: 8, rows: 8, share: 2 });
    const { shape } = one;
    // Alpha 0.4 on each: the farthest red, the middle one green, the nearest blue.
    const colours = [
      [102, 0, 0, 102],
      [0, 102, 0, 102],
      [0, 0, 102, 102],
    ];
    const values = colours.flatMap((rgba) => Array.from({ length: 64 }, () => rgba).flat());
    const mpi = makeMpi(shape, one.index, Uint8Array.from(values));
    const field = randomField(shape);
    for (const { weight, bias } of Object.values(field.layers)) {
      weight.fill(0);
      bias.fill(0);
    }
    // The network adds to red, and to alpha so much that it is more than 1.
    field.layers.sharpen_1!.bias.fill(0.125, 0, 4);
    field.layers.sharpen_1!.bias.fill(0.5, 12, 16);
    const laid = { ...field, mpi };
    const picture = fieldPicture(laid, camera(6, 4));
    const [r, g, b, a] = [0.36 * 0.4 + 0.125, 0.6 * 0.4, 0.4, 1];
    for (const [c, v] of [r, g, b, a].entries()) {
      expect(pixelOf(picture, 9)[c]).toBeCloseTo(v, 6);
    }
    // Distances of planes: 20, 4 and 2 along the axis; here the camera stands at the viewpoint.
    const [first, second, third] = [0.4, 0.24, 0.144];
    const mean = (first * 2 + second * 4 + third * 20) / (first + second + third);
    const slant = Math.hypot(0.5 / 60, 0.5 / 60, 1);
    const n = fieldDistance(laid, camera(6, 4), picture, 3, 2);
    expect(n).toBeCloseTo(mean * slant, 5);
    const K = [60, 0, 50, 0, 60, 40, 0, 0, 1];
    expect(pickInField(laid, { c2w: LOOKING, K, x: 50.5, y: 40.5 })).toBeCloseTo(mean * slant, 5);
  });

  it("count by their slabs' weights, with the rays' own coverage", () => {
    const field = randomFieldWithMpi(smallShape(["z", "x"]));
    const turned = [-0.6, 0, -0.8, 0.3, 0, 1, 0, -0.2, 0.8, 0, -0.6, -2, 0, 0, 0, 1];
    const c = camera(7, 5, turned);
    const picture = fieldPicture(field, c);
    for (let n = 0; n < 35; n++) {
      const [u, v] = [(n % 7) + 0.5, Math.floor(n / 7) + 0.5];
      const [x, y] = [(u - 3.5) / 60, -(v - 2.5) / 60];
      const d = [0, 4, 8].map(
        (r) => (turned[r]! * x + turned[r + 1]! * y - turned[r + 2]!) / Math.hypot(x, y, 1),
      );
      const rays = slabsOf(field.shape, [0.3, -0.2, -2], d);
      const covered = rays.reduce((sum, { weight, ray }) => sum + weight * ray.inside, 0);
      expect(picture.coverage[n]).toBeCloseTo(covered, 12);
    }
  });
});

describe("pictures of a field", () => {
  it("are the same whether decoded whole or as a part that starts at a ray of the bundle", () => {
    for (const samples of [1, 2, 4]) {
      const field = randomField(smallShape(["z", "x"], { samples }));
      const step = upsamplingOf(field.shape);
      const whole = fieldPicture(field, camera(3 * step, 2 * step));
      const part = fieldPicture(field, camera(step - 3, 2 * step, LOOKING, 1.5 * step - step));
      for (let c = 0; c < 5; c++) {
        for (let v = 0; v < 2 * step; v++) {
          for (let u = 0; u < step - 3; u++) {
            const a = whole.maps[c]![v * 3 * step + u + step]!;
            // Both are doubles; rays differ by rounding.
            expect(part.maps[c]![v * (step - 3) + u]).toBeCloseTo(a, 9);
          }
        }
      }
    }
  });

  it("of a network that copies one feature are what the planes hold", () => {
    const shape = smallShape(["z"], {
      samples: 1,
      encoded: 4,
      width: 4,
      blocks: 0,
      channels: [1],
    });
    const field = randomField(shape);
    for (const { weight, bias } of Object.values(field.layers)) {
      weight.fill(0);
      bias.fill(0);
    }
    // Constant planes: 3 of the first feature. It goes through every layer, to red times 2, and
    // the convolution's middle tap alone.
    for (const plane of field.planes) for (let i = 0; i < plane!.length; i += 4) plane![i] = 3;
    const { encode, first, last, sharpen_0 } = field.layers;
    for (const plane of field.planes)
      for (let i = 0; i < plane!.length; i++) if (i % 4) plane![i] = 0;
    encode!.weight[0] = 1;
    first!.weight[0] = 1;
    for (let sub = 0; sub < 4; sub++) last!.weight[4 * sub] = 1;
    for (let sub = 0; sub < 4; sub++) sharpen_0!.weight[9 * sub + 4] = 2;
    const { maps, coverage } = fieldPicture(field, camera(9, 6));
    expect(Math.max(...maps[0]!.map((v) => Math.abs(v - 6)))).toBeLessThan(1e-9);
    expect(Math.max(...maps[1]!.map(Math.abs))).toBe(0);
    expect(Math.min(...coverage)).toBe(1);
  });

  it("shuffle channels 4 c + 2 y + x into 2 x 2 pixels", () => {
    const field = randomField(smallShape(["z"], { samples: 1, channels: [1], blocks: 0 }));
    for (const layer of Object.values(field.layers)) layer.weight.fill(0);
    field.layers.sharpen_0!.bias.set(Array.from({ length: 20 }, (_, o) => o));
    const { maps, width } = fieldPicture(field, camera(6, 4));
    for (let c = 0; c < 5; c++) {
      for (let n = 0; n < 24; n++) {
        const [v, u] = [Math.floor(n / width), n % width];
        expect(maps[c]![n]).toBe(4 * c + 2 * (v % 2) + (u % 2));
      }
    }
  });

  it("tell how far away a pixel is, and so does picking it", () => {
    const field = randomField(smallShape());
    for (const layer of Object.values(field.layers)) layer.weight.fill(0);
    // Depth: the point of the ray next to the centre, moved on by sinh(0.5) radii; opaque.
    field.layers.sharpen_1!.bias.fill(0);
    field.layers.sharpen_1!.bias.fill(20, 12, 16);
    field.layers.sharpen_1!.bias.fill(0.5, 16, 20);
    const whole = camera(40, 30);
    const direction = [(10.5 - 20) / 60, -(7.5 - 15) / 60, -1];
    const world = [-direction[0]!, direction[1]!, -direction[2]!];
    const along = (world[0]! * -0.1 + world[1]! * 0.2 + world[2]! * 2) / Math.hypot(...world);
    const picture = fieldPicture(field, whole);
    expect(fieldDistance(field, whole, picture, 10, 7)).toBeCloseTo(along + Math.sinh(0.5), 6);
    // The same place in a window of twice the size.
    const twice = { c2w: LOOKING, K: whole.K.map((v) => 2 * v), x: 21, y: 15 };
    expect(pickInField(field, twice)).toBeCloseTo(along + Math.sinh(0.5), 6);
    field.layers.sharpen_1!.bias.fill(-20, 12, 16);
    expect(pickInField(field, twice)).toBeNull();
  });

  it("count products as the Python decoder does, but for the halo", () => {
    const shape = smallShape(["z"], {
      samples: 4,
      encoded: 16,
      width: 128,
      blocks: 4,
      channels: [32, 16],
    });
    const layers = fieldLayers(shape);
    expect(layers.sharpen_1).toEqual([20, 9 * 48 - 9 * 16]);
    const rays = 100 * 100;
    const trunk = 256 * 128 + 8 * 128 * 128 + 128 * 128;
    const rest = 16 * 12 * 16 + 4 * 64 * 288 + 16 * 20 * 288;
    expect(productsOf(shape)).toBe(rays * (trunk + rest));
  });
});
