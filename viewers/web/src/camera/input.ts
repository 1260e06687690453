import type { Rig } from "./rig";

export interface InputHandlers {
  /** A tap or click that was no drag; pixels from the canvas' corner. */
  click(x: number, y: number): void;
  doubleClick(x: number, y: number): void;
  /** Anything that takes the camera over from an animation. */
  steer(): void;
}

const TURN_PER_PIXEL = 0.005;
const CLICK_PIXELS = 5;
const CLICK_MS = 400;
const DOUBLE_MS = 350;

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

  constructor(
    private readonly element: HTMLElement,
    private readonly rig: Rig,
    private readonly handlers: InputHandlers,
  ) {
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
      if (Math.hypot(touch.x - this.down.x, touch.y - this.down.y) < CLICK_PIXELS) return;
      this.down.moved = true;
    }
    this.handlers.steer();
    const panning = this.down.button !== 0 || event.shiftKey || event.ctrlKey || event.metaKey;
    if (panning) this.rig.pan(dx / this.element.clientHeight, dy / this.element.clientHeight);
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
      const height = this.element.clientHeight;
      this.rig.zoom(this.pinch.distance / Math.max(1, now.distance));
      this.rig.pan((now.x - this.pinch.x) / height, (now.y - this.pinch.y) / height);
    }
    this.pinch = now;
  }

  private readonly onUp = (event: PointerEvent): void => {
    this.touches.delete(event.pointerId);
    this.pinch = null;
    const down = this.down;
    this.down = null;
    if (!down || down.moved || down.button !== 0 || event.type === "pointercancel") return;
    if (event.timeStamp - down.time > CLICK_MS) return;
    const { offsetX: x, offsetY: y, timeStamp: time } = event;
    const last = this.lastClick;
    const again = time - last.time < DOUBLE_MS && Math.hypot(x - last.x, y - last.y) < 20;
    this.lastClick = again ? { x: 0, y: 0, time: -1e9 } : { x, y, time };
    if (again) this.handlers.doubleClick(x, y);
    else this.handlers.click(x, y);
  };

  /** Wheels and pinches on a trackpad (which come with ctrlKey) zoom. */
  private readonly onWheel = (event: WheelEvent): void => {
    event.preventDefault();
    this.handlers.steer();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const amount = event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015);
    if (event.shiftKey) this.rig.turn(-event.deltaY * lines * 0.002, 0);
    else this.rig.zoom(Math.exp(amount));
    if (event.deltaX && !event.ctrlKey) this.rig.turn(-event.deltaX * lines * 0.002, 0);
  };
}

const MOVES: Record<string, [number, number, number]> = {
  KeyW: [0, 0, 1],
  ArrowUp: [0, 0, 1],
  KeyS: [0, 0, -1],
  ArrowDown: [0, 0, -1],
  KeyA: [-1, 0, 0],
  ArrowLeft: [-1, 0, 0],
  KeyD: [1, 0, 0],
  ArrowRight: [1, 0, 0],
  KeyE: [0, 1, 0],
  KeyQ: [0, -1, 0],
};

/** Keys held down, and a gamepad, as movement every frame. */
export class HeldInput {
  private readonly held = new Set<string>();
  /** -1 to 1 sideways and forward, from an on-screen stick. */
  stick: { x: number; y: number } = { x: 0, y: 0 };

  constructor(private readonly rig: Rig) {
    window.addEventListener("keydown", (event) => {
      const typing =
        event.target instanceof HTMLElement && event.target.closest("input, select, textarea");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (MOVES[event.code]) this.held.add(event.code);
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
    for (const code of this.held) {
      const move = MOVES[code]!;
      x += move[0];
      y += move[1];
      z += move[2];
    }
    const pad = gamepad();
    let turned = false;
    if (pad) {
      x += pad.move[0];
      z += pad.move[1];
      y += pad.lift;
      turned = pad.turn[0] !== 0 || pad.turn[1] !== 0;
      if (turned) this.rig.turn(pad.turn[0] * dt * 1.8, pad.turn[1] * dt * 1.8);
    }
    const moving = x !== 0 || y !== 0 || z !== 0;
    if (moving && this.rig.mode === "orbit" && this.held.size === 0)
      this.rig.zoom(Math.exp(-z * dt));
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
