// Photos in a grid: ticking them, and more of them when the end comes into sight.
"use strict";
(() => {
  const form = document.getElementById("picks");
  const bar = document.querySelector("[data-selecting]");
  const ticked = () => (form ? [...form.querySelectorAll(".tick input:checked")] : []);

  function show() {
    const count = ticked().length;
    if (!bar) return;
    bar.classList.toggle("on", count > 0);
    bar.querySelector("[data-chosen]").textContent = `${count.toLocaleString("en")} ticked`;
    bar.querySelector("[data-clear]").hidden = false;
  }

  function clear() {
    ticked().forEach((box) => { box.checked = false; });
    show();
  }

  if (form) {
    form.addEventListener("change", show);
    window.addEventListener("pageshow", show);
    bar?.querySelector("[data-clear]").addEventListener("click", clear);
    show();
  }

  // fields that are empty make no part of an address
  document.getElementById("search")?.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });

  const copies = document.querySelector("[data-tick-copies]");
  if (copies) {
    copies.hidden = false;
    copies.addEventListener("click", () => {
      document.querySelectorAll("[data-group]").forEach((group) => {
        [...group.querySelectorAll(".tick input")].forEach((box, index) => { box.checked = index > 0; });
      });
      show();
    });
  }

  // -- more ----------------------------------------------------------------------------------------------------------

  const list = document.querySelector("[data-tiles]");
  const known = () => new Set([...document.querySelectorAll("ul[data-tiles] .tick input")].map((box) => box.value));

  async function more(link) {
    link.setAttribute("aria-busy", "true");
    link.textContent = "Loading more…";
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const seen = known();
    for (const item of next.querySelectorAll("[data-tiles] > *")) {
      const id = item.matches(".tile") ? item.querySelector(".tick input").value : null;
      if (!id || !seen.has(id)) list.append(document.adoptNode(item));
    }
    const pages = next.querySelector(".pages");
    if (pages?.querySelector("[data-next-page]")) {
      document.querySelector(".pages").replaceWith(document.adoptNode(pages));
      watch();
    } else {
      document.querySelector(".pages")?.remove();
    }
    remember();
    document.dispatchEvent(new Event("more"));
  }

  function watch() {
    const link = document.querySelector("[data-next-page]");
    if (!link || !list || !("IntersectionObserver" in window)) return;
    const eye = new IntersectionObserver((seen) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      eye.disconnect();
      const words = link.textContent;
      more(link).catch(() => { link.removeAttribute("aria-busy"); link.textContent = words; }); // the link still leads there
    }, { rootMargin: "900px" });
    eye.observe(link);
  }

  // a photo's page goes on to the photos before and after it in the list that it was opened from
  function remember() {
    const all = [...document.querySelectorAll("#picks .photo-link")].map((link) => link.getAttribute("href"));
    try { if (all.length) sessionStorage.setItem("sequence", JSON.stringify(all)); } catch { /* nothing is kept */ }
  }

  if (list) {
    watch();
    document.addEventListener("click", (event) => { if (event.target.closest(".photo-link")) remember(); });
  }

  function sequence() {
    try { return JSON.parse(sessionStorage.getItem("sequence") ?? "[]"); } catch { return []; }
  }

  function steps() {
    const here = document.querySelector("body.photo");
    if (!here) return;
    const all = sequence();
    const index = all.findIndex((href) => new URL(href, location.href).pathname === location.pathname);
    for (const [name, step] of [["[data-previous]", -1], ["[data-next]", 1]]) {
      const link = document.querySelector(name);
      const href = index < 0 ? undefined : all[index + step];
      link.hidden = !href;
      if (href) link.href = href;
    }
  }

  steps();
  window.vitsearch = { clear, ticked };
})();
