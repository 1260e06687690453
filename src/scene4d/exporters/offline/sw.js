// Keeps the player and its scene for use without a network. Written by scene4d.
const VERSION = "@VERSION@";
// Path -> SHA-256, or null where a host may change the file on its way (it adds to pages).
const FILES = JSON.parse('@FILES@');
const SCOPE = self.registration.scope;
const PREFIX = `scene4d ${SCOPE} `;
const CACHE = PREFIX + VERSION;
const HASH = "X-Scene4d-Sha256";

const address = (path) => new URL(path, SCOPE).href;

self.addEventListener("install", (event) => event.waitUntil(fill()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
self.addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(answer(event.request, path));
});

/** All files, or none: a version that is not complete never takes over. */
async function fill() {
  const cache = await caches.open(CACHE);
  const earlier = await ownCaches();
  for (const [path, hash] of Object.entries(FILES)) {
    if (await cache.match(address(path))) continue; // from an attempt that was cut short
    const kept = hash && (await keptBefore(earlier, path, hash));
    await cache.put(address(path), kept || (await fetched(path, hash)));
  }
}

async function keptBefore(names, path, hash) {
  for (const name of names) {
    const response = await (await caches.open(name)).match(address(path));
    if (response && response.headers.get(HASH) === hash) return response;
  }
  return null;
}

async function fetched(path, hash) {
  const response = await fetch(address(path), { cache: "no-cache" });
  if (!response.ok) throw new Error(`${path}: the server answers ${response.status}`);
  const bytes = await response.arrayBuffer();
  if (hash !== null && (await sha256(bytes)) !== hash) {
    throw new Error(`${path} is not of this version: its SHA-256 is another`);
  }
  const headers = { "Content-Length": String(bytes.byteLength), "Accept-Ranges": "bytes" };
  const type = response.headers.get("Content-Type");
  if (type) headers["Content-Type"] = type;
  if (hash !== null) headers[HASH] = hash;
  return new Response(bytes, { headers });
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** This folder's caches of other versions; other scenes of the same host have caches, too. */
async function ownCaches() {
  return (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
}

async function forgetOthers() {
  for (const name of await ownCaches()) await caches.delete(name);
}

/** Which file a request is for; null: none of ours. */
function pathOf(request) {
  if (request.method !== "GET") return null;
  const plain = request.url.split(/[?#]/)[0];
  if (!plain.startsWith(SCOPE)) return null;
  const path = plain.slice(SCOPE.length) || "index.html";
  return Object.hasOwn(FILES, path) ? path : null;
}

async function answer(request, path) {
  const kept = await (await caches.open(CACHE)).match(address(path));
  if (!kept) return fetch(request);
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("Range") ?? "");
  if (!range) return kept;
  const whole = await kept.blob();
  const first = Number(range[1]);
  const last = Math.min(range[2] ? Number(range[2]) : Infinity, whole.size - 1);
  if (first > last) {
    const headers = { "Content-Range": `bytes */${whole.size}` };
    return new Response(null, { status: 416, headers });
  }
  const headers = {
    "Content-Range": `bytes ${first}-${last}/${whole.size}`,
    "Content-Length": String(last - first + 1),
    "Content-Type": kept.headers.get("Content-Type") ?? "application/octet-stream",
  };
  return new Response(whole.slice(first, last + 1), { status: 206, headers });
}
