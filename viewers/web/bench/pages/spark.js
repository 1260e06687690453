import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";
import { cameraAt, FOV, measure } from "./path.js";

const canvas = document.querySelector("canvas");
const renderer = new THREE.WebGLRenderer({ canvas, antialias: false });
renderer.setPixelRatio(1);
renderer.setSize(640, 480, false);
const scene = new THREE.Scene();
scene.add(new SparkRenderer({ renderer }));
const mesh = new SplatMesh({ url: new URLSearchParams(location.search).get("content") });
scene.add(mesh);
const camera = new THREE.PerspectiveCamera(FOV, 640 / 480, 0.01, 100);
const step = (frame) => {
  camera.position.set(...cameraAt(frame));
  camera.lookAt(0, 0, 0);
  renderer.render(scene, camera);
};
window.bench = {
  ready: mesh.initialized.then(() => undefined),
  run: (seconds) => measure(step, seconds),
};
