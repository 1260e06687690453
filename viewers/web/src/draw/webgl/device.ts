import { SceneError } from "../../decode/errors";
import type { GridSize } from "../layout";
import { VERTEX } from "./shaders";

/** A program, its uniforms, and a buffer of weights where it has one. */
export interface Program {
  readonly program: WebGLProgram;
  readonly uniforms: Readonly<Record<string, WebGLUniformLocation>>;
  readonly weights: WebGLBuffer | null;
}

/** An intermediate result: a texture with layers. */
export interface Layers {
  readonly texture: WebGLTexture;
  readonly size: GridSize;
}

/** What of WebGL 2 drawing a field needs, and what this device can do. */
export class FieldDevice {
  readonly gl: WebGL2RenderingContext;
  /** Textures that one pass writes at most. */
  readonly targets: number;
  /** Bytes of weights that one pass reads at most. */
  readonly blockBytes: number;
  private readonly vertex: WebGLShader;
  private readonly programs = new Map<string, WebGLProgram>();
  private readonly vao: WebGLVertexArrayObject;

  constructor(
    canvas: HTMLCanvasElement,
    private readonly precise: boolean,
  ) {
    const gl = canvas.getContext("webgl2", {
      alpha: false,
      antialias: false,
      depth: false,
      powerPreference: "high-performance",
    });
    if (!gl) throw new SceneError("no-graphics", "WebGL2", "no context");
    this.gl = gl;
    const float = gl.getExtension("EXT_color_buffer_float");
    if (!float && (precise || !gl.getExtension("EXT_color_buffer_half_float"))) {
      throw new SceneError("no-graphics", "WebGL2", "cannot draw into float textures");
    }
    const most = (name: number) => gl.getParameter(name) as number;
    this.targets = Math.min(8, most(gl.MAX_DRAW_BUFFERS), most(gl.MAX_COLOR_ATTACHMENTS));
    this.blockBytes = most(gl.MAX_UNIFORM_BLOCK_SIZE);
    this.vertex = this.compile(gl.VERTEX_SHADER, VERTEX);
    this.vao = gl.createVertexArray()!;
    gl.disable(gl.BLEND);
    gl.disable(gl.DITHER);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  }

  get format(): number {
    return this.precise ? this.gl.RGBA32F : this.gl.RGBA16F;
  }

  get bytesPerTexel(): number {
    return this.precise ? 16 : 8;
  }

  private compile(type: number, source: string): WebGLShader {
    const { gl } = this;
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    return shader;
  }

  /** Starts to compile, once for the same text; `finish` waits for it, so that many compile side by side. */
  start(fragment: string): WebGLProgram {
    const { gl } = this;
    const made = this.programs.get(fragment);
    if (made) return made;
    const program = gl.createProgram()!;
    this.programs.set(fragment, program);
    gl.attachShader(program, this.vertex);
    gl.attachShader(program, this.compile(gl.FRAGMENT_SHADER, fragment));
    gl.linkProgram(program);
    return program;
  }

  finish(program: WebGLProgram, weights: Float32Array | null): Program {
    const { gl } = this;
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = (gl.getAttachedShaders(program) ?? []).map((s) => gl.getShaderInfoLog(s));
      throw new SceneError(
        "no-graphics",
        "WebGL2",
        `${gl.getProgramInfoLog(program)} ${logs.join(" ")}`,
      );
    }
    const uniforms: Record<string, WebGLUniformLocation> = {};
    const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) as number;
    for (let i = 0; i < (count ?? 0); i++) {
      const { name } = gl.getActiveUniform(program, i)!;
      const place = gl.getUniformLocation(program, name);
      if (place) uniforms[name] = place;
    }
    return { program, uniforms, weights: weights && this.buffer(program, weights) };
  }

  private buffer(program: WebGLProgram, weights: Float32Array): WebGLBuffer {
    const { gl } = this;
    const buffer = gl.createBuffer()!;
    gl.bindBuffer(gl.UNIFORM_BUFFER, buffer);
    gl.bufferData(gl.UNIFORM_BUFFER, weights, gl.STATIC_DRAW);
    gl.uniformBlockBinding(program, gl.getUniformBlockIndex(program, "Weights"), 0);
    return buffer;
  }

  texture(width: number, height: number, format: number): WebGLTexture {
    const { gl } = this;
    const texture = gl.createTexture()!;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    this.nearest(gl.TEXTURE_2D);
    return texture;
  }

  layers(size: GridSize): Layers {
    const { gl } = this;
    const texture = gl.createTexture()!;
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, this.format, size.width, size.height, size.layers);
    this.nearest(gl.TEXTURE_2D_ARRAY);
    return { texture, size };
  }

  private nearest(target: number): void {
    const { gl } = this;
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texParameteri(target, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(target, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  }

  /** A framebuffer that writes layers `first` .. `first` + `count` - 1. */
  into({ texture }: Layers, first: number, count: number): WebGLFramebuffer {
    const { gl } = this;
    const framebuffer = gl.createFramebuffer()!;
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    const names = Array.from({ length: count }, (_, i) => gl.COLOR_ATTACHMENT0 + i);
    for (const [i, name] of names.entries()) {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, name, texture, 0, first + i);
    }
    gl.drawBuffers(names);
    return framebuffer;
  }

  intoTexture(texture: WebGLTexture): WebGLFramebuffer {
    const { gl } = this;
    const framebuffer = gl.createFramebuffer()!;
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return framebuffer;
  }

  /** Runs a program over `width` x `height` pixels of a framebuffer (null: the canvas). */
  run(
    { program, uniforms, weights }: Program,
    framebuffer: WebGLFramebuffer | null,
    { width, height }: { width: number; height: number },
    textures: Readonly<Record<string, [number, WebGLTexture]>>,
    set?: (uniforms: Program["uniforms"]) => void,
  ): void {
    const { gl } = this;
    gl.useProgram(program);
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.viewport(0, 0, width, height);
    if (weights) gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, weights);
    for (const [unit, [name, [target, texture]]] of Object.entries(textures).entries()) {
      const place = uniforms[name];
      if (!place) continue;
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(target, texture);
      gl.uniform1i(place, unit);
    }
    set?.(uniforms);
    gl.bindVertexArray(this.vao);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}
