import { describe, expect, it } from "vitest";
import { fieldLayers, productsOf, upsamplingOf } from "../../src/decode/field/field";
import { pickInField } from "../../src/decode/field/pick";
import { fieldDistance, fieldPicture } from "../../src/decode/field/picture";
import { slabCoordinates, slabWeights } from "../../src/decode/field/rays";
import { randomField, randomNumbers, smallShape } from "./random-field";

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
    const { coordinates, inside } = slabCoordinates(shape, 0, [0.3, 0.1, -1.5], d);
    const scaled = (q: number) => ((q + 1.4) / 2.9) * 2 - 1;
    // In the slab's frame the origin is (0.2, 0.3, 0.5).
    const at = (s: number) => [s * 0.2 + (1 - s * 0.5) * 0.3, s * 0.3 + (1 - s * 0.5) * -0.2];
    const wanted = [0, 0.25, 0.5].flatMap((s) => at(s).map(scaled));
    expect(coordinates.map((c) => c.toFixed(12))).toEqual(wanted.map((c) => c.toFixed(12)));
    expect(inside).toBe(1);
  });

  it("parallel to the planes have no tangent and lie outside", () => {
    const { coordinates, inside } = slabCoordinates(smallShape(), 0, [0.1, -0.2, -2], [1, 0, 0]);
    expect(inside).toBe(0);
    for (const c of coordinates) expect(c).toBeCloseTo((1.4 / 2.9) * 2 - 1, 12);
  });

  it("fade over a tenth of half the range beyond it", () => {
    const shape = smallShape();
    const edge = (c: number) => ((c + 1) / 2) * 2.9 - 1.4;
    const insideAt = (c: number) => {
      const n = Math.hypot(edge(c), 1);
      return slabCoordinates(shape, 0, [0.1, -0.2, -2], [edge(c) / n, 0, 1 / n]).inside;
    };
    expect(insideAt(0.99)).toBe(1);
    expect(insideAt(1.05)).toBeCloseTo(0.5, 9);
    expect(insideAt(1.11)).toBe(0);
  });

  it("have weights that sum to 1, change continuously and leave all but three slabs", () => {
    const shape = smallShape(["x", "y", "z", "x", "y"]);
    shape.slabs[3]!.rotation = [
      [0, 1, 0],
      [0, 0, 1],
      [0.8, 0.6, 0],
    ];
    shape.slabs[4]!.rotation = [
      [0, 1, 0],
      [0, 0, 1],
      [0.6, 0, 0.8],
    ];
    shape.overlap = 2;
    const random = randomNumbers(3);
    for (let i = 0; i < 200; i++) {
      const d = [random(), random(), random()];
      const unit = (v: number[]) => v.map((x) => x / Math.hypot(...v));
      const weights = slabWeights(shape, unit(d));
      expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
      expect(weights.filter((w) => w > 0).length).toBeLessThanOrEqual(3);
      const near = slabWeights(shape, unit([d[0]! + 1e-6, d[1]!, d[2]!]));
      const change = Math.max(...weights.map((w, s) => Math.abs(w - near[s]!)));
      // 1e-6 of direction; the smallest sum of three weights seen here makes it a thousandfold.
      expect(change / Math.hypot(...d)).toBeLessThan(1e-2);
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
