// The page of `crispseg web`: a picture is chosen, a network says what is where, the refiner moves the borders.
// Not here: the stage with the picture and the brush (stage.js), files (pictures.js), networks (worker.js).

import { pixelsAreTrue, png, readPicture } from "./pictures.js";
import { resized } from "./resize.js";
import { makeStage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const UNDO = 20;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let facts, stage, ready, next = 0;
/** The picture that is shown: {rgba, width, height}; its masks: of the network, drawn, refined. */
let picture = null, own = null, drawn = null, after = null;
let file = null, undo = [], round = 0, note = "";

worker.onmessage = ({ data: { id, answer, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(answer);
};
worker.onerror = () => say("This browser is too old for this page: it runs no modules in workers.", "bad");

function ask(what, question = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject });
    worker.postMessage({ id: next++, ask: what, ...question });
  });
}

start().catch(complain);

async function start() {
  $("needs-server").hidden = true;
  const answer = await fetch("model.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`model.json could not be loaded: the server says ${answer.status}.`);
  facts = await answer.json();
  $("name").textContent = facts.name;
  document.title = `${facts.name} · crispseg`;
  $("about").textContent = about();
  $("class").append(...facts.classes.map((name, i) => new Option(name, i)));
  stage = makeStage(facts.palette, { painted, pointed });
  $("drop").hidden = false;
  $("device-row").hidden = !(await navigator.gpu?.requestAdapter().catch(() => null));
  if (!facts.refiner) for (const id of ["refine", "refine-hint"]) $(id).hidden = true;
  if (!pixelsAreTrue()) {
    note = "This browser changes the pixels that a page reads, so that masks differ from crispseg’s. Allow this page to read canvases.";
  }
  await load();
}

function load() {
  say(`Loading the network, ${megabytes(facts.model.bytes)} …`, "busy");
  ready = ask("load", { facts, on: $("device").value });
  ready.catch(() => {});
  return ready.then(() => say(note || "Ready.", note ? "bad" : ""));
}

async function open(given) {
  file = given;
  const mine = ++round;
  try {
    say("Reading the picture …", "busy");
    const full = await readPicture(file);
    const [width, height] = within(full.width, full.height, 1e6 * Number($("most").value));
    const small = reduced(full, width, height);
    if (mine !== round) return;
    picture = { rgba: small, width, height };
    own = drawn = after = null;
    undo = [];
    draw(false);
    $("drop").hidden = true;
    $("shown").hidden = $("panel").hidden = false;
    stage.picture(picture.rgba, width, height);
    refresh();
    say("Looking at the picture …", "busy");
    await ready;
    const { mask, seconds } = await ask("predict", picture);
    if (mine !== round) return;
    own = mask;
    refresh();
    const said = [`${width}×${height} in ${seconds.toFixed(1)} s.`];
    if (width !== full.width) said.push(`Reduced from ${full.width}×${full.height}.`);
    if (facts.size && !(facts.size[0] === height && facts.size[1] === width)) {
      said.push(`The network takes ${facts.size[1]}×${facts.size[0]} alone: it saw the picture at that size.`);
    }
    if (full.clear) said.push("Its transparent pixels were read as this browser shows them, which crispseg does not do in Python.");
    if (note) said.push(note);
    say(said.join(" "));
  } catch (error) {
    if (mine === round) complain(error);
  }
}

/** The size of at most so many pixels, in the picture's proportions. */
function within(width, height, most) {
  const factor = Math.min(1, Math.sqrt(most / (width * height)));
  return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
}

function reduced({ rgba, width, height }, toWidth, toHeight) {
  if (width === toWidth && height === toHeight) return rgba;
  const n = width * height, m = toWidth * toHeight, result = new Uint8ClampedArray(4 * m).fill(255);
  for (let c = 0; c < 3; c++) {
    const data = new Float32Array(n);
    for (let i = 0; i < n; i++) data[i] = rgba[4 * i + c];
    const plane = resized({ data, channels: 1, height, width }, [toHeight, toWidth], true).data;
    for (let i = 0; i < m; i++) result[4 * i + c] = plane[i];
  }
  return result;
}

async function refine() {
  const mine = ++round, before = drawn ?? own;
  if (!before) return;
  $("refine").disabled = true;
  say("Refining the borders …", "busy");
  try {
    await ready;
    const { mask, seconds } = await ask("refine", { ...picture, mask: before, drawn: drawn !== null });
    if (mine !== round) return;
    after = mask;
    split(drawn ? 0 : 50);
    refresh();
    const changed = mask.reduce((sum, value, i) => sum + (value !== before[i]), 0);
    say(changed ? `Refined in ${seconds.toFixed(1)} s: ${percent(changed / mask.length)} of the pixels changed.` : "Refined: no border had to move.");
  } catch (error) {
    if (mine === round) complain(error);
  } finally {
    refresh();
  }
}

function draw(on) {
  if (on && own && !drawn) drawn = own.slice();
  if (!on && !after && !undo.length) drawn = null; // nothing was painted: it is the network’s again
  $("draw").setAttribute("aria-pressed", String(on));
  $("brush").hidden = !on;
  if (on && after) {
    drawn = after.slice(); // what is seen is what is painted on
    after = null;
  }
  stage.brush({ on, size: brushSize(), value: Number($("class").value) });
  refresh();
}

/** Before a stroke, and after it. */
function painted(when) {
  if (when === "begin") {
    if (after) drawn.set(after);
    undo = [...undo.slice(1 - UNDO), drawn.slice()];
    after = null;
    round++;
    stage.show(drawn, null);
    return;
  }
  refresh();
  if ($("snap").checked && facts.refiner) refine();
}

function redrawn(mask) {
  drawn = mask;
  after = null;
  round++;
  refresh();
}

function brushSize() {
  return picture ? Math.max(1, (Number($("size").value) / 100) ** 2 * 0.5 * Math.min(picture.width, picture.height)) : 1;
}

/** Bring all that is shown to what is there. */
function refresh() {
  if (!picture) return;
  const before = drawn ?? own, shown = after ?? before;
  stage.show(before, after);
  $("compare").hidden = !after;
  $("refine").disabled = !before;
  $("draw").disabled = !own;
  $("undo").disabled = !undo.length;
  const link = $("download");
  link.toggleAttribute("hidden", !shown);
  link.textContent = after ? "Download the refined mask" : "Download the mask";
  const count = new Array(256).fill(0);
  for (const value of shown ?? []) count[value]++;
  const order = facts.classes.map((_, i) => i).sort((a, b) => count[b] - count[a] || a - b);
  $("legend").replaceChildren(...order.map((i) => entry(i, shown ? count[i] / shown.length : 0)));
  $("picture").setAttribute("role", "img");
  const said = order.filter((i) => count[i]).slice(0, 5).map((i) => `${facts.classes[i]} ${percent(count[i] / shown.length)}`);
  $("picture").setAttribute("aria-label", said.length ? `The picture and its mask: ${said.join(", ")}` : "The picture");
}

function entry(i, share) {
  const item = document.createElement("li"), swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.backgroundColor = `rgb(${facts.palette[i].join(" ")})`;
  const name = Object.assign(document.createElement("span"), { textContent: facts.classes[i], className: "named" });
  const part = Object.assign(document.createElement("span"), { textContent: share ? percent(share) : "–", className: "share" });
  item.classList.toggle("absent", !share);
  item.append(swatch, name, part);
  return item;
}

async function download(event) {
  event.preventDefault();
  const shown = after ?? drawn ?? own, stem = (file.name || "picture").replace(/\.[^.]*$/, "");
  const url = URL.createObjectURL(await png(shown, picture.width, picture.height, facts.png_palette));
  const link = Object.assign(document.createElement("a"), { href: url, download: `${stem}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function split(value) {
  $("split").value = value;
  stage.look({ split: value / 100 });
}

function pointed(c) {
  $("under").textContent = c === null ? "" : (facts.classes[c] ?? "");
}

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function complain(error) {
  say(error.message, "bad");
  refresh();
}

function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function about() {
  const takes = facts.size ? `pictures of ${facts.size[1]}×${facts.size[0]}` : facts.trained
    ? `pictures brought to as many pixels as ${facts.trained[1]}×${facts.trained[0]}` : "pictures of any size";
  return `${facts.classes.length} classes, ${facts.precision}, ${takes}. Made by crispseg ${facts.version}; run by ONNX Runtime Web (Microsoft, MIT licence).`;
}

$("file").addEventListener("change", (event) => {
  if (event.target.files.length) open(event.target.files[0]);
  event.target.value = "";
});
$("another").addEventListener("click", () => $("file").click());
$("refine").addEventListener("click", refine);
$("draw").addEventListener("click", () => draw($("draw").getAttribute("aria-pressed") === "false"));
$("undo").addEventListener("click", () => redrawn(undo.pop()));
$("fill").addEventListener("click", () => {
  undo.push(drawn.slice());
  redrawn(new Uint8Array(drawn.length).fill(Number($("class").value)));
});
$("restart").addEventListener("click", () => {
  undo.push(drawn.slice());
  redrawn(own.slice());
});
$("class").addEventListener("change", () => stage.brush({ value: Number($("class").value) }));
$("size").addEventListener("input", () => stage.brush({ size: brushSize() }));
$("opacity").addEventListener("input", (event) => stage.look({ opacity: event.target.value / 100 }));
$("borders").addEventListener("change", (event) => stage.look({ borders: event.target.checked }));
$("split").addEventListener("input", (event) => stage.look({ split: event.target.value / 100 }));
$("download").addEventListener("click", (event) => download(event).catch(complain));
$("most").addEventListener("change", () => file && open(file));
$("device").addEventListener("change", () => load().then(() => file && open(file)).catch(complain));
addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (pasted) open(pasted);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, () => $("stage").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
