// The episode browser: one film with the state, the executed actions and the predicted chunks below it, in time.
(() => {
  const get = name => document.getElementById("viewer-" + name);
  const viewer = document.getElementById("viewer");
  const video = get("video"), scrub = get("scrub");
  const keys = films.map(film => `${film.dataset.run} ${film.dataset.path}`);
  const traces = new Map();
  let current = -1, trace = null, plots = [], waiting = null;

  // A trace is a script of one call: data of the server cannot be fetched in MLflow's sandbox, nor files from disk.
  window.rlinfIsaacTrace = found => { if (waiting) waiting(found); };
  let queue = Promise.resolve();
  const load = place => queue = queue.then(() => new Promise(resolve => {
    if (traces.has(place)) return resolve(traces.get(place));
    const script = document.createElement("script");
    const end = found => { waiting = null; script.remove(); traces.set(place, found); resolve(found); };
    waiting = end;
    script.onload = () => { if (waiting === end) end(null); };
    script.onerror = () => end(null);
    script.src = place;
    document.head.append(script);
  }));

  const step = () => trace ? Math.min(trace.at.at(-1), Math.round(video.currentTime * trace.hz)) : 0;
  const ink = name => getComputedStyle(viewer).getPropertyValue(name);

  const figure = (label, draw) => {
    const box = document.createElement("figure"), caption = document.createElement("figcaption");
    const name = document.createElement("span"), value = document.createElement("span");
    const canvas = document.createElement("canvas");
    name.textContent = label;
    caption.append(name, value);
    box.append(caption, canvas);
    canvas.addEventListener("pointerdown", event => seek(event.offsetX / canvas.clientWidth * trace.at.at(-1)));
    plots.push({canvas, value, draw});
    return box;
  };
  const bounds = values => {
    const finite = values.filter(Number.isFinite);
    const low = Math.min(...finite), high = Math.max(...finite), pad = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - pad, high + pad];
  };
  const line = (context, points, stepwise) => {
    context.beginPath();
    points.forEach(([x, y], index) => {
      if (!index) context.moveTo(x, y);
      else { if (stepwise) context.lineTo(x, points[index - 1][1]); context.lineTo(x, y); }
    });
    context.stroke();
  };
  const paint = () => {
    const now = step();
    scrub.value = now;
    get("step").textContent = trace ? `step ${now} of ${trace.at.at(-1)}, ${(now / trace.hz).toFixed(2)} s` : "";
    if (!trace) return;
    for (const {canvas, value, draw} of plots) {
      const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
      if (!width) continue;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const context = canvas.getContext("2d");
      context.scale(ratio, ratio);
      value.textContent = draw(context, width, height, now);
      context.strokeStyle = ink("--text");
      context.globalAlpha = 0.5;
      context.lineWidth = 1;
      const x = now / trace.at.at(-1) * width;
      line(context, [[x, 0], [x, height]]);
    }
  };
  const text = number => number === null || number === undefined ? "" : number.toPrecision(3);
  const drawAction = dim => {
    const [low, high] = bounds([...trace.executed, ...trace.predicted.flat()].map(action => action[dim]));
    return (context, width, height, now) => {
      const at = (t, number) => [t / trace.at.at(-1) * width, height - (number - low) / (high - low) * height];
      const call = Math.max(0, trace.at.slice(0, -1).findLastIndex(begin => begin <= now));
      trace.predicted.forEach((chunk, index) => {
        if (index > call) return;
        context.globalAlpha = index === call ? 1 : 0.35;
        context.lineWidth = index === call ? 2 : 1;
        context.strokeStyle = ink(index === call ? "--series-2" : "--muted");
        line(context, chunk.map((action, k) => at(trace.at[index] + k, action[dim])));
      });
      context.globalAlpha = 1;
      context.lineWidth = 1.5;
      context.strokeStyle = ink("--text");
      line(context, trace.executed.slice(0, now + 1).map((action, k) => at(k, action[dim])), true);
      return text(trace.executed[Math.min(now, trace.executed.length - 1)]?.[dim]);
    };
  };
  const drawState = dim => {
    const [low, high] = bounds(trace.states.map(state => state[dim]));
    return (context, width, height, now) => {
      const at = (t, number) => [t / trace.at.at(-1) * width, height - (number - low) / (high - low) * height];
      context.strokeStyle = ink("--accent");
      context.lineWidth = 1.5;
      line(context, trace.states.map((state, index) => at(trace.at[index], state[dim])));
      return text(trace.states[Math.max(0, trace.at.findLastIndex(begin => begin <= now))]?.[dim]);
    };
  };
  const seek = to => {
    video.pause();
    get("play").textContent = "Play";
    video.currentTime = Math.max(0, Math.min(to, trace ? trace.at.at(-1) : to)) / (trace ? trace.hz : 20);
    paint();
  };
  const open = async index => {
    const film = films[index], place = film && placeOf(film);
    if (!place) return;
    current = index;
    trace = null;
    viewer.classList.remove("hidden");
    get("title").textContent = film.dataset.title;
    get("numbers").classList.add("hidden");
    get("step").textContent = "";
    video.src = place;
    if (film.poster) video.poster = film.poster;
    video.playbackRate = video.defaultPlaybackRate = Number(get("speed").value);
    play(true);
    viewer.scrollIntoView({block: "nearest"});
    const path = film.dataset.path.replace(/\.mp4$/, ".trace.mjs");
    const found = await load(film.dataset.file ? film.dataset.file.replace(/\.mp4$/, ".trace.mjs") : artifact(film.dataset.run, path));
    if (current !== index) return;
    if (!found) {
      get("step").textContent = "No states and actions were recorded with this film.";
      return;
    }
    trace = found;
    plots = [];
    get("actions").replaceChildren(...trace.action.map((label, dim) => figure(label, drawAction(dim))));
    get("states").replaceChildren(...trace.state.map((label, dim) => figure(label, drawState(dim))));
    get("numbers").classList.remove("hidden");
    scrub.max = trace.at.at(-1);
    paint();
  };
  const play = on => {
    get("play").textContent = on ? "Pause" : "Play";
    if (on) {
      if (video.ended) video.currentTime = 0;
      video.play().catch(() => { get("play").textContent = "Play"; });
    } else video.pause();
  };
  const tick = () => { if (!video.paused) paint(); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
  video.addEventListener("ended", () => { get("play").textContent = "Play"; paint(); });
  video.addEventListener("seeked", paint);
  addEventListener("resize", paint);
  scrub.addEventListener("input", () => seek(Number(scrub.value)));
  get("play").addEventListener("click", () => play(video.paused));
  get("speed").addEventListener("change", () => { video.playbackRate = video.defaultPlaybackRate = Number(get("speed").value); });
  get("previous").addEventListener("click", () => open((current + films.length - 1) % films.length));
  get("next").addEventListener("click", () => open((current + 1) % films.length));
  get("close").addEventListener("click", () => { video.pause(); viewer.classList.add("hidden"); current = -1; });
  for (const opener of document.querySelectorAll("[data-opens]")) {
    const go = () => open(keys.indexOf(opener.dataset.opens));
    opener.addEventListener("click", go);
    opener.addEventListener("keydown", event => { if (event.key === "Enter") go(); });
  }
})();
if (location.hash === "#snapshot") document.documentElement.dataset.height = document.documentElement.scrollHeight;
