// Runs in the page: scrolls down and up again for so many milliseconds. Returns the times between frames, the lengths
// of tasks of more than 50 ms, and the height of the page. Sent by scroll.mjs.
async (ms) => {
  const [frames, long] = [[], []];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)));
  observer.observe({ type: "longtask" });
  const begun = performance.now();
  let [last, step] = [begun, 30];
  await new Promise((done) => {
    const frame = (now) => {
      frames.push(now - last);
      last = now;
      const end = document.documentElement.scrollHeight - innerHeight;
      if (scrollY >= end - 1) step = -Math.abs(step);
      if (scrollY <= 0) step = Math.abs(step);
      scrollBy(0, step);
      if (now - begun > ms) done();
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  observer.disconnect();
  return { frames, long, height: document.documentElement.scrollHeight };
};
