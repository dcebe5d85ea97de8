// Photos on a map of the world (Mercator), which is drawn from outlines and names that the server sends in tiles.
"use strict";
(() => {
  const box = document.querySelector("[data-world]");
  if (!box) return;
  const home = document.querySelector("a.name").pathname; // of this collection
  const canvas = box.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const pins = box.querySelector("[data-pins]");
  const part = box.querySelector("[data-part]");
  const status = document.querySelector("[data-told]");
  const target = document.querySelector("[data-located]");
  const boxButton = document.querySelector("[data-box]");
  const SIDE = 256; // CSS pixels of the world at zoom 0
  const CELL = 64; // of a cluster at a zoom without a fraction
  const PIN = 52; // of a photo on the map
  const MAX_ZOOM = 17, TILE = 65535, MAX_TILES = 60;
  const LEVEL_ZOOMS = [3.6, 6.2]; // from which the finer tiles are shown
  const sides = box.dataset.levels.split(" ").map(Number);
  const query = new URLSearchParams(box.dataset.query.replace(/^\?/, ""));

  let width = 0, height = 0, ratio = 1;
  let zoom = 1, x = 0.5, y = 0.5; // and what is in the middle: from 0 to 1 from the west and from the north
  let clusters = [], clusterZoom = -1;
  let waiting = false, timer = 0, loading = null;
  let ranked = { of: "", names: [] };
  const tiles = new Map(), jobs = [];
  let busy = 0;

  const world = () => SIDE * 2 ** zoom;
  const fromLongitude = (degrees) => (degrees + 180) / 360;
  const fromLatitude = (degrees) => 0.5 - Math.asinh(Math.tan(Math.max(-85.0511, Math.min(85.0511, degrees)) * Math.PI / 180)) / (2 * Math.PI);
  const toLongitude = (px) => px * 360 - 180;
  const toLatitude = (py) => Math.atan(Math.sinh((0.5 - py) * 2 * Math.PI)) * 180 / Math.PI;
  const toScreen = (px, py) => [(px - x) * world() + width / 2, (py - y) * world() + height / 2];
  const toWorld = (sx, sy) => [(sx - width / 2) / world() + x, (sy - height / 2) / world() + y];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (count) => count.toLocaleString("en");
  const leastZoom = () => Math.log2(Math.max(width, SIDE) / SIDE);

  // -- the view --------------------------------------------------------------------------------------------------------

  function size() {
    const first = !width;
    ratio = Math.min(2, window.devicePixelRatio || 1);
    width = box.clientWidth;
    height = box.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    if (first && !remembered()) all();
    else change();
  }

  function settle() {
    zoom = Math.min(MAX_ZOOM, Math.max(leastZoom(), zoom));
    x -= Math.floor(x);
    const half = height / 2 / world();
    y = half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, y));
  }

  function change() {
    settle();
    draw();
    clearTimeout(timer);
    timer = setTimeout(() => { load(); remember(); }, 120);
  }

  function move(dx, dy) { x -= dx / world(); y -= dy / world(); change(); }

  function zoomBy(steps, sx = width / 2, sy = height / 2) {
    const [px, py] = toWorld(sx, sy);
    zoom = Math.min(MAX_ZOOM, Math.max(leastZoom(), zoom + steps));
    x = px - (sx - width / 2) / world();
    y = py - (sy - height / 2) / world();
    change();
  }

  function all() {
    let [west, south, east, north] = box.dataset.bounds.split(" ").map(Number);
    if (west > east) east += 360;
    const [left, right] = [fromLongitude(west), fromLongitude(east)], [top, bottom] = [fromLatitude(north), fromLatitude(south)];
    x = (left + right) / 2;
    y = (top + bottom) / 2;
    const room = (length, span) => Math.log2(Math.max(length - 140, 60) / SIDE / Math.max(span, 1e-9));
    zoom = Math.min(11, room(width, right - left), room(height, bottom - top));
    change();
  }

  // the address has the view, so that Back and a bookmark return to it
  function remember() {
    const at = `#${zoom.toFixed(2)}/${toLatitude(y).toFixed(5)}/${toLongitude(x).toFixed(5)}`;
    if (location.pathname === `${home}places` && location.hash !== at) history.replaceState(history.state, "", location.pathname + location.search + at);
  }

  function remembered() {
    const [level, latitude, longitude] = location.hash.slice(1).split("/").map(Number);
    if (![level, latitude, longitude].every(Number.isFinite) || location.hash.split("/").length !== 3) return false;
    [zoom, x, y] = [level, fromLongitude(longitude), fromLatitude(latitude)];
    change();
    return true;
  }

  function edges(margin = 0) {
    const [left, top] = toWorld(-margin, -margin), [right, bottom] = toWorld(width + margin, height + margin);
    const clip = (latitude) => Math.max(-90, Math.min(90, latitude));
    return [toLongitude(left), top <= 0 ? 90 : clip(toLatitude(top)), toLongitude(right), bottom >= 1 ? -90 : clip(toLatitude(bottom))];
  }

  // -- the land --------------------------------------------------------------------------------------------------------

  const levelNow = () => LEVEL_ZOOMS.filter((from) => zoom >= from).length;

  function tile(level, column, row) {
    const key = `${level}/${column}/${row}`;
    const known = tiles.get(key);
    if (known) { tiles.delete(key); tiles.set(key, known); return known; }
    const made = { key, fill: null, line: null, names: [] };
    tiles.set(key, made);
    while (tiles.size > MAX_TILES) tiles.delete([...tiles.keys()].find((each) => !each.startsWith("0")));
    jobs.unshift({ made, level, column, row });
    next();
    return made;
  }

  // a few at a time, the last wanted first: clusters and thumbnails need connections too, and the server makes tiles at first use
  function next() {
    while (busy < 2 && jobs.length) {
      const { made, level, column, row } = jobs.shift();
      if (level > levelNow()) { tiles.delete(made.key); continue; }
      busy += 1;
      fetchTile(made, level, column, row).catch(() => tiles.delete(made.key)).finally(() => { busy -= 1; next(); draw(); });
    }
  }

  async function fetchTile(made, level, column, row) {
    const names = fetch(`${home}places/names/${made.key}`).then((answer) => answer.json());
    if ("outlined" in box.dataset) trace(made, await (await fetch(`${home}places/land/${made.key}`)).arrayBuffer(), level, column, row);
    made.names = (await names).map(([name, longitude, latitude, people]) => ({ name, x: fromLongitude(longitude), y: fromLatitude(latitude), people }));
  }

  // rings as paths, in units of the tile's width, so that they are exact at any zoom; without lines where tiles were cut
  function trace(made, bytes, level, column, row) {
    const head = new Uint32Array(bytes, 0, 1)[0];
    const lengths = new Uint32Array(bytes, 4, head), points = new Uint16Array(bytes, 4 + 4 * head);
    const side = sides[level], high = Math.min(side, 180), more = side === 360 ? 0 : side * 0.002;
    const west = column * side - 180 - more, north = 90 - row * side + more;
    made.left = fromLongitude(west);
    made.top = fromLatitude(Math.min(85, north));
    made.wide = (side + 2 * more) / 360;
    const fill = new Path2D(), line = new Path2D();
    const heights = new Float64Array(TILE + 1).fill(NaN);
    const down = (value) => { if (Number.isNaN(heights[value])) heights[value] = (fromLatitude(north - (high + 2 * more) * value / TILE) - made.top) / made.wide; return heights[value]; };
    let at = 0;
    for (const length of lengths) {
      let pen = false;
      for (let i = 0; i < length; i += 1, at += 2) {
        const px = points[at], py = points[at + 1], sx = px / TILE, sy = down(TILE - py);
        if (i) fill.lineTo(sx, sy); else fill.moveTo(sx, sy);
        const cut = i && ((px === points[at - 2] && (px === 0 || px === TILE)) || (py === points[at - 1] && (py === 0 || py === TILE)));
        if (i && !cut) { if (!pen) line.moveTo(points[at - 2] / TILE, down(TILE - points[at - 1])); line.lineTo(sx, sy); pen = true; } else pen = false;
      }
      fill.closePath();
    }
    Object.assign(made, { fill, line });
  }

  function inView(level) {
    const side = sides[level], [west, north, east, south] = edges();
    const list = [];
    const last = Math.ceil(180 / side) - 1;
    const top = Math.max(0, Math.floor((90 - north) / side)), bottom = Math.min(last, Math.floor((90 - south) / side));
    for (let column = Math.floor((west + 180) / side); column <= Math.floor((east + 180) / side); column += 1) {
      const across = 360 / side, turn = Math.floor(column / across);
      for (let row = top; row <= bottom; row += 1) list.push({ made: tile(level, column - turn * across, row), turn });
    }
    return list;
  }

  function fillLand(list) {
    const scale = world();
    for (const key of ["fill", "line"]) {
      for (const { made, turn } of list) {
        if (!made[key]) continue;
        const [left, top] = toScreen(made.left + turn, made.top), unit = made.wide * scale;
        pen.setTransform(ratio * unit, 0, 0, ratio * unit, ratio * left, ratio * top);
        if (key === "fill") pen.fill(made.fill, "evenodd");
        else { pen.lineWidth = 1 / unit; pen.stroke(made.line); }
      }
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  function graticule() {
    const step = [30, 10, 5, 1, 0.25, 0.05, 0.01][Math.min(6, Math.max(0, Math.floor((zoom - 1) / 1.8)))];
    const [west, north, east, south] = edges();
    pen.beginPath();
    for (let degrees = Math.ceil(west / step) * step; degrees <= east; degrees += step) { const [sx] = toScreen(fromLongitude(degrees), 0); pen.moveTo(sx, 0); pen.lineTo(sx, height); }
    for (let degrees = Math.ceil(south / step) * step; degrees <= north; degrees += step) { const [, sy] = toScreen(0, fromLatitude(degrees)); pen.moveTo(0, sy); pen.lineTo(width, sy); }
    pen.stroke();
  }

  // countries, then towns, those of the most people first: the names of these tiles, sorted once
  function rank(list) {
    const all = list.flatMap(({ made, turn }) => made.names.map((name) => ({ ...name, turn })));
    const names = [...all.filter((name) => !name.people), ...all.filter((name) => name.people).sort((a, b) => b.people - a.people)];
    return { of: list.map(({ made, turn }) => `${turn}/${made.key}/${made.names.length}`).join(" "), names };
  }

  function writeNames(list) {
    const taken = [];
    const free = (frame) => taken.every((other) => frame[0] > other[2] || frame[2] < other[0] || frame[1] > other[3] || frame[3] < other[1]);
    for (const cluster of places()) taken.push([cluster.left, cluster.top, cluster.left + PIN, cluster.top + PIN]);
    if (ranked.of !== list.map(({ made, turn }) => `${turn}/${made.key}/${made.names.length}`).join(" ")) ranked = rank(list);
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    pen.lineWidth = 3;
    let count = 0;
    for (const { name, x: px, y: py, people, turn } of ranked.names) {
      if (!people && zoom > 7) continue;
      const [sx, sy] = toScreen(px + turn, py);
      if (sx < -40 || sy < -10 || sx > width + 40 || sy > height + 10) continue;
      pen.font = people ? "12px system-ui, sans-serif" : "600 12.5px system-ui, sans-serif";
      const long = pen.measureText(name).width, left = people ? sx + 6 : sx - long / 2;
      const frame = [left - 6, sy - 10, left + long + 6, sy + 10];
      if (!free(frame)) continue;
      taken.push(frame);
      if (people) { pen.fillStyle = colour("--edge"); pen.beginPath(); pen.arc(sx, sy, 2, 0, 7); pen.fill(); }
      pen.strokeStyle = colour("--card");
      pen.strokeText(name, left, sy);
      pen.fillStyle = colour(people ? "--ink" : "--quiet");
      pen.fillText(name, left, sy);
      if ((count += 1) > 90) break;
    }
  }

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }

  function paint() {
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colour("--sea");
    pen.fillRect(0, 0, width, height);
    pen.strokeStyle = colour("--rule");
    pen.lineWidth = 1;
    if (!("outlined" in box.dataset)) graticule();
    const level = levelNow(), list = inView(level);
    pen.fillStyle = colour("--card");
    pen.strokeStyle = colour("--edge");
    const coarser = list.some(({ made }) => !made.fill) ? Array.from({ length: level }, (_, each) => each).filter((each) => each === 0 || [...tiles.keys()].some((key) => key.startsWith(`${each}/`))) : [];
    for (const each of coarser) fillLand(inView(each));
    fillLand(list);
    writeNames(list);
    pin();
  }

  // -- photos ----------------------------------------------------------------------------------------------------------

  // each where its photos are; moved within its cell where a neighbour would lie under it
  function places() {
    const cells = 2 ** clusterZoom * SIDE / CELL, cell = world() / cells;
    const occupied = new Set(clusters.map((each) => `${Math.floor(each.x * cells)}/${Math.floor(each.y * cells)}`));
    const shown = [];
    for (const each of clusters) {
      const column = Math.floor(each.x * cells), row = Math.floor(each.y * cells);
      const beside = (dx, dy) => occupied.has(`${(column + dx + cells) % cells}/${row + dy}`);
      const bound = (value, low, high, least, most) => Math.min(high ? most : Infinity, Math.max(low ? least : -Infinity, value));
      for (let turn = Math.floor(x - width / 2 / world()) - 1; turn <= Math.ceil(x + width / 2 / world()); turn += 1) {
        const [sx, sy] = toScreen(each.x + turn, each.y), [left, top] = toScreen(column / cells + turn, row / cells);
        const px = bound(sx, beside(-1, -1) || beside(-1, 0) || beside(-1, 1), beside(1, -1) || beside(1, 0) || beside(1, 1), left + PIN / 2, left + cell - PIN / 2);
        const py = bound(sy, beside(-1, -1) || beside(0, -1) || beside(1, -1), beside(-1, 1) || beside(0, 1) || beside(1, 1), top + PIN / 2, top + cell - PIN / 2);
        if (px > -PIN && py > -PIN && px < width + PIN && py < height + PIN) shown.push({ each, key: `${each.box}/${turn}`, left: px - PIN / 2, top: py - PIN / 2 });
      }
    }
    return shown;
  }

  const spoken = (cluster) => {
    const [latitude, longitude] = [toLatitude(cluster.y), toLongitude(cluster.x)];
    return `${number(cluster.count)} ${cluster.count === 1 ? "photo" : "photos"} at ${Math.abs(latitude).toFixed(1)}° ${latitude < 0 ? "south" : "north"}, ${Math.abs(longitude).toFixed(1)}° ${longitude < 0 ? "west" : "east"}`;
  };

  function pin() {
    const shown = places(), known = new Map([...pins.children].map((button) => [button.dataset.key, button]));
    for (const { each, key, left, top } of shown) {
      let button = known.get(key);
      known.delete(key);
      if (!button) {
        button = document.createElement("button");
        Object.assign(button, { type: "button", className: "pin" });
        button.dataset.key = key;
        button.addEventListener("click", () => photos(each.box));
        button.append(Object.assign(new Image(PIN, PIN), { src: `${home}api/photos/${each.id}/thumbnail?size=160`, alt: "", draggable: false }));
        if (each.count > 1) button.append(Object.assign(document.createElement("span"), { className: "count", textContent: each.count > 9999 ? `${Math.round(each.count / 1000)}k` : number(each.count) }));
        button.setAttribute("aria-label", spoken(each));
        pins.append(button);
      }
      button.style.transform = `translate(${left}px, ${top}px)`;
    }
    for (const button of known.values()) button.remove();
  }

  const asked = (west, south, east, north) => new URLSearchParams([...query, ["west", west], ["south", south], ["east", east], ["north", north]]);

  // the clusters of a little more than the view, so that moving shows them at once
  async function load() {
    const [west, north, east, south] = edges(CELL);
    const level = Math.min(18, Math.max(0, Math.floor(zoom)));
    loading?.abort();
    loading = new AbortController();
    const { signal } = loading;
    try {
      const wide = await fetch(`${home}places/clusters?${asked(west.toFixed(6), south.toFixed(6), east.toFixed(6), north.toFixed(6))}&zoom=${level}`, { signal });
      if (!wide.ok) throw new Error(String(wide.status));
      const answer = await wide.json();
      clusters = answer.clusters.map(([count, id, px, py, ...degrees]) => ({ count, id, x: px, y: py, box: degrees }));
      clusterZoom = level;
      const inside = clusters.filter(({ x: px, y: py }) => [-1, 0, 1].some((turn) => { const [sx, sy] = toScreen(px + turn, py); return sx >= 0 && sx <= width && sy >= 0 && sy <= height; })).reduce((sum, { count }) => sum + count, 0);
      status.textContent = answer.sampled ? `A sample of ${number(inside)} of the ${number(answer.sampled)} photos in view, of ${number(answer.total)}` : `${number(inside)} of ${number(answer.total)} photos in view`;
      box.dataset.ready = "true";
      draw();
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = "The photos of this view cannot be read just now: move the map to try again.";
    }
  }

  async function photos([west, south, east, north]) {
    const words = status.textContent;
    status.textContent = "Looking for the photos…";
    target.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(`${home}places/photos?${asked(west, south, west > east ? east + 360 : east, north)}`, { headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const text = new DOMParser().parseFromString(await answer.text(), "text/html");
      target.replaceChildren(...document.adoptNode(text.body).childNodes);
      document.dispatchEvent(new Event("more"));
      const heading = target.querySelector("h2");
      heading.focus({ preventScroll: true });
      heading.scrollIntoView({ block: "nearest" });
      status.textContent = words;
    } catch { status.textContent = "The photos cannot be read just now: try again in a moment."; } finally { target.removeAttribute("aria-busy"); }
  }

  const round = (degrees) => Number(degrees.toFixed(5));
  function inThisView() { const [west, north, east, south] = edges(); photos([west, south, east, north].map(round)); }

  // -- fingers, the mouse and keys -----------------------------------------------------------------------------------------

  const fingers = new Map();
  let travelled = 0, corner = null;
  const point = (event) => { const frame = box.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };
  const spread = () => { const [first, second] = [...fingers.values()]; return Math.hypot(first[0] - second[0], first[1] - second[1]); };
  const choosing = () => boxButton.getAttribute("aria-pressed") === "true";

  function choose(isOn) {
    boxButton.setAttribute("aria-pressed", String(isOn));
    box.classList.toggle("choosing", isOn);
    if (isOn) status.textContent = "Draw a box around the photos.";
    corner = null;
    part.hidden = true;
  }

  function frame([ax, ay], [bx, by]) {
    Object.assign(part.style, { left: `${Math.min(ax, bx)}px`, top: `${Math.min(ay, by)}px`, width: `${Math.abs(ax - bx)}px`, height: `${Math.abs(ay - by)}px` });
    part.hidden = false;
  }

  box.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, point(event));
    if (fingers.size === 1) { travelled = 0; corner = choosing() || event.shiftKey ? point(event) : null; } else corner = null;
  });
  box.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = point(event), apart = fingers.size === 2 ? spread() : 0;
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (travelled < 5 && fingers.size === 1) return; // a click on a cluster is none on the map
    if (!box.hasPointerCapture(event.pointerId)) box.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, now);
    if (corner) frame(corner, now);
    else if (fingers.size === 2) {
      const [first, second] = [...fingers.values()];
      move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      if (apart > 0) zoomBy(Math.log2(spread() / apart), (first[0] + second[0]) / 2, (first[1] + second[1]) / 2);
    } else move(now[0] - before[0], now[1] - before[1]);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    box.addEventListener(name, (event) => {
      if (!fingers.delete(event.pointerId) || !corner) return;
      const [first, second] = [toWorld(...corner), toWorld(...point(event))];
      const isBox = name === "pointerup" && !part.hidden;
      choose(false);
      if (!isBox) return;
      const [left, right] = [first[0], second[0]].sort((a, b) => a - b), [top, bottom] = [first[1], second[1]].sort((a, b) => a - b);
      photos([toLongitude(left), toLatitude(bottom), toLongitude(right), toLatitude(top)].map(round));
    });
  }
  box.addEventListener("click", (event) => { if (travelled >= 5) { event.preventDefault(); event.stopPropagation(); } }, true);
  box.addEventListener("dblclick", (event) => { if (!event.target.closest(".pin")) zoomBy(1, ...point(event)); });
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(-Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) / 240, ...point(event));
  }, { passive: false });

  const STEP = 90; // pixels
  const KEYS = {
    "ArrowLeft": () => move(STEP, 0), "ArrowRight": () => move(-STEP, 0), "ArrowUp": () => move(0, STEP), "ArrowDown": () => move(0, -STEP),
    "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), "0": all, "Enter": inThisView, "Escape": () => choose(false),
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS) || (event.key === "Enter" && event.target !== canvas)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  // a cluster that is reached by the keyboard is brought into sight by the map, not by scrolling what holds it
  pins.addEventListener("scroll", () => pins.scrollTo(0, 0));

  const ZOOMS = { in: () => zoomBy(1), out: () => zoomBy(-1), all };
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", ZOOMS[button.dataset.zoom]));
  document.querySelector("[data-view]").addEventListener("click", inThisView);
  boxButton.addEventListener("click", () => choose(!choosing()));
  document.addEventListener("theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(size).observe(box);
})();
