// A photo from outside: chosen, dropped or pasted, it goes to the server with the form that is there without this script too.
"use strict";
(() => {
  const curtain = document.querySelector("[data-dropping]");
  if (!curtain) return; // no photos can be searched yet
  const home = document.querySelector("a.name").pathname; // of this collection
  const form = document.getElementById("bring") ?? elsewhere();
  const words = curtain.querySelector("span");
  const input = document.querySelector("[data-bring]") ?? form.querySelector("input[type=file]");
  const maxBytes = Number(input.dataset.most || 0);
  let depth = 0, refused = null;

  // the views without a search have no form of their own
  function elsewhere() {
    const form = document.createElement("form");
    form.action = `${home}photo`;
    form.method = "post";
    form.enctype = "multipart/form-data";
    form.hidden = true;
    const file = document.createElement("input");
    file.type = "file";
    file.name = "photo";
    form.append(file);
    document.body.append(form);
    return form;
  }

  function say(text, busy) {
    words.textContent = text;
    curtain.classList.toggle("busy", busy);
    curtain.hidden = false;
  }

  async function send() {
    const file = input.files[0];
    if (!file) return;
    if (maxBytes && file.size > maxBytes) {
      refuse(`This photo has more than ${Math.round(maxBytes / 1e6)} MB: make it smaller.`);
      return;
    }
    refused?.remove();
    say("Looking at the photo…", true);
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "application/json" } });
      const said = await answer.json();
      if (answer.ok) location.href = home + said.address.slice(1);
      else refuse(`${file.name}: ${said.error.message}. Choose another photo.`);
    } catch { refuse("The photo could not be sent: see whether the server still runs, and try again."); }
  }

  // the page stays as it is, with what was typed
  function refuse(text) {
    curtain.hidden = true;
    input.value = "";
    refused?.remove();
    refused = Object.assign(document.createElement("p"), { className: "problem", textContent: text });
    refused.setAttribute("role", "alert");
    const search = document.getElementById("search");
    if (search) search.insertAdjacentElement("afterend", refused); // its field "after" hides the method of that name
    else document.getElementById("main").prepend(refused);
    refused.scrollIntoView({ block: "nearest" });
  }

  function take(files) {
    const photo = [...files].find((file) => file.type.startsWith("image/")) ?? files[0];
    if (!photo) return;
    const carrier = new DataTransfer();
    carrier.items.add(photo);
    input.files = carrier.files;
    send();
  }

  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; say("Drop a photo to find photos like it", false); } });
  document.addEventListener("dragleave", (event) => { if (hasFiles(event) && (depth -= 1) <= 0) { depth = 0; curtain.hidden = true; } });
  document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    curtain.hidden = true;
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length) { event.preventDefault(); take(files); }
  });
  input.addEventListener("change", send);
  window.addEventListener("pageshow", () => { curtain.hidden = true; input.value = ""; });
})();
