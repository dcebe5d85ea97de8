// The keyboard; the page /help lists it.
"use strict";
(() => {
  const links = () => [...document.querySelectorAll(".tile .photo-link")];
  const current = () => document.activeElement?.closest?.(".tile");
  const typing = (node) => node.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const follow = (name) => { const link = document.querySelector(name); if (link && !link.hidden && link.href) link.click(); };

  function focus(link) {
    if (!link) return;
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const all = links();
    const index = all.indexOf(current()?.querySelector(".photo-link"));
    focus(all[index < 0 ? 0 : Math.min(all.length - 1, Math.max(0, index + by))]);
  }

  // up and down: the photo of the next row that lies nearest
  function row(by) {
    const all = links();
    const from = current();
    if (!from) return step(0);
    const start = from.getBoundingClientRect();
    const middle = (box) => box.left + box.width / 2;
    const boxes = all.map((link) => ({ link, box: link.parentElement.getBoundingClientRect() }));
    const beyond = boxes.filter(({ box }) => (box.top - start.top) * by > 1);
    if (!beyond.length) return undefined;
    const top = by > 0 ? Math.min(...beyond.map(({ box }) => box.top)) : Math.max(...beyond.map(({ box }) => box.top));
    const line = beyond.filter(({ box }) => Math.abs(box.top - top) < 2);
    line.sort((a, b) => Math.abs(middle(a.box) - middle(start)) - Math.abs(middle(b.box) - middle(start)));
    return focus(line[0].link);
  }

  const switcher = document.querySelector(".switch"); // between collections
  document.addEventListener("click", (event) => { if (switcher && !switcher.contains(event.target)) switcher.open = false; });

  function escape(event) {
    if (switcher?.open) { switcher.open = false; switcher.firstElementChild.focus(); } else if (typing(event.target)) event.target.blur();
    else if (window.vitsearch?.ticked().length) window.vitsearch.clear();
    else if (document.querySelector("body.photo")) follow("[data-back]");
    else document.activeElement?.blur?.();
  }

  const photo = () => document.querySelector("body.photo") && !current();
  const KEYS = {
    "j": () => (photo() ? follow("[data-next]") : step(1)),
    "k": () => (photo() ? follow("[data-previous]") : step(-1)),
    "ArrowRight": () => (photo() ? follow("[data-next]") : current() && step(1)),
    "ArrowLeft": () => (photo() ? follow("[data-previous]") : current() && step(-1)),
    "ArrowDown": () => current() && row(1),
    "ArrowUp": () => current() && row(-1),
    "x": () => current()?.querySelector(".tick input")?.click(),
    "X": () => { const box = current()?.querySelector(".tick input"); if (box) window.vitsearch.ranged(box); },
    "m": () => (photo() ? follow("[data-more]") : current()?.querySelector(".acts a:first-child")?.click()),
    "n": () => (photo() ? follow("[data-less]") : current()?.querySelector(".acts a:last-child")?.click()),
    "r": () => current()?.querySelector(".judge .yes")?.click(),
    "w": () => current()?.querySelector(".judge .no")?.click(),
    "u": () => { const button = document.querySelector("[data-undo]"); if (button && !button.hidden) button.click(); },
    "/": () => { const field = document.getElementById("q"); if (field) { field.focus(); field.select(); } else location.href = `${document.querySelector("a.name").pathname}#q`; },
    "?": () => follow("[data-help]"),
  };
  const SCROLLING = ["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"];

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") { escape(event); return; }
    if (typing(event.target) || event.target.closest?.(".atlas") || !(event.key in KEYS)) return;
    if (SCROLLING.includes(event.key) && !current() && !photo()) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  if (location.hash === "#q") document.getElementById("q")?.focus();
})();
