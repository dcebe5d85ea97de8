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

  async function sent(fields) {
    fields.set("back", form.elements.back.value);
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(fields), headers: { Accept: "application/json" } });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error?.message ?? String(answer.status));
      told.photos.forEach(draw);
      status.textContent = told.summary;
      undo.hidden = !told.can_undo;
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
