// The sliders of the walk: their ranges, what they show, and the settings they stand for.

const KNOBS = [
  // Of these two the one that the walk's background reads is there.
  { name: "alpha", title: "Alpha", low: 1, high: 1000, scale: "log", reads: (walk) => walk.background === "alpha" },
  { name: "background_score", title: "Background", low: 0, high: 1, step: 0.01, reads: (walk) => walk.background !== "alpha" },
  { name: "beta", title: "Beta", low: 0.5, high: 40, step: 0.5 },
  { name: "steps", title: "Steps", low: 1, high: 4096, scale: "log", whole: true },
  { name: "refine", title: "CRF", kind: "switch" },
  { name: "crf.iterations", title: "Iterations", low: 0, high: 30, step: 1, whole: true },
  { name: "crf.bilateral_sxy", title: "Width (px)", low: 1, high: 300, scale: "log" },
  { name: "crf.bilateral_srgb", title: "Width (RGB)", low: 1, high: 100, scale: "log" },
  { name: "crf.bilateral_compat", title: "Strength", low: 0, high: 30, step: 0.5 },
];
const NOTCHES = 400; // of a logarithmic slider

export class Settings {
  // changed(draft): called while a slider moves (draft), and when it is let go.
  constructor(box, changed) {
    this.inputs = new Map();
    for (const knob of KNOBS) {
      const row = document.createElement("label");
      row.className = knob.kind === "switch" ? "check" : "row";
      const input = document.createElement("input");
      input.id = `walk-${knob.name.replace(".", "-")}`;
      const output = document.createElement("output");
      if (knob.kind === "switch") {
        input.type = "checkbox";
        row.append(input, knob.title);
      } else {
        const log = knob.scale === "log";
        Object.assign(input, { type: "range", min: log ? 0 : knob.low, max: log ? NOTCHES : knob.high });
        input.step = log ? 1 : knob.step;
        row.append(knob.title, input, output);
      }
      box.append(row);
      this.inputs.set(knob.name, { knob, row, input, output, value: null });
      input.addEventListener("input", () => {
        this.#read(knob.name);
        changed(knob.kind !== "switch");
      });
      input.addEventListener("change", () => changed(false));
    }
  }

  set(walk) {
    for (const [name, entry] of this.inputs) {
      const value = lookUp(walk, name);
      entry.value = value;
      entry.row.hidden = entry.knob.reads?.(walk) === false;
      if (entry.knob.kind === "switch") entry.input.checked = value;
      else entry.input.value = toSlider(entry.knob, value);
      this.#show(entry);
    }
  }

  // Those that differ from the settings `known`; without it all.
  get(known) {
    const walk = { crf: {} };
    for (const [name, { value }] of this.inputs) {
      if (known && value === lookUp(known, name)) continue;
      const [first, second] = name.split(".");
      if (second) walk.crf[second] = value;
      else walk[first] = value;
    }
    return walk;
  }

  disable(off) {
    for (const { input } of this.inputs.values()) input.disabled = off;
  }

  focus() { [...this.inputs.values()].find(({ row }) => !row.hidden).input.focus(); }

  #read(name) {
    const entry = this.inputs.get(name);
    const { knob, input } = entry;
    entry.value = knob.kind === "switch" ? input.checked : fromSlider(knob, Number(input.value));
    this.#show(entry);
  }

  #show({ knob, output, input, value }) {
    if (knob.kind === "switch") return;
    output.textContent = knob.whole ? value : Number(value.toPrecision(3));
    input.setAttribute("aria-valuetext", output.textContent);
  }
}

function lookUp(walk, name) {
  return name.split(".").reduce((section, key) => section[key], walk);
}

function toSlider({ scale, low, high }, value) {
  if (scale !== "log") return value;
  return Math.round((NOTCHES * Math.log(Math.max(value, low) / low)) / Math.log(high / low));
}

function fromSlider({ scale, low, high, whole }, place) {
  if (scale !== "log") return place;
  const value = low * (high / low) ** (place / NOTCHES);
  return whole ? Math.round(value) : Number(value.toPrecision(3));
}
