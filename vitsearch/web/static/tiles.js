// Photos in a grid, and more of them when the end comes into sight.
"use strict";
(() => {
  const form = document.getElementById("picks");

  document.addEventListener("click", (event) => {
    const words = event.target.closest?.("[data-sure]")?.dataset.sure;
    if (words && !window.confirm(words)) event.preventDefault();
  });

  // Enter after the name of an album or label does what stands beside it, which needs a name
  for (const [field, name] of [["into", "[data-into]"], ["their-label", "[data-label-them]"]]) {
    const into = document.getElementById(field), button = form?.querySelector(name);
    into?.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); button.click(); }
    });
    button?.addEventListener("click", (event) => {
      if (!into.value.trim()) { event.preventDefault(); into.focus(); }
    });
  }

  // fields that are empty make no part of an address
  document.getElementById("search")?.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });

  // -- more ----------------------------------------------------------------------------------------------------------

  const list = document.querySelector("[data-tiles]");
  const months = document.querySelector(".months");
  const shown = new Set(); // the photos of this page, each once
  for (const link of document.querySelectorAll("ul[data-tiles] .photo-link, .months .photo-link")) shown.add(link.pathname);

  async function fetched(link) {
    link.setAttribute("aria-busy", "true");
    link.textContent = "Loading more…";
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const other = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const item of other.querySelectorAll("[data-tiles] .tile")) {
      if (item.closest("[data-group]")) continue;
      const { pathname } = item.querySelector(".photo-link");
      if (shown.has(pathname)) item.remove();
      else shown.add(pathname);
    }
    return other;
  }

  // a month goes on from one page to the next
  function join(first, second) {
    if (!months || !first || first.dataset.month !== second.dataset.month) return false;
    first.querySelector(".tiles").append(...second.querySelectorAll(".tile"));
    return true;
  }

  async function more(link) {
    const next = await fetched(link);
    for (const item of next.querySelectorAll("[data-tiles] > *")) {
      if (!join(list.lastElementChild, item)) list.append(document.adoptNode(item));
    }
    const pages = next.querySelector(".pages");
    if (pages?.querySelector("[data-next-page]")) {
      document.querySelector(".pages").replaceWith(document.adoptNode(pages));
      watch();
    } else {
      document.querySelector(".pages")?.remove();
    }
    document.dispatchEvent(new Event("more"));
  }

  async function before(link) {
    const words = [...link.childNodes];
    try {
      const other = await fetched(link);
      const height = document.documentElement.scrollHeight;
      const items = [...other.querySelectorAll("[data-tiles] > *")].map((item) => document.adoptNode(item));
      const first = list.firstElementChild;
      if (join(items.at(-1), first)) first.remove();
      list.prepend(...items);
      const again = other.querySelector("[data-previous-page]");
      if (again) { link.href = again.href; link.removeAttribute("aria-busy"); link.replaceChildren(...words); } else link.parentElement.remove();
      window.scrollBy(0, document.documentElement.scrollHeight - height);
      document.dispatchEvent(new Event("more"));
    } catch { location.href = link.href; }
  }

  document.querySelector("[data-previous-page]")?.addEventListener("click", (event) => {
    event.preventDefault();
    before(event.currentTarget);
  });

  // the scrubber: a month that is on this page already is scrolled to, and the one in sight is marked
  const scrubber = document.querySelector("[data-scrubber]");

  function mark() {
    const sections = [...months.children];
    const section = sections.findLast((each) => each.getBoundingClientRect().top < innerHeight / 3) ?? sections[0];
    for (const link of scrubber.querySelectorAll("a")) {
      if (link.dataset.month !== section?.dataset.month) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        const box = link.getBoundingClientRect(), edge = scrubber.getBoundingClientRect();
        scrubber.scrollBy(box.left - edge.left - edge.width / 2, box.top - edge.top - edge.height / 2);
      }
    }
  }

  if (scrubber && months) {
    let waiting = false;
    const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; mark(); }); } };
    window.addEventListener("scroll", soon, { passive: true });
    document.addEventListener("more", soon);
    scrubber.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      const section = link && document.getElementById(`m${link.dataset.month}`);
      if (!section) return;
      event.preventDefault();
      section.scrollIntoView();
      section.querySelector(".photo-link").focus({ preventScroll: true });
    });
    mark();
  }

  function watch() {
    const link = document.querySelector("[data-next-page]");
    if (!link || !list || !("IntersectionObserver" in window)) return;
    const eye = new IntersectionObserver((seen) => {
      if (!seen.some((entry) => entry.isIntersecting)) return;
      eye.disconnect();
      const words = link.textContent;
      goOn().then((done) => { if (!done) { link.removeAttribute("aria-busy"); link.textContent = words; } }); // the link still leads there
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
    window.addEventListener("pagehide", remember); // the viewer leads to a photo's page too
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
      const href = index < 0 ? link.getAttribute("href") : all[index + step]; // else what the server says
      link.hidden = !href;
      if (href) link.href = href;
    }
  }

  steps();
  let loading = null;

  // the next page, once however many ask for it; whether it came
  function goOn() {
    const link = document.querySelector("[data-next-page]");
    if (!link || !list) return Promise.resolve(false);
    loading ??= more(link).then(() => true, () => false).finally(() => { loading = null; });
    return loading;
  }

  window.vitsearch.more = goOn;
})();
