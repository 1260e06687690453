/**
 * A mesh's pixels: its texture's colours, without light. The level of the texture is the one that
 * the Python rasteriser reads: log2 of the texels that a pixel is wide where it is widest, at most
 * `lastLevel`.
 */

export const VERTEX_GLSL = `
attribute vec3 vertex_position;
attribute vec2 vertex_texCoord0;
uniform mat4 matrix_viewProjection;
varying highp vec2 uv;
void main() {
	uv = vertex_texCoord0;
	gl_Position = matrix_viewProjection * vec4(vertex_position, 1.0);
}
`;

export const FRAGMENT_GLSL = `
uniform sampler2D meshTexture;
uniform float lastLevel;
varying highp vec2 uv;
void main() {
	highp vec2 at = uv * vec2(textureSize(meshTexture, 0));
	highp vec2 along = dFdx(at);
	highp vec2 down = dFdy(at);
	highp float widest = max(max(dot(along, along), dot(down, down)), 1e-12);
	gl_FragColor = vec4(textureLod(meshTexture, uv, clamp(0.5 * log2(widest), 0.0, lastLevel)).rgb, 1.0);
}
`;

export const VERTEX_WGSL = `
attribute vertex_position: vec3f;
attribute vertex_texCoord0: vec2f;
uniform matrix_viewProjection: mat4x4f;
varying uv: vec2f;
@vertex
fn vertexMain(input: VertexInput) -> VertexOutput {
	var output: VertexOutput;
	output.uv = input.vertex_texCoord0;
	output.position = uniform.matrix_viewProjection * vec4f(input.vertex_position, 1.0);
	return output;
}
`;

export const FRAGMENT_WGSL = `
uniform lastLevel: f32;
varying uv: vec2f;
var meshTexture: texture_2d<f32>;
var meshTextureSampler: sampler;
@fragment
fn fragmentMain(input: FragmentInput) -> FragmentOutput {
	let at = input.uv * vec2f(textureDimensions(meshTexture, 0));
	let along = dpdx(at);
	let down = dpdy(at);
	let widest = max(max(dot(along, along), dot(down, down)), 1e-12);
	let level = clamp(0.5 * log2(widest), 0.0, uniform.lastLevel);
	var output: FragmentOutput;
	output.color = vec4f(textureSampleLevel(meshTexture, meshTextureSampler, input.uv, level).rgb, 1.0);
	return output;
}
`;
