/** What TypeScript's library leaves out of WebGPU. */
declare const GPUBufferUsage: Readonly<
  Record<"MAP_READ" | "COPY_DST" | "UNIFORM" | "STORAGE", GPUBufferUsageFlags>
>;
declare const GPUTextureUsage: Readonly<
  Record<"COPY_SRC" | "COPY_DST" | "TEXTURE_BINDING" | "RENDER_ATTACHMENT", GPUTextureUsageFlags>
>;
declare const GPUMapMode: Readonly<Record<"READ", GPUMapModeFlags>>;
