import type { FieldShape } from "../../decode/field/field";
import { BLOCK, CELL, type FieldMpi } from "../../decode/field/mpi";
import { LEAST_LEFT } from "../../decode/field/picture";
import {
  FADE,
  LEAST_COST,
  LEAST_INSIDE,
  LEAST_WEIGHTS,
  MIN_COSINE,
  OBLIQUE_COST,
} from "../../decode/field/rays";
import { float, SLAB_ROWS, slabTexels } from "../layout";

/** See the GLSL one: rays in slabs, and the slabs that count for a ray. Slabs are at `binding`. */
export function slabSource(shape: FieldShape, binding: number): string {
  const depths = shape.slabs[0]!.disparities.length;
  const stride = slabTexels(shape);
  return `@group(0) @binding(${binding}) var<storage, read> slabs: array<vec4f>;
struct SlabRay {
  tangent: vec2f,
  crosses: bool,
  // What the ray costs at least: before it is asked how much of it is inside.
  least: f32,
}
var<private> chosen = vec4i(0);
var<private> costs = vec4f(1e30);
var<private> covers = vec4f(0.0);
var<private> shares: vec3f;
fn through(pixel: vec2f) -> vec3f {
  let on = (pixel - frame.lens.zw) / frame.lens.xy;
  return normalize(vec3f(on.x, -on.y, -1.0));
}
fn rayIn(slab: i32, direction: vec3f) -> SlabRay {
  let x = slabs[slab * ${stride}];
  let y = slabs[slab * ${stride} + 1];
  let z = slabs[slab * ${stride} + 2];
  let d = direction * mat3x3f(x.xyz, y.xyz, z.xyz);
  let crosses = d.z > ${float(MIN_COSINE)};
  let tangent = select(vec2f(0.0), d.xy / max(d.z, ${float(MIN_COSINE)}), crosses);
  let parallax = length(vec2f(x.w, y.w) - z.w * tangent);
  let least = parallax + ${float(OBLIQUE_COST)} * length(tangent) + ${float(LEAST_COST)};
  return SlabRay(tangent, crosses, least);
}
fn placeOn(slab: i32, p: i32, tangent: vec2f) -> vec2f {
  let plane = slabs[slab * ${stride} + ${SLAB_ROWS} + p];
  return tangent * plane.zw + plane.xy;
}
fn coordinate(slab: i32, axis: i32, tangent: vec2f) -> f32 {
  let at = placeOn(slab, axis >> 1, tangent);
  return select(at.x, at.y, (axis & 1) == 1);
}
fn insideOf(slab: i32, tangent: vec2f) -> f32 {
  var farthest = 0.0;
  for (var p = 0; p < ${depths}; p++) {
    let c = abs(placeOn(slab, p, tangent));
    farthest = max(farthest, max(c.x, c.y));
    if (farthest >= ${float(1 + FADE)}) { break; }
  }
  return clamp(1.0 - (farthest - 1.0) / ${float(FADE)}, 0.0, 1.0);
}
fn consider(slab: i32, ray: SlabRay) {
  var inside = 0.0;
  if (ray.crosses) { inside = insideOf(slab, ray.tangent); }
  let cost = ray.least / max(inside, ${float(LEAST_INSIDE)});
  let c = chosen;
  let v = costs;
  let i = covers;
  if (cost < v.x) {
    chosen = vec4i(slab, c.xyz);
    costs = vec4f(cost, v.xyz);
    covers = vec4f(inside, i.xyz);
  } else if (cost < v.y) {
    chosen = vec4i(c.x, slab, c.yz);
    costs = vec4f(v.x, cost, v.yz);
    covers = vec4f(i.x, inside, i.yz);
  } else if (cost < v.z) {
    chosen = vec4i(c.xy, slab, c.z);
    costs = vec4f(v.xy, cost, v.z);
    covers = vec4f(i.xy, inside, i.z);
  } else if (cost < v.w) {
    chosen.w = slab;
    costs.w = cost;
  }
}
fn route(direction: vec3f) {
${shape.slabs.length > 1 ? some(shape) : ONLY}}
`;
}

const ONLY = `  consider(0, rayIn(0, direction));
  shares = vec3f(1.0, 0.0, 0.0);
`;

/** See the GLSL one. */
function some({ slabs, overlap }: FieldShape): string {
  return `  var first = 0;
  var least = 1e30;
  for (var s = 0; s < ${slabs.length}; s++) {
    let cost = rayIn(s, direction).least;
    if (cost < least) {
      least = cost;
      first = s;
    }
  }
  consider(first, rayIn(first, direction));
  for (var s = 0; s < ${slabs.length}; s++) {
    let ray = rayIn(s, direction);
    if (s != first && ray.least < costs.x + ${float(overlap)}) { consider(s, ray); }
  }
  var t = clamp(1.0 - (costs - costs.x) / ${float(overlap)}, vec4f(0.0), vec4f(1.0));
  t = t * t * (3.0 - 2.0 * t);
  let raw = max(t.xyz - t.w, vec3f(0.0));
  let sum = raw.x + raw.y + raw.z;
  shares = select(vec3f(1.0, 0.0, 0.0), raw / sum, sum > ${float(LEAST_WEIGHTS)});
`;
}

/** See the GLSL one: MPIs laid over each other; bindings begin with `binding`. */
export function mpiSource(shape: FieldShape, mpi: FieldMpi, binding: number): string {
  const { columns, rows } = shape.mpi!;
  const depths = shape.slabs[0]!.disparities.length;
  const across = mpi.width / CELL;
  return `@group(0) @binding(${binding}) var<storage, read> blocks: array<u32>;
@group(0) @binding(${binding + 1}) var atlas: texture_2d<f32>;
@group(0) @binding(${binding + 2}) var linear: sampler;
fn mpiAlong(slab: i32, tangent: vec2f) -> vec4f {
  let last = vec2i(${columns - 1}, ${rows - 1});
  var left = 1.0;
  var sum = vec4f(0.0);
  for (var p = ${depths - 1}; p >= 0; p--) {
    let spot = clamp(0.5 * placeOn(slab, p, tangent) + 0.5, vec2f(0.0), vec2f(1.0)) * vec2f(last);
    let block = min(vec2i(spot), last - 1) / ${BLOCK};
    let place = ((slab * ${depths} + p) * ${rows / BLOCK} + block.y) * ${columns / BLOCK} + block.x;
    let n = i32(blocks[place]);
    if (n == 0) { continue; }
    let cell = vec2i((n - 1) % ${across}, (n - 1) / ${across}) * ${CELL};
    let uv = (vec2f(cell) + spot - vec2f(${BLOCK} * block) + 0.5) / vec2f(${mpi.width}, ${mpi.height});
    let texel = textureSampleLevel(atlas, linear, uv, 0.0);
    sum += left * texel;
    left *= 1.0 - texel.w;
    if (left < ${float(LEAST_LEFT)}) { break; }
  }
  return sum;
}
`;
}
