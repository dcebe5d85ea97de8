// What is shown while the server computes: tiles without photos for a search, and what else one waits for.
"use strict";
(() => {
  const SOON = 150; // milliseconds within which most answers are there
  const SHAPES = [13, 10, 15, 7, 13, 18, 10, 15, 13, 7, 15, 10, 18, 13];
  const home = document.querySelector("a.name").pathname; // of this collection
  const status = document.querySelector(".heading > .count");
  const shown = document.querySelector(".results, .empty");
  const former = status?.textContent;
  let timer = 0, skeletons = null;

  function wait() {
    if (skeletons || !shown) return;
    skeletons = document.createElement("ul");
    skeletons.className = "tiles skeletons";
    skeletons.setAttribute("aria-hidden", "true");
    skeletons.append(...SHAPES.map((shape) => Object.assign(document.createElement("li"), { className: `tile r${shape}` })));
    shown.hidden = true;
    shown.after(skeletons);
    if (status) status.textContent = "Searching…";
  }

  // the page comes back as it was left
  function rest() {
    clearTimeout(timer);
    if (!skeletons) return;
    skeletons.remove();
    skeletons = null;
    shown.hidden = false;
    if (status) status.textContent = former;
  }

  const begin = () => { clearTimeout(timer); timer = setTimeout(wait, SOON); };
  document.getElementById("search")?.addEventListener("submit", begin);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(`main a[href^="${home}?"]`);
    if (link && !event.defaultPrevented && !event.button && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) begin();
  });
  window.addEventListener("pageshow", rest);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") rest(); }); // it stops the browser too

  for (const figure of document.querySelectorAll("[data-waiting]")) {
    const picture = figure.querySelector("img");
    if (picture.complete) continue;
    const line = Object.assign(document.createElement("p"), { className: "count", textContent: figure.dataset.waiting });
    line.setAttribute("role", "status");
    figure.setAttribute("aria-busy", "true");
    figure.prepend(line);
    const end = () => { figure.removeAttribute("aria-busy"); line.remove(); };
    picture.addEventListener("load", end);
    picture.addEventListener("error", () => { end(); figure.append("It could not be computed: load the page again in a moment."); });
  }
})();
