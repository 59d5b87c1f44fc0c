// Addresses of runs and artifacts, links, and what is copied. MLflow shows this page in a sandbox with a blob: address.
const own = location.href.replace(/^blob:/, "");
const inMlflow = /^https?:/.test(own) && location.protocol === "blob:";
const server = document.body.dataset.server || (inMlflow ? new URL(own).origin : "");
const artifact = (run, path) => server && server + "/get-artifact?" + new URLSearchParams({path, run_uuid: run});
const copy = text => {
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = "0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");  // the clipboard's newer interface is closed to a sandbox
  area.remove();
  return done;
};
const say = (element, text) => {
  const before = element.textContent;
  element.textContent = text;
  setTimeout(() => { element.textContent = before; }, 1500);
};
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => say(button, copy(button.dataset.copy) ? "copied" : "select it by hand"));
}
for (const link of document.querySelectorAll("a.run")) {
  if (!server) { link.removeAttribute("title"); continue; }
  link.href = `${server}/#/experiments/${link.dataset.experiment}/runs/${link.dataset.run}?workflowType=machine_learning`;
  link.target = "_blank";
  link.rel = "noopener";
  if (!inMlflow) continue;
  link.title = "A click copies the address of its run: MLflow's sandbox opens no links";
  link.addEventListener("click", event => {
    event.preventDefault();
    say(link, copy(link.href) ? "address copied" : "open it by a right click");
  });
}
const shown = document.getElementById("shown");
const filter = document.getElementById("filter");
filter.addEventListener("change", () => {
  const wanted = filter.value;
  let left = 0;
  for (const each of document.querySelectorAll("[data-kinds]")) {
    const fits = !wanted || each.dataset.kinds.split(" ").includes(wanted);
    each.classList.toggle("hidden", !fits);
    if (fits && each.tagName === "TD" && each.parentElement.matches(":first-child")) left += 1;
  }
  shown.textContent = wanted ? `${left} seed${left === 1 ? "" : "s"}` : "";
});
