/** Every text of the player. Another language is another table of the same keys. */
export const strings = {
  loading: "Loading",
  decoding: "Unpacking",
  dropHere: "Open a scene",
  dropHint: "Drop a .s4d, .ply, .spz, .sog, .glb or .splat file here, or",
  choose: "choose a file",
  modes: "Way of moving",
  orbit: "Orbit",
  fly: "Fly",
  walk: "Walk",
  frame: "Frame the scene",
  reset: "Reset the view",
  help: "Help",
  settings: "Settings",
  fullscreen: "Full screen",
  vr: "Enter VR",
  ar: "Show in your room",
  immersionFailed: "The headset did not start.",
  leaveFullscreen: "Leave full screen",
  more: "More",
  wordFrame: "Frame",
  wordReset: "Reset",
  wordShare: "Share",
  wordSettings: "Settings",
  wordCameras: "Cameras",
  wordMeasure: "Measure",
  wordPicture: "Picture",
  wordHelp: "Help",
  wordFullscreen: "Full screen",
  turnUp: "Turn upright by 90 degrees",
  share: "Share this view",
  copied: "Link copied",
  copiedLocal: "Link copied. It works only on this network, and while the server runs.",
  copiedWithoutFile: "Link copied. The scene is a file of this device and does not go with it.",
  copyByHand: "Copy this link",
  screenshot: "Picture: save one",
  drawingPicture: "Drawing the picture",
  pictureFailed: "The picture could not be drawn.",
  pictureSaved: "Picture saved",
  cameras: "Training cameras",
  measure: "Measure",
  measureStart: "Click two points in the scene",
  measureUnits: "units",
  statistics: "Statistics",
  close: "Close",
  previous: "Previous",
  next: "Next",
  annotations: "Notes",
  quality: "Quality",
  qualitySteps: "Fastest,Fast,Balanced,Fine,Finest",
  adaptive: "Lower the resolution while moving, where needed",
  fov: "Field of view",
  up: "Up",
  upOther: "As found",
  background: "Background",
  backgrounds: "auto:Scene or appearance,black:Black,white:White,own:Another colour",
  colour: "Colour",
  theme: "Appearance",
  themes: "auto:System,light:Light,dark:Dark",
  stick: "Move",
  canvas: "3D scene. Arrow keys or dragging look around; press H for help.",
  hintMouse: "Drag to look around, scroll to come nearer, double click to fly there",
  hintTouch: "One finger looks around, two come nearer and shift, a double tap flies there",
  hintEmbedded: "Ctrl or ⌘ and the wheel come nearer",
  timeline: "Time",
  play: "Play",
  pause: "Pause",
  loop: "Again and again",
  speed: "Speed",
  previousMoment: "Previous moment",
  nextMoment: "Next moment",
  backToScene: "Back to the scene",
  leftOut: "Settings left out",
  controls: "Player controls",
  lookThrough: "Looking through",
  showAll: "Show cameras in the scene",
  noCameras: "This scene has no training cameras.",
  retry: "Try again",
  openAnother: "Open another file",
  lost: "The graphics card was taken away. The picture comes back when it returns.",
  reload: "Reload",
  sampling: "Size",
  fidelity: "Compare with the trainer",
  comparing: "Drawing the trainer's views",
  // Statistics
  statFps: "Frames",
  statSort: "Sorting",
  statSplats: "Splats",
  statPicture: "One picture",
  statSlabs: "Slabs",
  statPlanes: "Planes",
  statTriangles: "Triangles",
  statVertices: "Vertices",
  statTexture: "Texture",
  statDegree: "Harmonics",
  statSize: "Canvas",
  statMemory: "Scene memory",
  statFile: "File",
  statLoad: "Loaded in",
  statBackend: "Graphics",
} as const;

export type StringKey = keyof typeof strings;

/** Titles and advice of error pages. */
export const failures = {
  settings: [
    "The settings cannot be read",
    "Mend the settings file, or open the player without it.",
  ],
  network: [
    "The connection broke",
    "Check the network, then try again. What has arrived is kept by the browser where it can.",
  ],
  "not-found": ["The scene is not there", "Check the address. The link may be old or incomplete."],
  cors: [
    "Another server keeps the scene to itself",
    "It answers, but without Access-Control-Allow-Origin no page of another address may read it. Allow this page's address there, or put the file beside the player.",
  ],
  format: [
    "This file cannot be shown",
    "The player opens .s4d bundles, and splats as .ply, .spz, .sog, .glb or .splat.",
  ],
  damaged: [
    "The file is damaged",
    "Copy or download it again. If that does not help, export it again.",
  ],
  version: [
    "This file is of a newer kind",
    "Update the player, or export the scene again with this version of scene4d.",
  ],
  kind: ["This kind of scene is not known here", "Update the player."],
  "too-big": [
    "This scene is too big for this device",
    "Export it with fewer splats: scene4d export RUN bundle --target phone.",
  ],
  "field-too-big": [
    "This scene is too big for this device",
    "Train it with less: scene4d train lightslab, with --width 64 for the network, or --max-mb 0.95 for the planes.",
  ],
  "mesh-too-big": [
    "This scene is too big for this device",
    "Train it with less: scene4d train mesh, with --max-triangles 20000 or --texture-size 2048.",
  ],
  "no-graphics": [
    "No 3D graphics here",
    "The player needs WebGPU or WebGL 2. Update the browser, or switch hardware acceleration on in its settings.",
  ],
} as const satisfies Record<string, readonly [string, string]>;

/** What to do where another server's files cannot be had; browsers do not say why. */
export const foreignServer =
  "The scene lies on another server, which did not answer or does not allow this page to read it. " +
  "It must send Access-Control-Allow-Origin.";

/** Rows of the help page: keys or gesture, and what it does. */
const mouseRows = [
  ["Drag", "Look around"],
  ["Right drag, Shift + drag", "Shift"],
  ["Wheel", "Nearer, farther"],
  ["Click", "Focus on a point"],
  ["Double click", "Fly there"],
] as const;
const keyRows = [
  ["Arrows", "Look around (orbit), move"],
  ["W A S D, Q E", "Move, down and up (Shift: faster)"],
  ["+ -", "Nearer, farther"],
  ["1 2 3", "Orbit, fly, walk"],
  ["F", "Frame the scene"],
  ["R", "Reset the view"],
  ["U", "Turn upright by 90 degrees"],
  ["C", "Training cameras"],
  ["[ ]", "Previous, next camera"],
  ["M", "Measure"],
  ["P", "Take a picture"],
  ["Space", "Play, pause (scenes that move)"],
  [", .", "Previous, next moment"],
  ["< >", "Slower, faster"],
  ["L", "Play again and again, or once"],
  ["I", "Statistics"],
  ["Enter", "Full screen"],
  ["H, ?", "This help"],
  ["Esc", "Close"],
] as const;
const touchRows = [
  ["One finger", "Look around"],
  ["Two fingers", "Shift; together and apart: farther, nearer"],
  ["Tap", "Focus on a point"],
  ["Double tap", "Fly there"],
  ["Joystick", "Move, in fly and walk"],
  ["More", "Reset, measure, picture, training cameras"],
] as const;
const padRows = [
  ["Gamepad", "Left stick moves, right stick looks, triggers go down and up"],
] as const;

export type HelpRow = readonly [string, string];

/** For the hands at this device. */
export function helpRows(touch: boolean, keyboard: boolean): readonly HelpRow[] {
  return [...(touch ? touchRows : mouseRows), ...(keyboard || !touch ? keyRows : []), ...padRows];
}
