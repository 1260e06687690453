import type { Rig } from "./rig";

export interface InputHandlers {
  /** A tap or click that was no drag; pixels from the canvas' corner. */
  click(x: number, y: number): void;
  /** A second one soon after, near it: at the place of the first. */
  doubleClick(x: number, y: number): void;
  /** Anything that takes the camera over from an animation. */
  steer(): void;
  /** The drawn camera's focal length in pixels. */
  focal(): number;
  /** A wheel that was left to the page around an embedded frame. */
  passed(): void;
}

const TURN_PER_PIXEL = 0.005;
const CLICK_PIXELS = 5;
/** Fingertips are softer than mice. */
const TAP_PIXELS = 12;
const CLICK_MS = 500;
/** From the first release to the second. */
const DOUBLE_MS = 500;
const DOUBLE_PIXELS = 24;

interface Touch {
  x: number;
  y: number;
}

/** Mouse, touch, pen and trackpad to a rig. */
export class PointerInput {
  private readonly touches = new Map<number, Touch>();
  private pinch: { distance: number; x: number; y: number } | null = null;
  private down: { x: number; y: number; time: number; moved: boolean; button: number } | null =
    null;
  private lastClick = { x: 0, y: 0, time: -1e9 };

  /** `embedded`: plain wheels and vertical swipes belong to the page around the frame. */
  constructor(
    private readonly element: HTMLElement,
    private readonly rig: Rig,
    private readonly handlers: InputHandlers,
    private readonly embedded = false,
  ) {
    element.classList.toggle("embedded", embedded);
    element.addEventListener("pointerdown", this.onDown);
    element.addEventListener("pointermove", this.onMove);
    element.addEventListener("pointerup", this.onUp);
    element.addEventListener("pointercancel", this.onUp);
    element.addEventListener("wheel", this.onWheel, { passive: false });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  private readonly onDown = (event: PointerEvent): void => {
    this.element.setPointerCapture(event.pointerId);
    this.touches.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    const single = this.touches.size === 1;
    this.down = single
      ? {
          x: event.offsetX,
          y: event.offsetY,
          time: event.timeStamp,
          moved: false,
          button: event.button,
        }
      : null;
    this.pinch = null;
  };

  private readonly onMove = (event: PointerEvent): void => {
    const touch = this.touches.get(event.pointerId);
    if (!touch) return;
    const dx = event.offsetX - touch.x;
    const dy = event.offsetY - touch.y;
    touch.x = event.offsetX;
    touch.y = event.offsetY;
    if (this.touches.size === 2) this.onPinch();
    if (!this.down) return;
    if (!this.down.moved) {
      const slack = event.pointerType === "touch" ? TAP_PIXELS : CLICK_PIXELS;
      if (Math.hypot(touch.x - this.down.x, touch.y - this.down.y) < slack) return;
      this.down.moved = true;
    }
    this.handlers.steer();
    const panning = this.down.button !== 0 || event.shiftKey || event.ctrlKey || event.metaKey;
    const focal = this.handlers.focal();
    if (panning) this.rig.pan(dx / focal, dy / focal);
    else this.rig.turn(dx * TURN_PER_PIXEL, dy * TURN_PER_PIXEL);
  };

  /** Two fingers: their distance zooms, their middle pans. */
  private onPinch(): void {
    const [a, b] = [...this.touches.values()] as [Touch, Touch];
    const now = {
      distance: Math.hypot(a.x - b.x, a.y - b.y),
      x: (a.x + b.x) / 2,
      y: (a.y + b.y) / 2,
    };
    if (this.pinch) {
      this.handlers.steer();
      const focal = this.handlers.focal();
      this.rig.zoom(this.pinch.distance / Math.max(1, now.distance));
      this.rig.pan((now.x - this.pinch.x) / focal, (now.y - this.pinch.y) / focal);
    }
    this.pinch = now;
  }

  private readonly onUp = (event: PointerEvent): void => {
    this.touches.delete(event.pointerId);
    this.pinch = null;
    const down = this.down;
    this.down = null;
    const [left] = this.touches.values();
    // After a pinch the finger that stays turns on; it is no tap.
    if (left && this.touches.size === 1) this.down = { ...left, time: 0, moved: true, button: 0 };
    if (!down || down.moved || down.button !== 0 || event.type === "pointercancel") return;
    if (event.timeStamp - down.time > CLICK_MS) return;
    const { x, y } = down;
    const time = event.timeStamp;
    const last = this.lastClick;
    const again =
      time - last.time < DOUBLE_MS && Math.hypot(x - last.x, y - last.y) < DOUBLE_PIXELS;
    this.lastClick = again ? { x: 0, y: 0, time: -1e9 } : { x, y, time };
    if (again) this.handlers.doubleClick(last.x, last.y);
    else this.handlers.click(x, y);
  };

  /** Wheels and pinches on a trackpad (which come with ctrlKey) zoom. */
  private readonly onWheel = (event: WheelEvent): void => {
    const wanted = event.ctrlKey || event.metaKey || event.shiftKey;
    if (this.embedded && !wanted && !document.fullscreenElement) {
      this.handlers.passed();
      return;
    }
    event.preventDefault();
    this.handlers.steer();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    // A pinch comes in small steps with ctrlKey; a wheel with it, in whole ones.
    const fine = event.ctrlKey && Math.abs(event.deltaY) * lines < 40;
    const amount = event.deltaY * lines * (fine ? 0.01 : 0.0015);
    // Some browsers turn a wheel with Shift sideways themselves.
    const sideways = event.deltaX || (event.shiftKey ? event.deltaY : 0);
    if (sideways && !event.ctrlKey) this.rig.turn(-sideways * lines * 0.002, 0);
    if (!event.shiftKey) this.rig.zoom(Math.exp(amount));
  };
}

const MOVES: Record<string, [number, number, number]> = {
  KeyW: [0, 0, 1],
  KeyS: [0, 0, -1],
  KeyA: [-1, 0, 0],
  KeyD: [1, 0, 0],
  KeyE: [0, 1, 0],
  KeyQ: [0, -1, 0],
};
/** Around the scene in orbit; in fly and walk, moves. */
const ARROWS: Record<string, [number, number]> = {
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
};
/** Nearer and farther, for keyboards alone. */
const ZOOMS: Record<string, number> = {
  Equal: -1,
  NumpadAdd: -1,
  PageUp: -1,
  Minus: 1,
  NumpadSubtract: 1,
  PageDown: 1,
};
const TURN_PER_S = 1.4;
/** Where arrows are somebody else's: text, lists, a group of choices. */
const OWN_KEYS = "input, select, textarea, dialog, [role=radiogroup], [role=menu], [role=slider]";

/** Keys held down, and a gamepad, as movement every frame. */
export class HeldInput {
  private readonly held = new Set<string>();
  /** Pressed since the last frame, also where already let go. */
  private readonly pressed = new Set<string>();
  /** -1 to 1 sideways and forward, from an on-screen stick. */
  stick: { x: number; y: number } = { x: 0, y: 0 };

  constructor(private readonly rig: Rig) {
    window.addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLElement && event.target.closest(OWN_KEYS);
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const { code } = event;
      if (!MOVES[code] && !ARROWS[code] && !ZOOMS[code]) return;
      this.held.add(code);
      this.pressed.add(code);
    });
    window.addEventListener("keyup", (event) => this.held.delete(event.code));
    window.addEventListener("blur", () => this.held.clear());
    window.addEventListener("keydown", (event) => this.setRunning(event));
    window.addEventListener("keyup", (event) => this.setRunning(event));
  }

  private running = 1;

  private setRunning(event: KeyboardEvent): void {
    this.running = event.shiftKey ? 4 : 1;
  }

  /** Moves the rig; whether anything was held. */
  update(dt: number): boolean {
    let [x, y, z] = [this.stick.x, 0, -this.stick.y];
    const orbits = this.rig.mode === "orbit";
    let turned = false;
    const codes = new Set([...this.held, ...this.pressed]);
    this.pressed.clear();
    for (const code of codes) {
      const move = MOVES[code] ?? [0, 0, 0];
      const [right, up] = ARROWS[code] ?? [0, 0];
      x += move[0] + (orbits ? 0 : right);
      y += move[1];
      z += move[2] + (orbits ? 0 : up);
      if (orbits && (right || up)) {
        this.rig.turn(-right * dt * TURN_PER_S, up * dt * TURN_PER_S);
        turned = true;
      }
      if (ZOOMS[code]) {
        this.rig.zoom(Math.exp(ZOOMS[code] * dt * 1.5));
        turned = true;
      }
    }
    const keys = x !== 0 || y !== 0 || z !== 0;
    const pad = gamepad();
    if (pad) {
      x += pad.move[0];
      z += pad.move[1];
      y += pad.lift;
      const looking = pad.turn[0] !== 0 || pad.turn[1] !== 0;
      if (looking) this.rig.turn(pad.turn[0] * dt * 1.8, pad.turn[1] * dt * 1.8);
      turned ||= looking;
    }
    const moving = x !== 0 || y !== 0 || z !== 0;
    if (moving && orbits && !keys) this.rig.zoom(Math.exp(-z * dt));
    else if (moving) this.rig.move(x * this.running, y * this.running, z * this.running, dt);
    return moving || turned;
  }
}

const DEAD_ZONE = 0.12;

function gamepad(): { move: [number, number]; turn: [number, number]; lift: number } | null {
  const pad = navigator.getGamepads?.().find((p) => p?.connected && p.axes.length >= 4);
  if (!pad) return null;
  const axis = (i: number) => (Math.abs(pad.axes[i]!) < DEAD_ZONE ? 0 : pad.axes[i]!);
  const lift = (pad.buttons[7]?.value ?? 0) - (pad.buttons[6]?.value ?? 0);
  return {
    move: [axis(0), -axis(1)],
    turn: [axis(2), axis(3)],
    lift: Math.abs(lift) < DEAD_ZONE ? 0 : lift,
  };
}
