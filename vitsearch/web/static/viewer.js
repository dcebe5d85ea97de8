// One photo over the grid that it was opened from: the next and the previous, zoom, a part of it as a query, its facts.
"use strict";
(() => {
  const dialog = document.querySelector("[data-viewer]");
  if (!dialog?.showModal) return; // links lead to the photo's page
  const part = (name) => dialog.querySelector(`[data-${name}]`);
  const [stage, picture, video, heat, box] = ["stage", "picture", "video", "heat", "box"].map(part);
  const [facts, status, legend, form] = ["facts", "status", "legend", "form"].map(part);
  const buttons = Object.fromEntries([...dialog.querySelectorAll("[data-act]")].map((each) => [each.dataset.act, each]));
  const SLIDE = 4000; // milliseconds for which a slide show shows a photo
  const SIDE = 1280; // the longest side of the picture that is shown first
  const MAX_ZOOM = 8; // pixels of the screen for one of the photo
  const title = document.title;
  const tiles = () => [...document.querySelectorAll(".tile .photo-link")];
  const pathOf = (link) => new URL(link.href).pathname;
  const idOf = (link) => pathOf(link).split("/").pop();
  const baseOf = (link) => pathOf(link).split("/photos/")[0]; // of the photo's collection, "" where there is only one

  let link = null; // of the photo that is shown
  let photo = { id: "", base: "", wide: 1, high: 1 };
  let scale = 1, x = 0, y = 0, isFitted = true; // pixels of the screen for one of the photo, and where its middle lies
  let rectangle = null; // left, top, width and height of a chosen part, in pixels of the stage
  let slides = 0;
  let details = true;
  const pointers = new Map();
  let gesture = null;

  const small = ({ id, base }) => `${base}/api/photos/${id}/thumbnail?size=${SIDE}`;
  const whole = ({ id, base }) => `${base}/api/photos/${id}/image`;
  const fit = () => Math.min(1, stage.clientWidth / photo.wide, stage.clientHeight / photo.high);

  // -- the picture ----------------------------------------------------------------------------------------------------

  function place() {
    if (isFitted) { scale = fit(); x = 0; y = 0; }
    const [wide, high] = [photo.wide * scale, photo.high * scale];
    const roomX = Math.max(0, (wide - stage.clientWidth) / 2), roomY = Math.max(0, (high - stage.clientHeight) / 2);
    x = Math.min(roomX, Math.max(-roomX, x));
    y = Math.min(roomY, Math.max(-roomY, y));
    for (const each of [picture, heat]) {
      each.style.width = `${wide}px`;
      each.style.height = `${high}px`;
      each.style.transform = `translate(${x - wide / 2}px, ${y - high / 2}px)`;
    }
    stage.classList.toggle("zoomed", roomX + roomY > 0);
    const links = tiles();
    const where = link ? `${(links.indexOf(link) + 1).toLocaleString("en")} of ${links.length.toLocaleString("en")}` : "";
    status.textContent = [where, video.hidden ? `${Math.round(100 * scale)} %` : ""].filter(Boolean).join(" · ");
    if (Math.max(wide, high) * (window.devicePixelRatio || 1) > SIDE) sharpen();
  }

  // the photo itself takes the place of the small picture where that has too few pixels
  function sharpen() {
    if (picture.dataset.whole || Math.max(photo.wide, photo.high) <= SIDE || picture.hidden) return;
    const shown = photo;
    picture.dataset.whole = "1";
    const image = new Image();
    image.src = whole(shown);
    image.decode().then(() => { if (photo === shown) picture.src = image.src; }, () => {});
  }

  function zoom(factor, event) {
    if (picture.hidden) return;
    const before = scale;
    scale = Math.min(MAX_ZOOM, Math.max(fit(), scale * factor));
    isFitted = scale <= fit();
    const edge = stage.getBoundingClientRect();
    const [px, py] = event ? [event.clientX - edge.left - edge.width / 2, event.clientY - edge.top - edge.height / 2] : [0, 0];
    x = px - ((px - x) * scale) / before;
    y = py - ((py - y) * scale) / before;
    place();
  }

  const zoomTo = (target, event) => zoom(target / scale, event);

  async function show(next) {
    leavePart();
    link = next;
    photo = { id: idOf(link), base: baseOf(link), wide: Number(link.dataset.wide), high: Number(link.dataset.high) };
    isFitted = true;
    const thumbnail = link.querySelector("img");
    const plays = link.dataset.plays;
    picture.hidden = Boolean(plays);
    video.hidden = !plays;
    heat.hidden = legend.hidden = true;
    buttons.why.setAttribute("aria-pressed", "false");
    delete picture.dataset.whole;
    picture.alt = thumbnail.alt;
    picture.src = thumbnail.currentSrc || thumbnail.src;
    if (plays) { video.src = plays; video.poster = small(photo); video.play().catch(() => {}); } else { video.pause(); video.removeAttribute("src"); video.load(); }
    const shown = photo;
    const image = new Image();
    image.src = small(shown);
    image.decode().then(() => { if (photo === shown && !picture.dataset.whole) picture.src = image.src; }, () => {});
    const links = tiles(), index = links.indexOf(link);
    buttons.previous.disabled = index <= 0;
    buttons.next.disabled = index + 1 >= links.length && !document.querySelector("[data-next-page]");
    for (const near of [links[index + 1], links[index - 1]]) if (near) new Image().src = small({ id: idOf(near), base: baseOf(near) });
    if (index + 3 > links.length) window.vitsearch.more?.();
    place();
    await about();
  }

  async function about() {
    const address = new URL(link.href), shown = photo;
    facts.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(`${address.pathname}/about${address.search}`, { headers: { Accept: "text/html" } });
      const text = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (photo !== shown || !answer.ok) return;
      facts.replaceChildren(...document.adoptNode(text.body).childNodes);
    } catch { if (photo === shown) facts.textContent = "The facts could not be loaded."; } finally { facts.removeAttribute("aria-busy"); }
    const name = facts.querySelector("h1")?.textContent;
    if (name && dialog.open) document.title = `${name} · vitsearch`;
    buttons.why.hidden = !facts.querySelector("[data-why]");
  }

  // -- opening, stepping and closing ----------------------------------------------------------------------------------

  function open(next) {
    if (!dialog.open) dialog.showModal();
    document.documentElement.classList.add("viewing");
    facts.hidden = !details || innerWidth < 700;
    buttons.facts.setAttribute("aria-pressed", String(!facts.hidden));
    stage.focus();
    show(next);
  }

  function step(by) {
    const links = tiles();
    const next = links[links.indexOf(link) + by];
    if (!next) { stop(); return; }
    history.replaceState({ viewer: true }, "", next.href);
    show(next);
  }

  function hide() {
    stop();
    leavePart();
    video.pause();
    if (document.fullscreenElement) document.exitFullscreen();
    dialog.close();
    document.documentElement.classList.remove("viewing");
    document.title = title;
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: "nearest" });
  }

  const close = () => history.back(); // the address of the grid comes back, and with it `popstate`

  document.addEventListener("click", (event) => {
    const next = event.target.closest?.(".tile .photo-link");
    if (!next || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState({ viewer: true }, "", next.href);
    open(next);
  });

  window.addEventListener("popstate", (event) => {
    const next = event.state?.viewer && tiles().find((each) => pathOf(each) === location.pathname);
    if (next) open(next);
    else if (dialog.open) hide();
  });
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); escape(); });

  function escape() {
    if (rectangle) leavePart();
    else if (slides) stop();
    else close();
  }

  // -- slides, full screen, what the model looks at -------------------------------------------------------------------

  function stop() {
    clearInterval(slides);
    slides = 0;
    buttons.slides.setAttribute("aria-pressed", "false");
  }

  function play() {
    if (slides) { stop(); return; }
    slides = setInterval(() => { if (video.hidden || video.ended || video.paused) step(1); }, SLIDE);
    buttons.slides.setAttribute("aria-pressed", "true");
  }

  function explain() {
    const address = facts.querySelector("[data-why]")?.dataset.why;
    if (!address || picture.hidden) return;
    const on = heat.hidden;
    buttons.why.setAttribute("aria-pressed", String(on));
    heat.hidden = legend.hidden = true;
    if (!on) { place(); return; }
    status.textContent = "Computing what the model looks at; the first time, the model is loaded for it…";
    heat.hidden = false;
    heat.onload = () => { legend.hidden = heat.hidden; place(); };
    heat.onerror = () => { heat.hidden = true; buttons.why.setAttribute("aria-pressed", "false"); status.textContent = "This model cannot say what it looks at."; };
    heat.src = address;
    if (heat.complete && heat.naturalWidth) heat.onload();
  }

  // -- a part of the photo as a query ---------------------------------------------------------------------------------

  function draw() {
    const [left, top, wide, high] = rectangle;
    Object.assign(box.style, { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` });
    box.hidden = false;
  }

  const choosing = () => buttons.part.getAttribute("aria-pressed") === "true";

  function choosePart() {
    if (picture.hidden) return;
    if (choosing()) { send(); return; }
    stop();
    buttons.part.setAttribute("aria-pressed", "true");
    stage.classList.add("choosing");
    const [wide, high] = [Math.min(stage.clientWidth, photo.wide * scale) / 2, Math.min(stage.clientHeight, photo.high * scale) / 2];
    rectangle = [(stage.clientWidth - wide) / 2, (stage.clientHeight - high) / 2, wide, high];
    draw();
    status.textContent = "Draw a rectangle, or move it by the arrows (Shift: its size); Enter finds photos like this part.";
    stage.focus();
  }

  function leavePart() {
    buttons.part.setAttribute("aria-pressed", "false");
    stage.classList.remove("choosing");
    rectangle = null;
    box.hidden = true;
  }

  function send() {
    const edges = [["left", rectangle[0], stage.clientWidth, photo.wide, x], ["top", rectangle[1], stage.clientHeight, photo.high, y]];
    const lengths = { left: rectangle[2], top: rectangle[3] };
    for (const [name, start, room, length, shift] of edges) {
      const share = (at) => Math.min(1, Math.max(0, (at - room / 2 - shift) / (length * scale) + 0.5));
      form.elements[name].value = share(start).toFixed(5);
      form.elements[name === "left" ? "right" : "bottom"].value = share(start + lengths[name]).toFixed(5);
    }
    form.action = `${photo.base}/photos/${photo.id}/part`;
    form.submit();
  }

  function nudge(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key].map((each) => each * 16);
    const at = event.shiftKey ? 2 : 0;
    rectangle[at] = Math.max(at ? 16 : 0, rectangle[at] + by[0]);
    rectangle[at + 1] = Math.max(at ? 16 : 0, rectangle[at + 1] + by[1]);
    draw();
  }

  // -- fingers and the mouse ------------------------------------------------------------------------------------------

  const local = (event) => { const edge = stage.getBoundingClientRect(); return [event.clientX - edge.left, event.clientY - edge.top]; };
  const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button || event.target === video) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    const [px, py] = local(event);
    gesture = { px, py, x, y, moved: 0, apart: pointers.size === 2 ? spread() : 0 };
  });

  stage.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId) || !gesture) return;
    pointers.set(event.pointerId, event);
    const [px, py] = local(event);
    if (pointers.size === 2) {
      const apart = spread();
      zoom(apart / gesture.apart, event);
      Object.assign(gesture, { apart, moved: Infinity });
    } else if (choosing()) {
      rectangle = [Math.min(px, gesture.px), Math.min(py, gesture.py), Math.abs(px - gesture.px), Math.abs(py - gesture.py)];
      draw();
    } else {
      gesture.moved = Math.max(gesture.moved, Math.hypot(px - gesture.px, py - gesture.py));
      if (!isFitted) { x = gesture.x + px - gesture.px; y = gesture.y + py - gesture.py; place(); }
    }
  });

  function lift(event) {
    if (!pointers.delete(event.pointerId) || !gesture) return;
    const [px, py] = local(event), across = px - gesture.px, down = py - gesture.py;
    const swiped = event.type === "pointerup" && event.pointerType !== "mouse" && isFitted && !choosing() && gesture.moved < Infinity;
    if (!pointers.size) gesture = null;
    if (!swiped) return;
    if (Math.abs(across) > 50 && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
    else if (down > 90 && down > 2 * Math.abs(across)) close();
  }
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("dblclick", (event) => { if (!choosing()) zoomTo(isFitted ? Math.max(1, 2 * fit()) : 0, event); });
  stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 500), event); }, { passive: false });
  window.addEventListener("resize", () => { if (dialog.open) place(); });

  // -- buttons and keys -----------------------------------------------------------------------------------------------

  const press = (name) => facts.querySelector(name)?.click();
  const ACTS = {
    close,
    previous: () => step(-1),
    next: () => step(1),
    in: () => zoom(1.5),
    out: () => zoom(1 / 1.5),
    part: choosePart,
    why: explain,
    slides: play,
    full: () => (document.fullscreenElement ? document.exitFullscreen() : dialog.requestFullscreen().catch(() => {})),
    facts: () => {
      details = facts.hidden;
      facts.hidden = !details;
      buttons.facts.setAttribute("aria-pressed", String(details));
      place();
    },
  };
  const KEYS = {
    ArrowRight: ACTS.next, ArrowLeft: ACTS.previous, j: ACTS.next, k: ACTS.previous, "+": ACTS.in, "=": ACTS.in, "-": ACTS.out,
    0: () => zoomTo(0), 1: () => zoomTo(1), f: ACTS.full, s: ACTS.slides, i: ACTS.facts, p: ACTS.part, a: ACTS.why,
    h: () => press("[data-favourite]"), m: () => press("[data-more]"), n: () => press("[data-less]"), x: () => link.closest(".tile").querySelector(".tick input")?.click(),
  };

  // what is written to the collection leaves the photo where it is
  facts.addEventListener("submit", async (event) => {
    if (!event.target.matches("[data-quiet]")) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(event.target, event.submitter));
    const answer = await fetch(event.target.action, { method: "POST", body: fields, redirect: "manual" });
    if (answer.type !== "opaqueredirect") { status.textContent = "It could not be saved: try again in a moment."; return; }
    await about();
    facts.querySelector("[data-favourite]")?.focus();
  });

  dialog.addEventListener("click", (event) => { const button = event.target.closest("[data-act]"); if (button) ACTS[button.dataset.act](); });
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the keys of the grid behind it rest
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === video || event.target.matches("input")) return;
    if (choosing() && event.key.startsWith("Arrow")) nudge(event);
    else if (choosing() && event.key === "Enter" && event.target === stage) send();
    else if (!(event.key in KEYS)) return;
    else KEYS[event.key]();
    event.preventDefault();
  });
})();
