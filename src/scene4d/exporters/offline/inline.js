// Before the player's worker in a page that is one file: the scene is no file on a server but
// stands in self.scene4dScene as base64. Pages from a disk may neither fetch files nor blobs.
const binary = atob(self.scene4dScene);
delete self.scene4dScene;
const scene = new Uint8Array(binary.length);
for (let i = 0; i < scene.length; i++) scene[i] = binary.charCodeAt(i);
const fetchOther = self.fetch.bind(self);
self.fetch = async (address, init) => {
  if (!String(address).endsWith("/@SCENE@")) return fetchOther(address, init);
  return new Response(scene, { headers: { "Content-Length": String(scene.length) } });
};
