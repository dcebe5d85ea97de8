// The map: dots and, as far as there is room, the photos themselves.
"use strict";
(() => {
  const box = document.querySelector("[data-atlas]");
  const canvas = box.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const status = document.querySelector("[data-told]");
  const CELL = 92; // CSS pixels between two photos, about
  const home = document.querySelector("a.name").pathname; // of this collection
  const SHARE = 0.92; // of a cell that its photo fills
  const MARGIN = 24; // CSS pixels around the whole
  const MAX_PHOTOS = 800;
  const AT_ONCE = 8;
  const CLOSEST = 4096;

  let ids = new BigUint64Array(0);
  let places = new Float32Array(0);
  let width = 0, height = 0, ratio = 1;
  let zoom = 1, x = 0.5, y = 0.5; // how many times larger than the whole, and what is in the middle
  let shown = []; // the photos that are drawn: id, left, top, side
  let waiting = false, isReady = false;
  const photos = new Map();
  const queue = [];
  let loading = 0;

  const wide = () => Math.max(1, width - 2 * MARGIN) * zoom;
  const high = () => Math.max(1, height - 2 * MARGIN) * zoom;
  const toScreen = (px, py) => [(px - x) * wide() + width / 2, (py - y) * high() + height / 2];
  const toPlace = (sx, sy) => [(sx - width / 2) / wide() + x, (sy - height / 2) / high() + y];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function size() {
    ratio = Math.min(2, window.devicePixelRatio || 1);
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    draw();
  }

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }

  // a whole number of cells, fixed to the map and twice as many at twice the zoom: photos keep their places while it moves or grows
  function cellsAcross(length) {
    const cell = Math.min(CELL, width / 4.5);
    return Math.max(1, Math.round(length / zoom / cell)) * 2 ** Math.round(Math.log2(zoom));
  }

  function chosen() {
    const across = cellsAcross(wide()), down = cellsAcross(high());
    const cells = new Map();
    const [left, top] = toPlace(-CELL, -CELL);
    const [right, bottom] = toPlace(width + CELL, height + CELL);
    let inside = 0;
    for (let i = 0; i < ids.length; i += 1) {
      const px = places[2 * i], py = places[2 * i + 1];
      if (px < left || px > right || py < top || py > bottom) continue;
      inside += 1;
      const column = Math.min(Math.floor(px * across), Math.ceil(across) - 1), line = Math.min(Math.floor(py * down), Math.ceil(down) - 1);
      const key = column * 1e6 + line;
      const away = (px * across - column - 0.5) ** 2 + (py * down - line - 0.5) ** 2;
      const cell = cells.get(key);
      if (!cell) cells.set(key, { i, away, count: 1, column, line });
      else {
        cell.count += 1;
        if (away < cell.away) { cell.i = i; cell.away = away; }
      }
    }
    return { cells: [...cells.values()], across, down, inside };
  }

  function paint() {
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colour("--card");
    pen.fillRect(0, 0, width, height);
    const { cells, across, down, inside } = chosen();
    const edge = Math.min(wide() / across, high() / down) * SHARE;
    shown = cells.map((cell) => {
      const [cx, cy] = toScreen((cell.column + 0.5) / across, (cell.line + 0.5) / down);
      return { id: ids[cell.i], count: cell.count, left: cx - edge / 2, top: cy - edge / 2, side: edge };
    });
    shown.sort((a, b) => distance(a) - distance(b));
    queue.length = 0;
    for (const spot of shown) {
      const photo = photos.get(spot.id);
      if (photo?.complete && photo.naturalWidth) show(spot, photo);
      else { dot(spot); if (!photo) queue.push(spot.id); }
    }
    ring();
    load();
    if (isReady) status.textContent = ids.length ? `${inside.toLocaleString("en")} of ${ids.length.toLocaleString("en")} photos in view` : "No photos are indexed yet.";
  }

  const distance = (spot) => (spot.left + spot.side / 2 - width / 2) ** 2 + (spot.top + spot.side / 2 - height / 2) ** 2;

  function shape(spot, round) {
    pen.beginPath();
    pen.roundRect(spot.left, spot.top, spot.side, spot.side, round);
  }

  function show(spot, photo) {
    const cut = Math.min(photo.naturalWidth, photo.naturalHeight);
    pen.save();
    shape(spot, 8);
    pen.clip();
    pen.drawImage(photo, (photo.naturalWidth - cut) / 2, (photo.naturalHeight - cut) / 2, cut, cut, spot.left, spot.top, spot.side, spot.side);
    pen.restore();
    if (spot.count > 1) count(spot);
  }

  function count(spot) {
    const text = spot.count > 999 ? `${Math.round(spot.count / 1000)}k` : String(spot.count);
    pen.font = "600 11px system-ui, sans-serif";
    const space = pen.measureText(text).width + 10;
    pen.fillStyle = "#141516";
    pen.beginPath();
    pen.roundRect(spot.left + spot.side - space - 5, spot.top + spot.side - 22, space, 17, 9);
    pen.fill();
    pen.fillStyle = "#ffffff";
    pen.fillText(text, spot.left + spot.side - space, spot.top + spot.side - 9.5);
  }

  function dot(spot) {
    pen.fillStyle = colour("--mat");
    shape(spot, 8);
    pen.fill();
  }

  function ring() {
    if (!canvas.matches(":focus-visible") || !shown.length) return;
    pen.strokeStyle = colour("--accent");
    pen.lineWidth = 4;
    shape(shown[0], 8);
    pen.stroke();
  }

  function load() {
    while (loading < AT_ONCE && queue.length) {
      const id = queue.shift();
      if (photos.has(id)) continue;
      const photo = new Image();
      photos.set(id, photo);
      loading += 1;
      photo.onload = photo.onerror = () => { loading -= 1; draw(); };
      photo.src = `${home}api/photos/${id}/thumbnail?size=160`;
    }
    for (const id of photos.keys()) {
      if (photos.size <= MAX_PHOTOS) break;
      if (photos.get(id).complete) photos.delete(id);
    }
  }

  // -- moving --------------------------------------------------------------------------------------------------------

  const within = (value) => Math.min(1.1, Math.max(-0.1, value));
  function move(dx, dy) { x = within(x - dx / wide()); y = within(y - dy / high()); draw(); }

  function zoomBy(times, sx = width / 2, sy = height / 2) {
    const [px, py] = toPlace(sx, sy);
    zoom = Math.min(CLOSEST, Math.max(0.5, zoom * times));
    x = within(px - (sx - width / 2) / wide());
    y = within(py - (sy - height / 2) / high());
    draw();
  }

  function all() { zoom = 1; x = 0.5; y = 0.5; draw(); }
  const open = (spot) => { if (spot) location.href = `${home}photos/${spot.id}`; };
  const at = (sx, sy) => shown.find((spot) => sx >= spot.left && sx <= spot.left + spot.side && sy >= spot.top && sy <= spot.top + spot.side);

  const fingers = new Map();
  let travelled = 0;
  const point = (event) => { const frame = canvas.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };
  const spread = () => { const [first, second] = [...fingers.values()]; return Math.hypot(first[0] - second[0], first[1] - second[1]); };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, point(event));
    if (fingers.size === 1) travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = point(event);
    const apart = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, now);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (fingers.size === 2) {
      const [first, second] = [...fingers.values()];
      if (apart > 0) zoomBy(spread() / apart, (first[0] + second[0]) / 2, (first[1] + second[1]) / 2);
    } else move(now[0] - before[0], now[1] - before[1]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      const alone = fingers.size === 1 && fingers.delete(event.pointerId);
      fingers.delete(event.pointerId);
      if (name === "pointerup" && alone && travelled < 6) open(at(...point(event)));
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) / 300), ...point(event));
  }, { passive: false });

  const KEYS = {
    "ArrowLeft": () => move(CELL, 0), "ArrowRight": () => move(-CELL, 0), "ArrowUp": () => move(0, CELL), "ArrowDown": () => move(0, -CELL),
    "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": all, "Enter": () => open(shown[0]),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, draw);
  const ZOOMS = { in: () => zoomBy(1.6), out: () => zoomBy(1 / 1.6), all };
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", ZOOMS[button.dataset.zoom]));
  document.addEventListener("theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(size).observe(canvas);

  fetch(box.dataset.atlas).then(async (answer) => {
    if (!answer.ok) throw new Error(String(answer.status));
    const bytes = await answer.arrayBuffer();
    const count = bytes.byteLength / 16;
    ids = new BigUint64Array(bytes, 0, count);
    places = new Float32Array(bytes, 8 * count, 2 * count);
    isReady = true;
    size();
    box.removeAttribute("aria-busy");
    canvas.dataset.ready = "true";
  }).catch(() => { box.removeAttribute("aria-busy"); status.textContent = "The map cannot be read just now: load the page again in a moment."; });
})();
