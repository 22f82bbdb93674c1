// One image: its layers, the clicked pixel, the walk decided again, and the correction.

import { clamp, Picture } from "./canvas.js";
import { Painting } from "./painting.js";
import { getPlanes, newest, postJson, putBytes } from "./server.js";
import { Settings } from "./settings.js";

const HINTS = {
  look: "Click a pixel: what the walk ties to it lights up.",
  brush: "Paint a label; what you don't paint stays as it is.",
  eraser: "Take the correction back, to the run's own mask.",
  flood: "Click an object: its label spreads along the walk. Then change the reach.",
};
const DECIDED = "decided"; // the layer that follows the sliders
const find = (id) => document.getElementById(id);

export class Editor {
  // changed(index, answer): a correction was saved; complain(error): something went wrong.
  constructor(run, changed, complain) {
    Object.assign(this, { run, changed, complain, index: -1, cursor: null, label: 0, tool: "look" });
    this.saving = Promise.resolve();
    this.picture = new Picture(find("canvas"), find("marks"), find("paper"));
    this.picture.setColors(run.classes.map(({ color }) => color), run.neutral);
    this.settings = new Settings(find("sliders"), (draft) => this.decide(draft));
    this.settings.set(run.walk);
    this.send = newest((draft) => this.#decide(draft).catch(complain));
    this.#buildLayers();
    this.#buildLabels();
    this.#listen();
    this.chooseTool("look");
    this.#outputs();
  }

  async open(index) {
    await this.leave();
    this.index = index;
    const shown = this.run.images[index];
    find("image-name").textContent = shown.id;
    find("tags").replaceChildren(...shown.tags.map((tag) => this.#tag(tag)));
    this.cursor = null;
    this.last = null;
    const image = new Image();
    image.src = `images/${index}`;
    const [corrected] = await Promise.all([getPlanes(`layers/${index}/corrections`), image.decode()]);
    const decoded = await createImageBitmap(image); // an <img> may be decoded again for a drawing
    if (this.index !== index) return; // another one was opened meanwhile
    this.picture.setImage(decoded);
    this.picture.mark(null);
    const { width, height } = this.picture;
    this.painting = new Painting(width, height, this.run.neutral, corrected?.data);
    find("saved").textContent = corrected ? "This image is corrected." : "";
    this.label = shown.tags.length ? shown.tags[0] + 1 : 0;
    find("label").value = this.label;
    this.showCorrection();
    await this.chooseLayer(this.layer ?? this.run.final);
  }

  // Before another image: what was drawn is saved.
  async leave() {
    if (this.timer) this.save();
    await this.saving;
  }

  // --- layers

  #buildLayers() {
    const all = [["image", "Image alone"], ...this.run.layers.map(({ name, title }) => [name, title])];
    if (this.run.walks) all.push([DECIDED, "New settings"]);
    this.names = all.map(([name]) => name);
    find("layers").append(...all.map(([name, title], place) => {
      const row = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "layer", value: name });
      const key = document.createElement("kbd");
      key.textContent = place < 10 ? place : "";
      row.append(input, title, key);
      input.addEventListener("change", () => this.chooseLayer(name).catch(this.complain));
      return row;
    }));
    const off = !this.run.walks;
    this.settings.disable(off);
    find("no-walk").hidden = !off;
    for (const id of ["reset", "apply"]) find(id).disabled = off;
  }

  async chooseLayer(name) {
    const radio = document.querySelector(`[name=layer][value="${name}"]`);
    if (!radio) return;
    radio.checked = true;
    this.layer = name;
    if (name === DECIDED) return this.decide(false);
    const index = this.index;
    const planes = name === "image" ? null : await getPlanes(`layers/${index}/${name}`);
    if (this.index !== index || this.layer !== name) return;
    this.picture.setLayer(planes);
    find("message").textContent =
      planes || name === "image" ? "" : `${radio.parentElement.firstChild.nextSibling.textContent}: not made of this image`;
  }

  // --- the walk decided again

  decide(draft) {
    if (!this.run.walks || this.index < 0) return undefined;
    this.began ??= performance.now();
    return this.send(draft);
  }

  async #decide(draft) {
    const { index, began } = this;
    this.began = null;
    document.querySelector(`[name=layer][value="${DECIDED}"]`).checked = true;
    this.layer = DECIDED;
    const asked = getPlanes(`decide/${index}`, { settings: this.settings.get(), draft });
    const planes = await patiently(asked);
    if (this.index !== index || this.layer !== DECIDED) return;
    this.picture.setLayer(planes);
    find("message").textContent = "";
    measure(draft ? "draft" : "decide", began);
  }

  async apply() {
    // What nobody moved here may have changed in the recipe meanwhile, and stays as it is there.
    const answer = await postJson("apply", { settings: this.settings.get(this.run.walk) });
    this.run.walk = answer.walk;
    this.settings.set(answer.walk);
    if (this.layer === DECIDED) this.decide(false);
    const parts = Object.entries(answer.changed).map(([key, value]) => `${key} = ${value}`);
    const said = find("applied");
    if (!parts.length) {
      said.textContent = "The recipe has these settings already.";
      return answer;
    }
    const command = Object.assign(document.createElement("code"), { textContent: answer.command });
    said.replaceChildren(`Written: ${parts.join(", ")}. Now do the stage ${answer.redo} again: `, command);
    return answer;
  }

  // --- tools

  chooseTool(tool) {
    this.tool = tool;
    document.querySelector(`[name=tool][value="${tool}"]`).checked = true;
    find("tool-hint").textContent = HINTS[tool];
    find("canvas").classList.toggle("paints", tool === "brush" || tool === "eraser");
    for (const row of document.querySelectorAll("[data-for]")) {
      row.hidden = !row.dataset.for.split(" ").includes(tool);
    }
    this.last = null;
    this.#mark();
  }

  async press(place) {
    this.cursor = place;
    if (this.tool === "look") await this.look(place);
    else if (this.tool === "flood") await this.flood(place);
    else {
      this.painting.begin();
      this.from = place;
      this.drag(place);
    }
    this.#mark();
  }

  drag(place) {
    this.cursor = place;
    if (this.from) {
      const label = this.tool === "eraser" ? this.run.neutral : this.label;
      this.painting.stroke(this.from, place, this.radius, label);
      this.from = place;
      this.showCorrection();
    }
    this.#mark();
  }

  release() {
    if (!this.from) return;
    this.from = null;
    this.keep();
  }

  get radius() { return Number(find("size").value) / 2; }

  async look(place) {
    const began = performance.now();
    const found = await this.#affinities(place);
    if (!found) return;
    this.last = { found };
    this.showSpread();
    measure("affinities", began);
  }

  showSpread() {
    if (this.tool !== "look" || !this.last) return;
    const { data, width, height, stride } = this.last.found;
    const start = Number(find("spread").value) * width * height;
    this.picture.setSpread(data.subarray(start, start + width * height), width, height, stride);
  }

  async flood(place) {
    const began = performance.now();
    const found = await this.#affinities(place);
    if (!found) return;
    this.last = { found, place, label: this.label };
    this.painting.begin();
    this.#fill();
    measure("flood", began);
  }

  // The reach was changed: the last flood is taken back and done again.
  floodAgain() {
    if (this.tool !== "flood" || !this.last || !this.painting.undo()) return;
    this.painting.begin();
    this.#fill();
  }

  #fill() {
    const { found: { data, width, height, stride }, place, label } = this.last;
    const level = 1 - Number(find("level").value);
    const reach = data.subarray(width * height);
    this.painting.flood(place, reach, width, height, stride, level, label);
    this.showCorrection();
    this.keep();
  }

  async #affinities({ x, y }) {
    const index = this.index;
    const asked = getPlanes(`affinities/${index}`, { x, y, settings: this.settings.get() });
    const found = await patiently(asked);
    return this.index === index ? found : null;
  }

  // --- the correction

  showCorrection() {
    this.picture.setCorrection(find("show-correction").checked ? this.painting : null);
  }

  undo() { if (this.painting.undo()) this.#edited(); }
  redo() { if (this.painting.redo()) this.#edited(); }

  clear() {
    if (this.painting.empty) return;
    this.painting.clear();
    this.#edited();
  }

  #edited() {
    this.last = null;
    this.showCorrection();
    this.keep();
  }

  keep() {
    find("saved").textContent = "Saving …";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), 250);
  }

  get unsaved() { return find("saved").textContent.startsWith("Saving"); }

  // One after the other, so that an older drawing never arrives last.
  save() {
    clearTimeout(this.timer);
    this.timer = null;
    const { index, painting } = this;
    this.saving = this.saving.then(() => this.#save(index, painting)).catch((error) => {
      find("saved").textContent = "Not saved.";
      this.complain(error);
    });
  }

  async #save(index, painting) {
    const answer = await putBytes(`corrections/${index}`, painting.data);
    this.run.images[index].corrected = answer.corrected;
    if (this.index === index && !this.timer) {
      find("saved").textContent = answer.corrected ? "Saved as a correction." : "Not corrected.";
    }
    this.changed(index, answer);
  }

  // --- what is on the page

  #buildLabels() {
    const names = ["background", ...this.run.classes.map(({ name }) => name)];
    names.forEach((name, label) => find("label").add(new Option(name, label)));
  }

  nextLabel(step) {
    const count = this.run.classes.length + 1;
    this.label = (this.label + step + count) % count;
    find("label").value = this.label;
  }

  #tag(tag) {
    const { name, color } = this.run.classes[tag];
    const chip = Object.assign(document.createElement("span"), { className: "tag", textContent: name });
    chip.style.setProperty("--color", `rgb(${color.join(",")})`);
    return chip;
  }

  #listen() {
    const canvas = find("canvas");
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.press(this.picture.place(event)).catch(this.complain);
    });
    canvas.addEventListener("pointermove", (event) => this.drag(this.picture.place(event)));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.release());
    canvas.addEventListener("pointerleave", () => this.picture.mark(null));
    canvas.addEventListener("keydown", (event) => this.#keys(event));
    canvas.addEventListener("keyup", (event) => event.key === " " && this.release());
    for (const radio of document.querySelectorAll("[name=tool]")) {
      radio.addEventListener("change", () => this.chooseTool(radio.value));
    }
    find("opacity").addEventListener("input", () => this.#look());
    find("zoom").addEventListener("input", () => this.#look());
    find("size").addEventListener("input", () => this.#outputs());
    find("level").addEventListener("input", () => { this.#outputs(); this.floodAgain(); });
    find("spread").addEventListener("change", () => this.showSpread());
    find("label").addEventListener("change", () => { this.label = Number(find("label").value); });
    find("show-correction").addEventListener("change", () => this.showCorrection());
    find("undo").addEventListener("click", () => this.undo());
    find("redo").addEventListener("click", () => this.redo());
    find("clear").addEventListener("click", () => this.clear());
    find("reset").addEventListener("click", () => { this.settings.set(this.run.walk); this.decide(false); });
    window.addEventListener("resize", () => this.picture.fit());
  }

  #look() {
    this.picture.opacity = Number(find("opacity").value);
    this.picture.zoom = Number(find("zoom").value);
    this.picture.fit();
    this.picture.draw();
    this.#outputs();
  }

  // Moves a slider by some of its steps, as a key does.
  nudge(id, steps) {
    const input = find(id);
    input.value = Number(input.value) + steps * Number(input.step);
    input.dispatchEvent(new Event("input"));
  }

  #outputs() {
    const texts = {
      opacity: `${Math.round(100 * find("opacity").value)} %`,
      zoom: `${find("zoom").value} ×`,
      size: `${find("size").value} px`,
      level: `${Math.round(100 * find("level").value)} %`,
    };
    for (const [id, text] of Object.entries(texts)) find(id).parentElement.querySelector("output").textContent = text;
  }

  #mark() {
    const brush = this.tool === "brush" || this.tool === "eraser";
    if (this.picture.image) this.picture.mark(this.cursor, brush ? this.radius : 0);
  }

  #keys(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.picture;
    const here = this.cursor ?? { x: width >> 1, y: height >> 1 };
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
      this.drag({ x: clamp(here.x + dx, 0, width - 1), y: clamp(here.y + dy, 0, height - 1) });
    } else if (event.key === " " || event.key === "Enter") {
      if (!event.repeat) this.press(here).then(() => event.key === "Enter" && this.release()).catch(this.complain);
    } else return;
    event.preventDefault();
  }
}

// Says that an answer takes long, as the first one does, for which the server loads torch.
async function patiently(asked) {
  const said = "Working … the first answer takes longest.";
  const timer = setTimeout(() => { find("message").textContent = said; }, 800);
  try {
    return await asked;
  } finally {
    clearTimeout(timer);
    if (find("message").textContent === said) find("message").textContent = "";
  }
}

// In the browser's own list of times, where developer tools show it.
function measure(name, start) {
  if (start) performance.measure(name, { start, end: performance.now() });
}
