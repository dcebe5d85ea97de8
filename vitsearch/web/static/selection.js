// Which photos are ticked: one by one, by ranges, months and long presses; it outlives the search that they were ticked in.
"use strict";
(() => {
  const form = document.getElementById("picks");
  const bar = document.querySelector("[data-selecting]");
  const boxes = () => (form ? [...form.querySelectorAll(".tick input")] : []);
  const ticked = () => boxes().filter((box) => box.checked);
  const away = () => (form ? [...form.querySelectorAll("input[data-away]")] : []); // ticked elsewhere, not shown here
  const STORED = `ticked ${document.querySelector("a.name").pathname}`; // of this collection
  let last = null; // the box that a range begins at

  function show() {
    if (!bar) return;
    const all = boxes(), on = all.filter((box) => box.checked), here = new Set(all.map((box) => box.value));
    away().filter((field) => here.has(field.value)).forEach((field) => field.remove());
    const others = away(), elsewhere = others.length, count = on.length + elsewhere;
    bar.classList.toggle("on", count > 0);
    bar.querySelector("[data-chosen]").textContent = `${count.toLocaleString("en")} ticked${elsewhere ? `, ${elsewhere.toLocaleString("en")} not shown` : ""}`;
    bar.querySelector("[data-clear]").hidden = false;
    store([...on, ...others].map((box) => box.value));
    for (const button of document.querySelectorAll("[data-month-all]")) {
      const these = on.length ? [...button.closest(".month").querySelectorAll(".tick input")] : [];
      button.setAttribute("aria-pressed", String(these.length > 0 && these.every((box) => box.checked)));
    }
  }

  function store(ids) {
    try { sessionStorage.setItem(STORED, JSON.stringify(ids)); } catch { /* it is forgotten with the page */ }
  }

  function restore() {
    let ids = [];
    try { ids = JSON.parse(sessionStorage.getItem(STORED) ?? "[]"); } catch { /* nothing was ticked */ }
    if (!ids.length) return;
    const here = new Map(boxes().map((box) => [box.value, box]));
    const known = new Set(away().map((field) => field.value));
    for (const id of ids) {
      const box = here.get(id);
      if (box) box.checked = true;
      else if (!known.has(id)) {
        const field = Object.assign(document.createElement("input"), { type: "hidden", name: "id", value: id });
        field.dataset.away = "";
        form.append(field);
      }
    }
  }

  function clear() {
    boxes().forEach((box) => { box.checked = false; });
    away().forEach((field) => field.remove());
    last = null;
    form?.classList.remove("choosing");
    show();
  }

  // from the box that was ticked last to this one, all as this one is
  function range(box) {
    const all = boxes(), from = all.indexOf(last), to = all.indexOf(box);
    if (from >= 0) for (const each of all.slice(Math.min(from, to), Math.max(from, to) + 1)) each.checked = box.checked;
  }

  function toggle(box, isRange) {
    box.checked = !box.checked;
    if (isRange) range(box);
    last = box;
    show();
  }

  // -- months: all of one, also those of pages that are not loaded yet ------------------------------------------------

  const MOST = 5000; // photos that are loaded to be ticked together

  async function load(button, isWanted) {
    button.setAttribute("aria-busy", "true");
    while (isWanted() && await window.vitsearch.more());
    button.removeAttribute("aria-busy");
  }

  async function tickMonth(button) {
    const month = button.closest(".month");
    const isOn = button.getAttribute("aria-pressed") !== "true";
    await load(button, () => isOn && month === document.querySelector(".months").lastElementChild);
    month.querySelectorAll(".tick input").forEach((box) => { box.checked = isOn; });
    show();
  }

  async function tickAll(button) {
    await load(button, () => boxes().length < MOST);
    boxes().forEach((box) => { box.checked = true; });
    show();
  }

  function offerMonths() {
    for (const heading of document.querySelectorAll(".month > h2:not(:has([data-month-all]))")) {
      const name = heading.firstChild.textContent.trim();
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Select" });
      button.dataset.monthAll = "";
      button.setAttribute("aria-label", `Select all of ${name}`);
      heading.append(button);
    }
  }

  // -- touch: a long press ticks, and then taps do too -----------------------------------------------------------------

  const LONG = 450; // milliseconds
  let timer = 0, pressed = null;

  function press(event) {
    const tile = event.pointerType === "touch" && event.target.closest(".tile");
    if (!tile || event.target.closest(".tick, .acts")) return;
    const box = tile.querySelector(".tick input");
    timer = setTimeout(() => { pressed = tile; form.classList.add("choosing"); toggle(box, false); navigator.vibrate?.(10); }, LONG);
  }

  function tap(event) {
    const link = event.target.closest?.("#picks .photo-link");
    if (!link) return;
    const tile = link.closest(".tile"), box = tile.querySelector(".tick input");
    const wasPressed = pressed === tile;
    pressed = null;
    if (wasPressed) { event.preventDefault(); event.stopPropagation(); }
    else if (form.classList.contains("choosing") && event.pointerType === "touch") {
      event.preventDefault();
      event.stopPropagation();
      toggle(box, false);
      if (!ticked().length) form.classList.remove("choosing");
    }
  }

  if (form) {
    form.addEventListener("click", (event) => {
      const button = event.target.closest("[data-month-all]");
      if (button) tickMonth(button);
      const box = event.target.closest(".tick input");
      if (!box) return;
      if (event.shiftKey) range(box);
      last = box;
      show();
    });
    form.addEventListener("mousedown", (event) => { if (event.shiftKey && event.target.closest(".tick")) event.preventDefault(); }); // no text is marked
    form.addEventListener("pointerdown", press);
    for (const name of ["pointerup", "pointercancel", "pointermove"]) {
      form.addEventListener(name, (event) => { if (name !== "pointermove" || Math.hypot(event.movementX, event.movementY) > 6) clearTimeout(timer); });
    }
    form.addEventListener("contextmenu", (event) => { if (pressed && event.target.closest(".tile")) event.preventDefault(); });
    document.addEventListener("click", tap, true); // before the viewer opens
    // what is done with the photos ends their selection, but for files that are fetched
    form.addEventListener("submit", (event) => { if (event.submitter?.hasAttribute("formaction")) store([]); });
    bar?.querySelector("[data-clear]").addEventListener("click", clear);
    const all = bar?.querySelector("[data-all]");
    if (all && !document.querySelector(".months")) { all.hidden = false; all.addEventListener("click", () => tickAll(all)); }
    const anew = () => { restore(); offerMonths(); show(); };
    window.addEventListener("pageshow", anew);
    document.addEventListener("more", anew);
    anew();
  }

  const ranged = (box) => toggle(box, true);
  window.vitsearch = { clear, ticked: () => [...ticked(), ...away()], show, ranged };
})();
