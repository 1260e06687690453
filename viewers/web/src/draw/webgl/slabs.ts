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
import { float, INDEX_ROW, SLAB_ROWS } from "../layout";

/**
 * `through`: the direction of a place in the picture, in the camera's frame. `tangentIn`: its
 * tangent in a slab. `placeOn`: its coordinates on a plane; `coordinate`: one of them. `route`
 * fills `chosen`, `shares` and `covers` (how much of the ray is inside) with the slabs that count.
 */
export function slabSource(shape: FieldShape): string {
  const depths = shape.slabs[0]!.disparities.length;
  return `uniform highp sampler2D slabs;
uniform vec4 lens;
ivec4 chosen = ivec4(0);
vec3 shares = vec3(1.0, 0.0, 0.0);
vec4 covers = vec4(0.0);
vec4 ofSlab(int slab, int i) { return texelFetch(slabs, ivec2(i, slab), 0); }
vec3 through(vec2 pixel) {
  vec2 on = (pixel - lens.zw) / lens.xy;
  return normalize(vec3(on.x, -on.y, -1.0));
}
vec2 turned(vec3 d, out bool crosses) {
  crosses = d.z > ${float(MIN_COSINE)};
  return crosses ? d.xy / d.z : vec2(0.0);
}
vec2 tangentIn(int slab, vec3 direction) {
  bool crosses;
  return turned(direction * mat3(ofSlab(slab, 0).xyz, ofSlab(slab, 1).xyz, ofSlab(slab, 2).xyz), crosses);
}
vec2 placeOn(int slab, int p, vec2 tangent) {
  vec4 plane = ofSlab(slab, ${SLAB_ROWS} + p);
  return tangent * plane.zw + plane.xy;
}
float coordinate(int slab, int axis, vec2 tangent) {
  vec2 at = placeOn(slab, axis >> 1, tangent);
  return (axis & 1) == 0 ? at.x : at.y;
}
float insideOf(int slab, vec2 tangent) {
  float farthest = 0.0;
  for (int p = 0; p < ${depths}; p++) {
    vec2 c = abs(placeOn(slab, p, tangent));
    farthest = max(farthest, max(c.x, c.y));
    if (farthest >= ${float(1 + FADE)}) break;
  }
  return clamp(1.0 - (farthest - 1.0) / ${float(FADE)}, 0.0, 1.0);
}
${shape.slabs.length > 1 ? routing(shape) : ONLY}`;
}

const ONLY = `void route(vec3 direction) {
  bool crosses;
  vec3 d = direction * mat3(ofSlab(0, 0).xyz, ofSlab(0, 1).xyz, ofSlab(0, 2).xyz);
  vec2 tangent = turned(d, crosses);
  covers.x = crosses ? insideOf(0, tangent) : 0.0;
}
`;

/**
 * The cheapest four, the fourth of which the others' weights are measured by. What a slab costs
 * before it is asked how much of the ray is inside is a bound below its cost: most go no further.
 */
function routing(shape: FieldShape): string {
  const count = shape.slabs.length;
  return `vec4 costs = vec4(1e30);
float leastCost(int slab, vec3 direction, out vec2 tangent, out bool crosses) {
  vec4 x = ofSlab(slab, 0), y = ofSlab(slab, 1), z = ofSlab(slab, 2);
  tangent = turned(direction * mat3(x.xyz, y.xyz, z.xyz), crosses);
  float parallax = length(vec2(x.w, y.w) - z.w * tangent);
  return parallax + ${float(OBLIQUE_COST)} * length(tangent) + ${float(LEAST_COST)};
}
void consider(int slab, float least, vec2 tangent, bool crosses) {
  float inside = crosses ? insideOf(slab, tangent) : 0.0;
  float cost = least / max(inside, ${float(LEAST_INSIDE)});
  ivec4 c = chosen;
  vec4 v = costs, i = covers;
  if (cost < v.x) {
    chosen = ivec4(slab, c.xyz); costs = vec4(cost, v.xyz); covers = vec4(inside, i.xyz);
  } else if (cost < v.y) {
    chosen = ivec4(c.x, slab, c.yz); costs = vec4(v.x, cost, v.yz); covers = vec4(i.x, inside, i.yz);
  } else if (cost < v.z) {
    chosen = ivec4(c.xy, slab, c.z); costs = vec4(v.xy, cost, v.z); covers = vec4(i.xy, inside, i.z);
  } else if (cost < v.w) {
    chosen.w = slab; costs.w = cost; covers.w = inside;
  }
}
void route(vec3 direction) {
  vec2 tangent;
  bool crosses;
  int first = 0;
  float least = 1e30;
  for (int s = 0; s < ${count}; s++) {
    float cost = leastCost(s, direction, tangent, crosses);
    if (cost < least) { least = cost; first = s; }
  }
  least = leastCost(first, direction, tangent, crosses);
  consider(first, least, tangent, crosses);
  for (int s = 0; s < ${count}; s++) {
    least = leastCost(s, direction, tangent, crosses);
    if (s != first && least < costs.x + ${float(shape.overlap)}) consider(s, least, tangent, crosses);
  }
  vec4 t = clamp(1.0 - (costs - costs.x) / ${float(shape.overlap)}, 0.0, 1.0);
  t = t * t * (3.0 - 2.0 * t);
  shares = max(t.xyz - t.w, 0.0);
  float sum = shares.x + shares.y + shares.z;
  shares = sum > ${float(LEAST_WEIGHTS)} ? shares / sum : vec3(1.0, 0.0, 0.0);
}
`;
}

/** `mpiAlong`: colour times alpha, and alpha, of one slab's MPIs laid over each other. */
export function mpiSource(shape: FieldShape, mpi: FieldMpi): string {
  const { columns, rows } = shape.mpi!;
  const depths = shape.slabs[0]!.disparities.length;
  return `uniform highp usampler2D blocks;
uniform highp sampler2D atlas;
vec4 mpiAlong(int slab, vec2 tangent) {
  const vec2 size = vec2(${columns - 1}, ${rows - 1});
  float left = 1.0;
  vec4 sum = vec4(0.0);
  for (int p = ${depths - 1}; p >= 0; p--) {
    vec2 at = clamp(0.5 * placeOn(slab, p, tangent) + 0.5, 0.0, 1.0) * size;
    ivec2 block = min(ivec2(at), ivec2(size) - 1) >> 3;
    int place = ((slab * ${depths} + p) * ${rows / BLOCK} + block.y) * ${columns / BLOCK} + block.x;
    int n = int(texelFetch(blocks, ivec2(place & ${INDEX_ROW - 1}, place / ${INDEX_ROW}), 0).x);
    if (n == 0) continue;
    ivec2 cell = ivec2((n - 1) % ${mpi.width / CELL}, (n - 1) / ${mpi.width / CELL}) * ${CELL};
    vec2 uv = (vec2(cell) + at - vec2(block << 3) + 0.5) / vec2(${mpi.width}, ${mpi.height});
    vec4 texel = textureLod(atlas, uv, 0.0);
    sum += left * texel;
    left *= 1.0 - texel.w;
    if (left < ${float(LEAST_LEFT)}) break;
  }
  return sum;
}
`;
}
