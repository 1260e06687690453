import type { FieldShape } from "../../decode/field/field";
import type { FieldMpi } from "../../decode/field/mpi";
import { type FieldLayout, float, MARGIN, sampleRing, skipOffset, slabsOfRay } from "../layout";
import type { PlanePlaces } from "../planes";
import type { Outputs } from "../weights";
import { mpiSource, slabSource } from "./slabs";

/** Pixels along an axis of one workgroup. */
export const GROUP = 8;

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Numbers of a picture, in the order of `frameNumbers`. */
export const FRAME = `struct Frame {
  lens: vec4f,
  background: vec4f,
  shown: vec2f,
  rays: vec2i,
  picture: vec2i,
  size: f32,
}
@group(0) @binding(0) var<uniform> frame: Frame;
`;
/** Bytes of it. */
export const FRAME_BYTES = 64;

/** The size of what stands before convolution j, as an expression of the rays' number. */
const sizeOf = (j: number) => `(${2 ** j} * frame.rays - ${2 ** (j + 1) - 2})`;

const weights = (outputs: Outputs, count = outputs.count) => `struct Weights {
  bias: array<vec4f, ${count}>,
  weight: array<mat4x4f>,
}
@group(0) @binding(1) var<storage, read> net: Weights;
`;

const buffers = (...names: string[]) =>
  names
    .map((name, i) => `@group(0) @binding(${3 + i}) var<storage, read> ${name}: array<vec4f>;\n`)
    .join("");

const TARGET = "@group(0) @binding(2) var<storage, read_write> result: array<vec4f>;\n";

const main = (size: string, body: string) => `
fn at(p: vec2i, size: vec2i, layer: i32) -> i32 { return (layer * size.y + p.y) * size.x + p.x; }

@compute @workgroup_size(${GROUP}, ${GROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let p = vec2i(id.xy);
  let size = ${size};
  if (any(p >= size)) { return; }
${body}}
`;

const sums = (count: number) =>
  range(count)
    .map((n) => `  var sum${n} = net.bias[${n}];\n`)
    .join("");

const accumulate = (count: number, index: string, indent = "    ") =>
  `${indent}let first = (${index}) * ${count};\n` +
  range(count)
    .map((n) => `${indent}sum${n} += net.weight[first + ${n}] * v;\n`)
    .join("");

const written = ({ first, count }: Outputs, value = (n: number) => `sum${n}`) =>
  range(count)
    .map((n) => `  result[at(p, size, ${first + n})] = ${value(n)};\n`)
    .join("");

/** See the GLSL one: rays, slabs, features, the layer `encode`, and the coverage behind it. */
export function sampleShader(
  shape: FieldShape,
  layout: FieldLayout,
  places: PlanePlaces,
  outputs: Outputs,
): string {
  const encoded = Math.min(outputs.count, layout.encoded - outputs.first);
  const slabs = shape.slabs.length;
  const texel = slabs * layout.features;
  // A loop: written out for every plane, the shader of a trained field takes long to compile.
  const planes = `    for (var i = 0; i < ${shape.feature_planes.length}; i++) {
      let plane = PLANES[i];
      let right = select(0, ${texel}, plane.z > 1);
      let below = select(0, plane.z * ${texel}, plane.w > 1);
      var place = vec2f(coordinate(slab, plane.x, tangent), coordinate(slab, plane.y, tangent));
      place = clamp(0.5 * place + 0.5, vec2f(0.0), vec2f(1.0));
      place *= vec2f(plane.zw - 1);
      let low = min(vec2i(place), max(plane.zw - 2, vec2i(0)));
      place -= vec2f(low);
      let here = STARTS[i] + ((low.y * plane.z + low.x) * ${slabs} + slab) * ${layout.features};
      for (var g = 0; g < ${layout.features}; g++) {
        let upper = mix(texel(here + g), texel(here + g + right), place.x);
        let lower = mix(texel(here + g + below), texel(here + g + below + right), place.x);
        let v = share * mix(upper, lower, place.y);
${accumulate(encoded, `i * ${layout.features} + g`, "        ")}      }
    }
`;
  const features = `${sums(encoded)}  for (var n = 0; n < ${slabsOfRay(shape)}; n++) {
    let share = shares[n];
    if (share <= 0.0) { continue; }
    let slab = chosen[n];
    let tangent = rayIn(slab, direction).tangent;
${planes}  }
`;
  const body = `  let direction = through((vec2f(p) - ${float(sampleRing(layout))} + 0.5) * frame.size);
  route(direction);
  let covered = dot(shares, covers.xyz);
${encoded > 0 ? features : ""}${written(outputs, (n) => (n < encoded ? `max(sum${n}, vec4f(0.0))` : "vec4f(covered)"))}`;
  const data =
    encoded > 0
      ? `@group(0) @binding(4) var<storage, read> planes: array<vec2u>;
fn texel(i: i32) -> vec4f {
  let two = planes[i];
  return vec4f(unpack2x16float(two.x), unpack2x16float(two.y));
}
${weights(outputs, encoded)}${planeTable(shape, places)}`
      : "";
  const source = `${FRAME}${TARGET}${data}${slabSource(shape, 3)}`;
  return `${source}${main(`frame.rays * ${layout.k}`, body)}`;
}

/** Of each plane: its axes, columns and rows; and its first texel. */
function planeTable({ feature_planes: planes }: FieldShape, { starts }: PlanePlaces): string {
  const count = planes.length;
  const rows = planes.map(({ axes, columns, rows }) => `vec4i(${[...axes, columns, rows].join()})`);
  return `const PLANES = array<vec4i, ${count}>(${rows.join(", ")});
const STARTS = array<i32, ${count}>(${starts.join(", ")});
`;
}

export function firstShader({ k, encoded }: FieldLayout, outputs: Outputs): string {
  const { count } = outputs;
  const body = `${sums(count)}  for (var s = 0; s < ${k * k}; s++) {
    let q = p * ${k} + vec2i(s % ${k}, s / ${k});
    for (var g = 0; g < ${encoded}; g++) {
      let v = source[at(q, size * ${k}, g)];
${accumulate(count, `s * ${encoded} + g`, "      ")}    }
  }
${written(outputs)}`;
  return `${FRAME}${weights(outputs)}${TARGET}${buffers("source")}${main("frame.rays", body)}`;
}

export function trunkShader({ width }: FieldLayout, outputs: Outputs, residual: boolean): string {
  const { first, count } = outputs;
  const value = (n: number) =>
    residual ? `sum${n} + before[at(p, size, ${first + n})]` : `sum${n}`;
  const body = `${sums(count)}  for (var g = 0; g < ${width}; g++) {
    let v = max(source[at(p, size, g)], vec4f(0.0));
${accumulate(count, "g")}  }
${written(outputs, value)}`;
  const sources = residual ? buffers("source", "before") : buffers("source");
  return `${FRAME}${weights(outputs)}${TARGET}${sources}${main("frame.rays", body)}`;
}

export function sharpenShader(layout: FieldLayout, j: number, outputs: Outputs): string {
  const { count } = outputs;
  const texels = layout.pixels[j]!;
  const beside = j === layout.skip ? layout.encoded : 0;
  const joined = texels + beside;
  const skip =
    beside > 0
      ? `    for (var g = 0; g < ${beside}; g++) {
      let v = samples[at(q + ${skipOffset(layout)}, frame.rays * ${layout.k}, g)];
${accumulate(count, `tap * ${joined} + ${texels} + g`, "      ")}    }
`
      : "";
  const body = `${sums(count)}  for (var tap = 0; tap < 9; tap++) {
    let q = p + vec2i(tap % 3, tap / 3);
    let pixel = ((q.x & 1) + 2 * (q.y & 1)) * ${texels};
    for (var g = 0; g < ${texels}; g++) {
      let v = max(source[at(q / 2, ${sizeOf(j)}, pixel + g)], vec4f(0.0));
${accumulate(count, `tap * ${joined} + g`, "      ")}    }
${skip}  }
${written(outputs)}`;
  const sources = beside > 0 ? buffers("source", "samples") : buffers("source");
  return `${FRAME}${weights(outputs)}${TARGET}${sources}${main(sizeOf(j + 1), body)}`;
}

export function finishShader(layout: FieldLayout): string {
  const times = layout.step / layout.k;
  const body = `${raw(layout)}  let shown = 1.0 / (1.0 + exp(-raw));
  var place = (vec2f(p) + 0.5 + ${float(sampleRing(layout) * times)}) / ${float(times)} - 0.5;
  let low = vec2i(place);
  place -= vec2f(low);
  let seen = mix(mix(covered(low), covered(low + vec2i(1, 0)), place.x),
    mix(covered(low + vec2i(0, 1)), covered(low + 1), place.x), place.y);
  let alpha = shown.w * seen;
  result[at(p, size, 0)] = vec4f(shown.xyz * alpha, alpha);
`;
  const covered = `fn covered(q: vec2i) -> f32 {
  return samples[at(q, frame.rays * ${layout.k}, ${layout.encoded})].x;
}
`;
  return `${FRAME}${TARGET}${buffers("source", "samples")}${covered}${main("frame.picture", body)}`;
}

const raw = ({ pixels }: FieldLayout) => `  let q = p + ${MARGIN};
  let raw = source[at(q / 2, ${sizeOf(pixels.length - 1)}, (q.x & 1) + 2 * (q.y & 1))];
`;

/** The same where there are MPIs: they and the network's picture are added up. */
export function finishMpiShader(shape: FieldShape, layout: FieldLayout, mpi: FieldMpi): string {
  const body = `${raw(layout)}  let direction = through(vec2f(p) + 0.5);
  route(direction);
  var sum = raw;
  for (var i = 0; i < ${slabsOfRay(shape)}; i++) {
    let slab = chosen[i];
    if (shares[i] > 0.0) { sum += shares[i] * mpiAlong(slab, rayIn(slab, direction).tangent); }
  }
  let seen = dot(shares, covers.xyz);
  result[at(p, size, 0)] = clamp(sum, vec4f(0.0), vec4f(1.0)) * seen;
`;
  const source = `${slabSource(shape, 4)}${mpiSource(shape, mpi, 5)}`;
  return `${FRAME}${TARGET}${buffers("source")}${source}${main("frame.picture", body)}`;
}

/** Scales the picture with a triangle as wide as the coarser of both grids' pixels. */
export const PRESENT = `${FRAME}@group(0) @binding(3) var<storage, read> picture: array<vec4f>;
@vertex
fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
  return vec4f(select(-1.0, 3.0, i == 1), select(-1.0, 3.0, i == 2), 0.0, 1.0);
}
@fragment
fn shade(@builtin(position) at: vec4f) -> @location(0) vec4f {
  let size = frame.picture;
  let scale = vec2f(size) / frame.shown;
  let reach = max(scale, vec2f(1.0));
  let centre = at.xy * scale;
  let low = max(vec2i(floor(centre - reach + 0.5)), vec2i(0));
  let high = min(vec2i(floor(centre + reach + 0.5)), size);
  var sum = vec4f(0.0);
  var total = 0.0;
  for (var y = low.y; y < high.y; y++) {
    let wy = max(0.0, 1.0 - abs(f32(y) + 0.5 - centre.y) / reach.y);
    for (var x = low.x; x < high.x; x++) {
      let w = wy * max(0.0, 1.0 - abs(f32(x) + 0.5 - centre.x) / reach.x);
      sum += w * picture[y * size.x + x];
      total += w;
    }
  }
  sum /= total;
  return vec4f(sum.xyz + (1.0 - sum.w) * frame.background.xyz, 1.0);
}
`;
