// How far a run of indexing is: the part of the page that says so is fetched anew each second.
"use strict";
(() => {
  const SECOND = 1000;
  const run = document.querySelector("[data-run]");
  if (!run || !["running", "stopping"].includes(run.dataset.run)) return;
  const progress = run.querySelector("[data-progress]");

  const look = async () => {
    let next = null;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-run]");
      else return;
    } catch { return; /* the server is away just now */ }
    if (next?.dataset.run !== run.dataset.run) { location.reload(); return; }
    // what has not changed stays: it would be read out again
    const now = next.querySelector("[data-progress]");
    for (const part of ["h2", "[role=status]"]) {
      const [old, fresh] = [progress.querySelector(part), now.querySelector(part)];
      if (old.textContent !== fresh.textContent) old.textContent = fresh.textContent;
    }
    const [bar, fresh] = [progress.querySelector("progress"), now.querySelector("progress")];
    if (!fresh.hasAttribute("value")) bar.removeAttribute("value");
    else { bar.max = fresh.max; bar.value = fresh.value; }
  };

  const again = async () => { await look(); setTimeout(again, SECOND); };
  setTimeout(again, SECOND);
})();
