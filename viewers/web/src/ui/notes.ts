import { type PinholeCamera, project } from "../camera/projection";
import { add, normalize, scale, sub } from "../camera/vec";
import type { Annotation } from "../decode/protocol";
import type { Player } from "../player";
import { h, iconButton } from "./dom";
import { strings } from "./strings";

/** Numbered notes in the scene, and a card that goes through them. */
export class Notes {
  readonly element = h("div", { role: "group", "aria-label": strings.annotations });
  /** The text of a note; stands above the toolbar. */
  readonly card = h("div", {
    id: "note-card",
    class: "panel",
    role: "status",
    hidden: true,
  });
  private readonly marks: HTMLButtonElement[];
  private current = -1;

  constructor(
    private readonly player: Player,
    private readonly notes: readonly Annotation[],
  ) {
    this.marks = notes.map((note, i) =>
      h(
        "button",
        {
          type: "button",
          class: "note",
          "aria-label": note.title,
          title: note.title,
          onclick: () => this.go(i),
        },
        String(i + 1),
      ),
    );
    this.element.append(...this.marks);
  }

  /** Places the marks for a camera in CSS pixels. */
  draw(camera: PinholeCamera): void {
    for (const [i, note] of this.notes.entries()) {
      const p = project(camera, note.position);
      const mark = this.marks[i]!;
      const visible = p && p.x > 0 && p.y > 0 && p.x < camera.width && p.y < camera.height;
      mark.hidden = !visible;
      if (visible) mark.style.transform = `translate(${p.x}px, ${p.y}px)`;
    }
  }

  /** Flies to a note and shows its text; numbers wrap around. */
  go(index: number): void {
    const n = this.notes.length;
    if (n === 0) return;
    this.current = ((index % n) + n) % n;
    const note = this.notes[this.current]!;
    this.player.viewpoint.goTo(note.view ?? this.viewOf(note));
    this.card.hidden = false;
    this.card.replaceChildren(
      iconButton("previous", strings.previous, () => this.go(this.current - 1)),
      h(
        "div",
        { class: "body" },
        h("strong", {}, `${this.current + 1}. ${note.title}`),
        note.text ? h("p", {}, note.text) : null,
      ),
      iconButton("next", strings.next, () => this.go(this.current + 1)),
      iconButton("close", strings.close, () => this.close()),
    );
  }

  next(step: number): void {
    this.go(this.current + step);
  }

  close(): void {
    this.card.hidden = true;
    this.current = -1;
  }

  /** From the present side, at a third of the scene's radius. */
  private viewOf(note: Annotation) {
    const { position } = this.player.rig.view();
    const away = normalize(sub(position, note.position));
    const distance = this.player.rig.extent.radius * 0.8;
    return { position: add(note.position, scale(away, distance)), target: note.position };
  }
}
