/** What went wrong, in words for the person in front of the page. */
export type FailureKind =
  | "network"
  | "not-found"
  /** Another host's server does not allow this page to read its answer. */
  | "cors"
  | "format"
  | "damaged"
  | "version"
  | "kind"
  | "too-big"
  /** As `too-big`, where the scene is a field of light and fewer splats would be no advice. */
  | "field-too-big"
  /** As `too-big`, where the scene is a mesh. */
  | "mesh-too-big"
  /** The file that says how to show the scene, not the scene. */
  | "settings"
  | "no-graphics";

/** A failure with a kind, the thing it happened to, and technical detail for the console. */
export class SceneError extends Error {
  readonly kind: FailureKind;
  readonly where: string;
  readonly detail: string;

  constructor(kind: FailureKind, where: string, detail: string) {
    super(`${where}: ${detail}`);
    this.name = "SceneError";
    this.kind = kind;
    this.where = where;
    this.detail = detail;
  }
}
