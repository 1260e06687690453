// Starts the service worker once the scene is there, so that keeping it does not compete with
// showing it. Plain HTTP and file:// have no service workers: the scene then needs the network.
(async () => {
  if (!("serviceWorker" in navigator)) return;
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  for (let waited = 0; !navigator.serviceWorker.controller && waited < 60000; waited += 250) {
    if (window.scene4d) {
      await Promise.race([window.scene4d.ready.catch(() => {}), pause(60000)]);
      break;
    }
    await pause(250);
  }
  try {
    await navigator.serviceWorker.register("./sw.js");
  } catch (error) {
    console.info("scene4d: not kept for use without a network:", error);
  }
})();
