// Duplicates: how many photos are left over, and the proposals taken together.
"use strict";
(() => {
  const form = document.getElementById("keeping");
  if (!form) return;
  const status = form.querySelector("[data-left]"), take = document.querySelector("[data-take]");
  const groups = () => [...form.querySelectorAll(".group")];

  function show() {
    const decided = groups().filter((group) => group.querySelector("input[type=radio]:checked"));
    const left = decided.reduce((sum, group) => sum + Number(group.dataset.size) - 1, 0);
    status.textContent = decided.length ? `${left.toLocaleString("en")} ${left === 1 ? "other" : "others"} of ${decided.length} ${decided.length === 1 ? "group" : "groups"}` : "Choose what to keep";
  }

  take.hidden = false;
  take.addEventListener("click", () => {
    for (const radio of form.querySelectorAll("input[data-proposed]")) radio.checked = true;
    show();
  });
  form.addEventListener("change", show);
  form.addEventListener("reset", () => setTimeout(show));
  document.addEventListener("more", show);
  window.addEventListener("pageshow", show);
  show();
})();
