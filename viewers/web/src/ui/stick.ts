import type { HeldInput } from "../camera/input";
import { h } from "./dom";
import { strings } from "./strings";

const REACH = 34;

/** An on-screen joystick for fly and walk on touch screens. */
export function joystick(held: HeldInput): HTMLElement {
  const knob = h("div");
  const base = h(
    "div",
    { id: "stick", role: "img", "aria-label": strings.stick, hidden: true },
    knob,
  );
  const set = (x: number, y: number) => {
    const size = Math.max(1, Math.hypot(x, y) / REACH);
    held.stick = { x: x / size / REACH, y: y / size / REACH };
    knob.style.transform = `translate(${x / size}px, ${y / size}px)`;
  };
  const follow = (event: PointerEvent) => {
    const box = base.getBoundingClientRect();
    set(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
  };
  base.addEventListener("pointerdown", (event) => {
    base.setPointerCapture(event.pointerId);
    follow(event);
  });
  base.addEventListener("pointermove", (event) => {
    if (base.hasPointerCapture(event.pointerId)) follow(event);
  });
  for (const name of ["pointerup", "pointercancel"] as const)
    base.addEventListener(name, () => set(0, 0));
  return base;
}
