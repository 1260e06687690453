import { h } from "./dom";

/** Files that are chosen or dropped on the page go to `take`; the field that chooses one. */
export function filePicker(take: (bytes: ArrayBuffer, name: string) => void): HTMLInputElement {
  const picker = h("input", {
    type: "file",
    accept: ".s4d,.ply,.spz,.sog,.glb,.splat",
    hidden: true,
  });
  const read = async (file: File | undefined) => {
    if (file) take(await file.arrayBuffer(), file.name);
  };
  picker.addEventListener("change", () => {
    void read(picker.files?.[0]);
    picker.value = ""; // the same file again is another choice
  });
  const over = (on: boolean) => document.body.classList.toggle("dropping", on);
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  window.addEventListener("dragleave", () => over(false));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    void read(event.dataTransfer?.files[0]);
  });
  return picker;
}
