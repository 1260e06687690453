// One file: the scene stands in this page as base64, and the player opens it from memory.
(() => {
  const text = document.getElementById("scene4d-scene").textContent;
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const meta = document.querySelector('meta[name="scene4d"]');
  const settings = new URLSearchParams(meta.content);
  settings.set("content", URL.createObjectURL(new Blob([bytes])));
  meta.content = settings.toString();
  document.getElementById("scene4d-scene").remove();
})();
