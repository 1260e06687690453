/** PlayCanvas as it comes: its own reader of PLY, its own shaders. */
import * as pc from "playcanvas";
import { cameraAt, FOV, measure } from "./path.js";

const canvas = document.querySelector("canvas");
const device = await pc.createGraphicsDevice(canvas, { deviceTypes: ["webgl2"], antialias: false });
device.maxPixelRatio = 1;
const options = new pc.AppOptions();
options.graphicsDevice = device;
options.componentSystems = [pc.CameraComponentSystem, pc.GSplatComponentSystem];
options.resourceHandlers = [pc.GSplatHandler];
const app = new pc.AppBase(canvas);
app.init(options);
app.setCanvasFillMode(pc.FILLMODE_NONE, 640, 480);
app.setCanvasResolution(pc.RESOLUTION_FIXED, 640, 480);
app.autoRender = false;
app.start();
const camera = new pc.Entity();
camera.addComponent("camera", { fov: FOV, nearClip: 0.01, clearColor: new pc.Color(0, 0, 0) });
app.root.addChild(camera);
const asset = new pc.Asset("scene", "gsplat", {
  url: new URLSearchParams(location.search).get("content"),
});
app.assets.add(asset);
const loaded = new Promise((resolve, reject) => {
  asset.ready(resolve);
  asset.on("error", reject);
});
app.assets.load(asset);
const step = (frame) => {
  camera.setPosition(...cameraAt(frame));
  camera.lookAt(0, 0, 0);
  app.renderNextFrame = true;
};
window.bench = {
  ready: loaded.then(() => {
    const entity = new pc.Entity();
    entity.addComponent("gsplat", { asset, unified: true });
    app.root.addChild(entity);
  }),
  run: (seconds) => measure(step, seconds),
};
