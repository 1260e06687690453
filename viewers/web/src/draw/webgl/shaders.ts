import type { FieldShape } from "../../decode/field/field";
import type { FieldMpi } from "../../decode/field/mpi";
import { type FieldLayout, float, MARGIN, sampleRing, skipOffset, slabsOfRay } from "../layout";
import { type PlanePlaces, ROW } from "../planes";
import type { Outputs } from "../weights";
import { mpiSource, slabSource } from "./slabs";

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

export const VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
`;

const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;
precision highp usampler2D;
`;

function targets(count: number): string {
  return range(count)
    .map((n) => `layout(location = ${n}) out vec4 out${n};\n`)
    .join("");
}

function weightBlock(inputs: number, count: number): string {
  return `layout(std140) uniform Weights { vec4 bias[${count}]; mat4 weight[${inputs * count}]; };\n`;
}

const sums = (count: number) =>
  range(count)
    .map((n) => `  vec4 sum${n} = bias[${n}];\n`)
    .join("");

/** Adds the product with a texel of inputs `v`, whose number is \`index\`. */
const accumulate = (count: number, index: string, indent = "    ") =>
  `${indent}int at = (${index}) * ${count};\n` +
  range(count)
    .map((n) => `${indent}sum${n} += weight[at + ${n}] * v;\n`)
    .join("");

/**
 * A loop over `name`. Written out with constant places of the weights, a rasteriser on a CPU draws
 * twice as fast, but takes so long to compile that browsers take the context away.
 */
const loop = (name: string, count: number, body: string) =>
  `for (int ${name} = 0; ${name} < ${count}; ${name}++) {\n${body}}\n`;

/**
 * Rays of samples, their slabs, features of all planes, and the network's layer `encode`. The
 * texel behind the encoded ones is the coverage.
 */
export function sampleShader(
  shape: FieldShape,
  layout: FieldLayout,
  places: PlanePlaces,
  outputs: Outputs,
): string {
  const encoded = Math.min(outputs.count, layout.encoded - outputs.first);
  const inputs = shape.feature_planes.length * layout.features;
  const slabs = shape.slabs.length;
  const texel = slabs * layout.features;
  const turn = `vec4 v = share * mix(mix(texel(here + g), texel(here + g + right), place.x),
  mix(texel(here + g + below), texel(here + g + below + right), place.x), place.y);
${accumulate(encoded, `p * ${layout.features} + g`)}`;
  // A loop: written out for every plane, the shader of a trained field takes a minute to compile.
  const planes = `  for (int p = 0; p < ${shape.feature_planes.length}; p++) {
  ivec4 plane = PLANES[p];
  int right = plane.z > 1 ? ${texel} : 0;
  int below = plane.w > 1 ? plane.z * ${texel} : 0;
  place = vec2(coordinate(slab, plane.x, tangent), coordinate(slab, plane.y, tangent));
  place = clamp(0.5 * place + 0.5, 0.0, 1.0) * vec2(plane.zw - 1);
  low = min(ivec2(place), max(plane.zw - 2, 0));
  place -= vec2(low);
  here = STARTS[p] + ((low.y * plane.z + low.x) * ${slabs} + slab) * ${layout.features};
${loop("g", layout.features, turn)}  }
`;
  const features = `  vec3 direction = through((floor(gl_FragCoord.xy) - ${float(sampleRing(layout))} + 0.5) * size);
  vec2 place;
  ivec2 low;
  int here;
  for (int i = 0; i < ${slabsOfRay(shape)}; i++) {
    float share = shares[i];
    if (share <= 0.0) continue;
    int slab = chosen[i];
    vec2 tangent = tangentIn(slab, direction);
${planes}  }
`;
  const written = range(outputs.count)
    .map((n) => (n < encoded ? `  out${n} = max(sum${n}, 0.0);\n` : `  out${n} = vec4(covered);\n`))
    .join("");
  return `${HEAD}${targets(outputs.count)}${encoded > 0 ? weightBlock(inputs, encoded) : ""}
${encoded > 0 ? "uniform sampler2D planes;\n" : ""}uniform float size;
${slabSource(shape)}
${encoded > 0 ? `vec4 texel(int i) { return texelFetch(planes, ivec2(i & ${ROW - 1}, i / ${ROW}), 0); }\n` : ""}
${encoded > 0 ? planeTable(shape, places) : ""}
void main() {
  route(through((floor(gl_FragCoord.xy) - ${float(sampleRing(layout))} + 0.5) * size));
  float covered = dot(shares, covers.xyz);
${encoded > 0 ? `${sums(encoded)}${features}` : ""}${written}}
`;
}

/** Of each plane: its axes, columns and rows; and its first texel. */
function planeTable({ feature_planes: planes }: FieldShape, { starts }: PlanePlaces): string {
  const count = planes.length;
  const rows = planes.map(({ axes, columns, rows }) => `ivec4(${[...axes, columns, rows].join()})`);
  return `const ivec4 PLANES[${count}] = ivec4[${count}](${rows.join(", ")});
const int STARTS[${count}] = int[${count}](${starts.join(", ")});
`;
}

/** The layer `first`: its inputs are the k x k samples of a ray. */
export function firstShader(layout: FieldLayout, outputs: Outputs): string {
  const { k, encoded } = layout;
  const turn = `vec4 v = texelFetch(source, ivec3(p + ivec2(s % ${k}, s / ${k}), g), 0);
${accumulate(outputs.count, `s * ${encoded} + g`)}`;
  return `${HEAD}${targets(outputs.count)}${weightBlock(k * k * encoded, outputs.count)}
uniform sampler2DArray source;
void main() {
  ivec2 p = ivec2(gl_FragCoord.xy) * ${k};
${sums(outputs.count)}${loop("s", k * k, loop("g", encoded, turn))}
${plainOutputs(outputs.count)}}
`;
}

const plainOutputs = (count: number) =>
  range(count)
    .map((n) => `  out${n} = sum${n};\n`)
    .join("");

/** A layer of the trunk, relu before it; with `residual` what came before is added. */
export function trunkShader(layout: FieldLayout, { count }: Outputs, residual: boolean): string {
  const added = residual
    ? range(count)
        .map((n) => `  sum${n} += texelFetch(before, ivec3(p, first + ${n}), 0);\n`)
        .join("")
    : "";
  const turn = `vec4 v = max(texelFetch(source, ivec3(p, g), 0), 0.0);\n${accumulate(count, "g")}`;
  return `${HEAD}${targets(count)}${weightBlock(layout.width, count)}
uniform sampler2DArray source;
${residual ? "uniform sampler2DArray before;\nuniform int first;\n" : ""}
void main() {
  ivec2 p = ivec2(gl_FragCoord.xy);
${sums(count)}${loop("g", layout.width, turn)}
${added}${plainOutputs(count)}}
`;
}

/** Convolution j: its inputs are shuffled pixels, four layers' worth of them in each texel. */
export function sharpenShader(layout: FieldLayout, { count }: Outputs, j: number): string {
  const texels = layout.pixels[j]!;
  const beside = j === layout.skip ? layout.encoded : 0;
  const joined = texels + beside;
  const own = `vec4 v = max(texelFetch(source, ivec3(q >> 1, pixel + g), 0), 0.0);
${accumulate(count, `tap * ${joined} + g`)}`;
  const other = `vec4 v = texelFetch(samples, ivec3(q + ${skipOffset(layout)}, g), 0);
${accumulate(count, `tap * ${joined} + ${texels} + g`)}`;
  const turn = `ivec2 q = p + ivec2(tap % 3, tap / 3);
int pixel = ((q.x & 1) + 2 * (q.y & 1)) * ${texels};
${loop("g", texels, own)}${beside > 0 ? loop("g", beside, other) : ""}`;
  return `${HEAD}${targets(count)}${weightBlock(9 * joined, count)}
uniform sampler2DArray source;
${beside > 0 ? "uniform sampler2DArray samples;\n" : ""}
void main() {
  ivec2 p = ivec2(gl_FragCoord.xy);
${sums(count)}${loop("tap", 9, turn)}
${plainOutputs(count)}}
`;
}

/** Colours times alpha, and alpha: after the sigmoids, with the coverage. */
export function finishShader(layout: FieldLayout): string {
  const times = layout.step / layout.k;
  return `${HEAD}${targets(1)}
uniform sampler2DArray source;
uniform sampler2DArray samples;
float covered(ivec2 p) { return texelFetch(samples, ivec3(p, ${layout.encoded}), 0).x; }
void main() {
${RAW}  vec4 shown = 1.0 / (1.0 + exp(-raw));
  vec2 place = floor(gl_FragCoord.xy) + 0.5 + ${float(sampleRing(layout) * times)};
  place = place / ${float(times)} - 0.5;
  ivec2 low = ivec2(place);
  place -= vec2(low);
  float seen = mix(mix(covered(low), covered(low + ivec2(1, 0)), place.x),
    mix(covered(low + ivec2(0, 1)), covered(low + 1), place.x), place.y);
  float alpha = shown.w * seen;
  out0 = vec4(shown.xyz * alpha, alpha);
}
`;
}

const RAW = `  ivec2 q = ivec2(gl_FragCoord.xy) + ${MARGIN};
  vec4 raw = texelFetch(source, ivec3(q >> 1, (q.x & 1) + 2 * (q.y & 1)), 0);
`;

/** The same where there are MPIs: they and the network's picture are added up. */
export function finishMpiShader(shape: FieldShape, mpi: FieldMpi): string {
  return `${HEAD}${targets(1)}
uniform sampler2DArray source;
${slabSource(shape)}${mpiSource(shape, mpi)}
void main() {
${RAW}  vec3 direction = through(floor(gl_FragCoord.xy) + 0.5);
  route(direction);
  for (int i = 0; i < ${slabsOfRay(shape)}; i++) {
    if (shares[i] > 0.0) raw += shares[i] * mpiAlong(chosen[i], tangentIn(chosen[i], direction));
  }
  out0 = clamp(raw, 0.0, 1.0) * dot(shares, covers.xyz);
}
`;
}

/** Scales the picture with a triangle as wide as the coarser of both grids' pixels. */
export const PRESENT = `${HEAD}${targets(1)}
uniform sampler2D picture;
uniform vec2 target;
uniform vec3 background;
uniform bool flip;
void main() {
  vec2 pixel = gl_FragCoord.xy;
  if (flip) pixel.y = target.y - pixel.y;
  ivec2 size = textureSize(picture, 0);
  vec2 scale = vec2(size) / target;
  vec2 reach = max(scale, 1.0);
  vec2 centre = pixel * scale;
  ivec2 from = max(ivec2(floor(centre - reach + 0.5)), 0);
  ivec2 to = min(ivec2(floor(centre + reach + 0.5)), size);
  vec4 sum = vec4(0.0);
  float total = 0.0;
  for (int y = from.y; y < to.y; y++) {
    float wy = max(0.0, 1.0 - abs(float(y) + 0.5 - centre.y) / reach.y);
    for (int x = from.x; x < to.x; x++) {
      float w = wy * max(0.0, 1.0 - abs(float(x) + 0.5 - centre.x) / reach.x);
      sum += w * texelFetch(picture, ivec2(x, y), 0);
      total += w;
    }
  }
  sum /= total;
  out0 = vec4(sum.xyz + (1.0 - sum.w) * background, 1.0);
}
`;
