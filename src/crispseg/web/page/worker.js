// The worker: loads the networks and runs them, so that the page stays alive meanwhile. One question at a time.
// Not here: pictures as files, and what is shown of an answer (page.js).

import { certain, largest, refined, softmax } from "./refine.js";
import { resized, seenSize } from "./resize.js";

let facts, ort, device;
const sessions = {};
const answers = { load, predict, refine };
let last = Promise.resolve();
let scores = null; // of the picture seen last: logits, and probabilities once it has been refined

onmessage = ({ data: { id, ask, ...question } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, answer: await answers[ask](question) });
    } catch (error) {
      postMessage({ id, error: inWords(error) });
    }
  });
};

/** Load onnxruntime-web and the network. `on`: "wasm" or "webgpu". */
async function load({ facts: given, on }) {
  facts = given;
  device = on;
  for (const name of Object.keys(sessions)) delete sessions[name];
  const folder = new URL(facts.runtime.folder, import.meta.url).href;
  ort = await import(`${folder}${on === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs"}`);
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
  // Threads need memory that is shared, which a browser gives to a page that is cut off from others by its headers.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  await session("model");
  return { threads: ort.env.wasm.numThreads };
}

/** The mask of a picture, RGBA bytes: what `crispseg predict` says of it. */
async function predict({ rgba, height, width }) {
  const network = await session("model"), started = performance.now();
  scores = null;
  const seen = facts.size ?? seenSize([height, width], facts.trained), x = resized(colours(rgba, height, width), seen, true);
  const images = new ort.Tensor("float32", x.data, [1, 3, ...seen]);
  const out = (await network.run({ images }))[facts.gives];
  if (facts.gives === "mask") {
    const mask = nearest(await out.getData(), seen, [height, width]);
    return { mask, seconds: since(started) };
  }
  const z = resized({ data: await out.getData(), channels: out.dims[1], height: seen[0], width: seen[1] }, [height, width], false);
  const mask = largest(z);
  scores = { ...z, soft: false };
  return { mask, seconds: since(started) };
}

/** The mask, refined. `drawn`: from it alone, as `crispseg.refine`; else as `crispseg predict --refine crispseg`. */
async function refine({ rgba, height, width, mask, drawn }) {
  const network = await session("refiner"), started = performance.now(), of = drawn ? null : scores;
  const { p, present } = of ? { p: of } : certain(mask, height, width);
  if (of && !of.soft) {
    softmax(of);
    of.soft = true;
  }
  if (p.channels < 2) return { mask, seconds: since(started) };
  const found = await refined(p, colours(rgba, height, width), run, facts.refiner);
  return { mask: present ? found.map((i) => present[i]) : found, seconds: since(started) };

  async function run(image, q) {
    const tensor = (map) => new ort.Tensor("float32", map.data, [1, map.channels, map.height, map.width]);
    const out = await network.run({ image: tensor(image), p: tensor(q) });
    const orders = {};
    for (const [name, { dims, data }] of Object.entries(out)) orders[name] = { data, channels: dims[1], height: dims[2], width: dims[3] };
    return orders;
  }
}

async function session(name) {
  if (!sessions[name]) {
    const file = facts[name].file;
    const answer = await fetch(new URL(`${file}?${facts[name].sha256.slice(0, 16)}`, import.meta.url));
    if (!answer.ok) throw new Error(`${file} could not be loaded: the server says ${answer.status}`);
    // The refiner is small, and its masks are to be those of Python: it stays on the processor.
    const on = name === "model" ? device : "wasm";
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), {
      executionProviders: on === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
    });
  }
  return sessions[name];
}

/** Bytes to planes of red, green and blue in [0, 1]; a fourth byte is left out. */
function colours(rgba, height, width) {
  const n = height * width, data = new Float32Array(3 * n);
  for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) data[c * n + i] = rgba[4 * i + c] / 255;
  return { data, channels: 3, height, width };
}

/** A mask at another size: the class of the nearest pixel. */
function nearest(mask, from, to) {
  if (from[0] === to[0] && from[1] === to[1]) return mask.slice();
  const result = new Uint8Array(to[0] * to[1]);
  for (let y = 0, i = 0; y < to[0]; y++) {
    const row = Math.floor(((y + 0.5) * from[0]) / to[0]) * from[1];
    for (let x = 0; x < to[1]; x++, i++) result[i] = mask[row + Math.floor(((x + 0.5) * from[1]) / to[1])];
  }
  return result;
}

function since(started) {
  return (performance.now() - started) / 1000;
}

function inWords(error) {
  const text = typeof error === "number" ? "the runtime ran out of memory" : String(error?.message ?? error);
  if (/memory|allocat|bad_alloc|RangeError/i.test(text)) return "This picture needs more memory than the browser gives. Choose fewer megapixels.";
  return text.replace(/\s+/g, " ").slice(0, 300);
}
