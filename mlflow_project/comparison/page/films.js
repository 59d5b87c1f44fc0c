// The videos play side by side, and only while they are seen.
const films = [...document.querySelectorAll("video[data-run]")];
const placeOf = film => film.dataset.file || ("file" in film.dataset ? "" : artifact(film.dataset.run, film.dataset.path));
(() => {
  if (!films.length) return;
  const notice = document.getElementById("notice");
  if (!films.some(placeOf)) {
    notice.textContent = "The videos play where this page lies beside them: in MLflow (run, Artifacts, comparison.html), "
      + "or in the folder that compare --export makes.";
    return;
  }
  const button = document.getElementById("play");
  const speed = document.getElementById("speed");
  const visible = new Set();
  const snapshot = location.hash === "#snapshot";  // for a picture: the still images stay
  let playing = !snapshot && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const update = () => {
    button.textContent = playing ? "Pause" : "Play";
    for (const video of films) {
      if (playing && visible.has(video)) video.play().catch(() => {});
      else video.pause();
    }
  };
  const load = video => {
    if (snapshot || video.src || !placeOf(video)) return;
    video.src = placeOf(video);
    video.playbackRate = video.defaultPlaybackRate = Number(speed.value);
  };
  for (const video of films) video.addEventListener("error", () => {
    const message = document.createElement("div");
    message.className = "error";
    message.textContent = "this video could not be loaded";
    video.after(message);
  }, {once: true});
  const observer = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (entry.isIntersecting) { visible.add(entry.target); load(entry.target); }
      else visible.delete(entry.target);
    }
    update();
  }, {rootMargin: "120px"});
  films.forEach(video => observer.observe(video));
  button.addEventListener("click", () => { playing = !playing; update(); });
  document.getElementById("restart").addEventListener("click", () => {
    for (const video of films) if (video.src) video.currentTime = 0;
    playing = true;
    update();
  });
  speed.addEventListener("change", () => {
    for (const video of films) video.playbackRate = video.defaultPlaybackRate = Number(speed.value);
  });
})();
