// Labels that are right and wrong: a click is sent, and the photo shows what was said of it.
"use strict";
(() => {
  const form = document.getElementById("judge");
  if (!form) return;
  const status = form.querySelector("[data-judged]"), undo = form.querySelector("[data-undo]");

  function draw({ photo_id, label, wrong }) {
    for (const box of document.querySelectorAll(`.judge[data-photo="${photo_id}"]`)) {
      const shown = box.dataset.label, other = label === shown ? "" : label;
      const isWrong = wrong.includes(shown) || other !== "";
      box.querySelector(".yes").setAttribute("aria-pressed", String(label === shown));
      box.querySelector(".no").setAttribute("aria-pressed", String(isWrong));
      box.querySelector(".instead").hidden = !isWrong;
      const select = box.querySelector("select");
      if (other && ![...select.options].some((option) => option.value === other)) select.add(new Option(other, other));
      select.value = other;
    }
  }

  let last = Promise.resolve(); // one at a time, in the order of the clicks
  const send = (fields) => { last = last.then(() => sent(fields)); };

  // what can be trained follows the clicks, when there is a pause between them
  const PAUSE = 400; // milliseconds
  let timer = 0;
  async function refresh() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    const shown = document.getElementById("train");
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("train");
    if (!answer.ok || !shown || !next) return;
    const chosen = shown.querySelector("input:checked")?.value;
    shown.replaceWith(next);
    const same = chosen && next.querySelector(`input[value="${chosen}"]`);
    if (same) same.checked = true;
  }

  async function sent(fields) {
    fields.set("back", form.elements.back.value);
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(fields), headers: { Accept: "application/json" } });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error?.message ?? String(answer.status));
      told.photos.forEach(draw);
      status.textContent = told.summary;
      undo.hidden = !told.can_undo;
      clearTimeout(timer);
      timer = setTimeout(refresh, PAUSE);
    } catch (error) { status.textContent = error.message; }
  }

  form.addEventListener("submit", (event) => {
    if (!event.submitter) return;
    event.preventDefault();
    const fields = new FormData(form);
    fields.set("do", event.submitter.value);
    send(fields);
  });
  document.addEventListener("change", (event) => {
    if (!event.target.matches(".judge select")) return;
    const fields = new FormData(form);
    fields.set("do", event.target.name);
    send(fields);
  });
})();
