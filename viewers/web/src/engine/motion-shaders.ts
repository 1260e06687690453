/**
 * How a moving splat is read from its textures: as the engine's uncompressed ones, then moved by
 * the blend of its four nodes' dual quaternions (SPEC.md, section 9) before anything else sees it.
 *
 * `motionPoses`, 128 texels wide: the first has the seconds from the motion's start and whether
 * windows count; texels 1 + 2 n and 2 + 2 n have node n, x, y, z, w of its turn and its dual part.
 */

/** Texels of a row. */
export const POSE_ROW = 128;

export const READ_GLSL = `
uniform highp sampler2D motionPoses;
uint tAw;
vec4 tBcached;
vec4 motionTurn;
vec4 unpackRotation(vec3 data) {
	return vec4(data.xyz, sqrt(max(0.0, 1.0 - dot(data, data))));
}
vec4 poseTexel(uint k) {
	return texelFetch(motionPoses, ivec2(int(k % ${POSE_ROW}u), int(k / ${POSE_ROW}u)), 0);
}
vec3 getCenter() {
	uvec4 tA = loadTransformA();
	tAw = tA.w;
	tBcached = loadTransformB();
	vec3 p = uintBitsToFloat(tA.xyz);
	uvec4 m = loadMotionNodes();
	uvec4 n = 1u + 2u * uvec4(m.x & 65535u, m.x >> 16u, m.y & 65535u, m.y >> 16u);
	vec4 w = vec4(m.z & 255u, (m.z >> 8u) & 255u, (m.z >> 16u) & 255u, m.z >> 24u) / 255.0;
	vec4 first = poseTexel(n.x);
	vec4 second = poseTexel(n.y);
	vec4 third = poseTexel(n.z);
	vec4 fourth = poseTexel(n.w);
	w.y *= dot(first, second) < 0.0 ? -1.0 : 1.0;
	w.z *= dot(first, third) < 0.0 ? -1.0 : 1.0;
	w.w *= dot(first, fourth) < 0.0 ? -1.0 : 1.0;
	vec4 r = w.x * first + w.y * second + w.z * third + w.w * fourth;
	vec4 d = w.x * poseTexel(n.x + 1u) + w.y * poseTexel(n.y + 1u) + w.z * poseTexel(n.z + 1u) + w.w * poseTexel(n.w + 1u);
	float unit = inversesqrt(dot(r, r));
	motionTurn = unit * r;
	vec3 shift = 2.0 * unit * unit * (r.w * d.xyz - d.w * r.xyz + cross(r.xyz, d.xyz));
	vec3 t = 2.0 * cross(motionTurn.xyz, p);
	return p + motionTurn.w * t + cross(motionTurn.xyz, t) + shift;
}
vec4 getColor() {
	vec4 color = loadSplatColor();
	#ifdef MOTION_WINDOWS
		vec4 now = poseTexel(0u);
		vec4 open = loadMotionWindow();
		vec2 x = clamp(vec2(now.x - open.x, open.y - now.x) / open.zw, -80.0, 80.0);
		vec2 s = 1.0 / (1.0 + exp(-x));
		if (now.y > 0.0) color.a *= s.x * s.y;
	#endif
	return color;
}
vec4 getRotation() {
	vec4 q = unpackRotation(vec3(unpackHalf2x16(tAw), tBcached.w));
	vec3 a = motionTurn.xyz;
	return vec4(
		motionTurn.w * q.w - dot(a, q.xyz),
		motionTurn.w * q.xyz + q.w * a + cross(a, q.xyz)
	);
}
vec3 getScale() {
	return tBcached.xyz;
}
#include "gsplatUncompressedSHVS"
`;

export const READ_WGSL = `
var motionPoses: texture_2d<uff>;
var<private> tAw: u32;
var<private> tBcached: vec4f;
var<private> motionTurn: vec4f;
fn unpackRotation(data: vec3f) -> vec4f {
	return vec4f(data.xyz, sqrt(max(0.0, 1.0 - dot(data, data))));
}
fn poseTexel(k: u32) -> vec4f {
	return textureLoad(motionPoses, vec2i(i32(k % ${POSE_ROW}u), i32(k / ${POSE_ROW}u)), 0);
}
fn getCenter() -> vec3f {
	let tA: vec4<u32> = loadTransformA();
	tAw = tA.w;
	tBcached = loadTransformB();
	let p = bitcast<vec3f>(tA.xyz);
	let m: vec4<u32> = loadMotionNodes();
	let n = 1u + 2u * vec4<u32>(m.x & 65535u, m.x >> 16u, m.y & 65535u, m.y >> 16u);
	var w = vec4f(vec4<u32>(m.z & 255u, (m.z >> 8u) & 255u, (m.z >> 16u) & 255u, m.z >> 24u)) / 255.0;
	let first = poseTexel(n.x);
	let second = poseTexel(n.y);
	let third = poseTexel(n.z);
	let fourth = poseTexel(n.w);
	let signs = vec3f(dot(first, second), dot(first, third), dot(first, fourth));
	w = vec4f(w.x, w.yzw * select(vec3f(1.0), vec3f(-1.0), signs < vec3f(0.0)));
	let r = w.x * first + w.y * second + w.z * third + w.w * fourth;
	let d = w.x * poseTexel(n.x + 1u) + w.y * poseTexel(n.y + 1u) + w.z * poseTexel(n.z + 1u) + w.w * poseTexel(n.w + 1u);
	let unit = inverseSqrt(dot(r, r));
	motionTurn = unit * r;
	let shift = 2.0 * unit * unit * (r.w * d.xyz - d.w * r.xyz + cross(r.xyz, d.xyz));
	let t = 2.0 * cross(motionTurn.xyz, p);
	return p + motionTurn.w * t + cross(motionTurn.xyz, t) + shift;
}
fn getColor() -> vec4f {
	var color = vec4f(loadSplatColor());
	#ifdef MOTION_WINDOWS
		let now = poseTexel(0u);
		let open = loadMotionWindow();
		let x = clamp(vec2f(now.x - open.x, open.y - now.x) / open.zw, vec2f(-80.0), vec2f(80.0));
		let s = 1.0 / (1.0 + exp(-x));
		if (now.y > 0.0) {
			color.a = color.a * s.x * s.y;
		}
	#endif
	return color;
}
fn getRotation() -> vec4f {
	let q = unpackRotation(vec3f(unpack2x16float(tAw), tBcached.w));
	let a = motionTurn.xyz;
	return vec4f(
		motionTurn.w * q.w - dot(a, q.xyz),
		motionTurn.w * q.xyz + q.w * a + cross(a, q.xyz)
	);
}
fn getScale() -> vec3f {
	return tBcached.xyz;
}
#include "gsplatUncompressedSHVS"
`;
