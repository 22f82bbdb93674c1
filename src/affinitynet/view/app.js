// The page: all images, or one of them, by the address's #id=; and the keys.

import { Editor } from "./editor.js";
import { Grid } from "./grid.js";
import { getJson } from "./server.js";

const find = (id) => document.getElementById(id);
let run, grid, editor;

function complain(error) {
  find("message").textContent = error.message;
}

function showState(lines) {
  find("state").replaceChildren(...lines.map((line) => {
    return Object.assign(document.createElement("li"), { textContent: line });
  }));
}

async function follow() {
  const id = new URLSearchParams(location.hash.slice(1)).get("id");
  const index = run.images.findIndex((image) => image.id === id);
  const one = index >= 0;
  find("message").textContent = id && !one ? `This run has no image ${id}.` : "";
  if (!one) {
    const last = editor.index;
    await editor.leave();
    editor.index = -1;
    find("grid-view").hidden = false;
    find("image-view").hidden = true;
    grid.render();
    if (last >= 0) grid.focus(last);
    return;
  }
  find("grid-view").hidden = true;
  find("image-view").hidden = false;
  await editor.open(index);
  find("canvas").focus({ preventScroll: true });
}

function go(index) {
  if (index === undefined) return;
  location.hash = index < 0 ? "" : new URLSearchParams({ id: run.images[index].id });
}

// Emptiness and disagreement come in while the server goes through the masks.
async function measure() {
  for (;;) {
    const found = await getJson("measures.json");
    for (const { index, ...measures } of found) Object.assign(run.images[index], measures);
    const atCards = find("cards").contains(document.activeElement);
    if (editor.index < 0 && !atCards) grid.render();
    if (found.length >= run.images.length) return;
    await new Promise((done) => setTimeout(done, 1500));
  }
}

const EVERYWHERE = { "?": () => find("help").showModal() };
const IN_GRID = {
  s: () => find("sort").focus(),
  c: () => find("class-filter").focus(),
  w: () => find("show").focus(),
  ArrowDown: () => grid.focus(grid.order[0]),
  ArrowRight: () => grid.focus(grid.order[0]),
};
const IN_IMAGE = {
  Escape: () => go(-1),
  n: () => go(grid.neighbor(editor.index, 1)),
  p: () => go(grid.neighbor(editor.index, -1)),
  a: () => tool("look"),
  b: () => tool("brush"),
  e: () => tool("eraser"),
  f: () => tool("flood"),
  u: () => editor.undo(),
  r: () => editor.redo(),
  k: () => editor.settings.focus(),
  o: () => editor.nudge("opacity", 2),
  O: () => editor.nudge("opacity", -2),
  "+": () => editor.nudge("zoom", 1),
  "=": () => editor.nudge("zoom", 1),
  "-": () => editor.nudge("zoom", -1),
  "[": () => editor.nudge(editor.tool === "flood" ? "level" : "size", -2),
  "]": () => editor.nudge(editor.tool === "flood" ? "level" : "size", 2),
  ",": () => editor.nextLabel(-1),
  ".": () => editor.nextLabel(1),
};

function tool(name) {
  editor.chooseTool(name);
  find("canvas").focus({ preventScroll: true });
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  // A list takes letters itself, a slider arrows and digits don't matter to it.
  if (event.target.tagName === "SELECT" && event.key !== "Escape") return;
  const inImage = editor.index >= 0;
  let work = EVERYWHERE[event.key] ?? (inImage ? IN_IMAGE : IN_GRID)[event.key];
  if (inImage && /^[0-9]$/.test(event.key)) work = () => editor.chooseLayer(editor.names[Number(event.key)]);
  if (!work || (event.key.startsWith("Arrow") && event.target !== document.body)) return;
  event.preventDefault();
  Promise.resolve(work()).catch(complain);
}

async function start() {
  run = await getJson("run.json");
  document.title = `${run.name} · AffinityNet`;
  find("name").textContent = run.name;
  showState(run.state);
  grid = new Grid(run, go);
  editor = new Editor(run, (index, answer) => {
    showState(answer.state);
    grid.renew(index);
  }, complain);
  find("back").addEventListener("click", () => go(-1));
  find("previous").addEventListener("click", IN_IMAGE.p);
  find("next").addEventListener("click", IN_IMAGE.n);
  find("help-button").addEventListener("click", EVERYWHERE["?"]);
  find("apply").addEventListener("click", () => {
    editor.apply().then(({ state }) => showState(state)).catch(complain);
  });
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", () => follow().catch(complain));
  window.addEventListener("beforeunload", (event) => editor.unsaved && event.preventDefault());
  grid.render();
  await follow();
  document.body.dataset.ready = "yes";
  await measure();
}

start().catch(complain);
