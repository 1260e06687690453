/** The same camera path for everyone: once around in 240 frames, at a distance of 2.6. */
export const FOV = 50;
export function cameraAt(frame) {
  const angle = (2 * Math.PI * frame) / 240;
  return [2.6 * Math.cos(angle), 0.6, 2.6 * Math.sin(angle)];
}

/** Draws with `step(frame)` in every animation frame; frames a second over `seconds`. */
export function measure(step, seconds) {
  return new Promise((resolve) => {
    let frame = 0;
    let start = 0;
    const tick = (now) => {
      if (!start && frame === 10) start = now; // shaders and the first sort are over
      if (start && now - start > 1000 * seconds)
        return resolve((1000 * (frame - 10)) / (now - start));
      step(frame++);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
}
