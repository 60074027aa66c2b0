// The learned refiner, step by step as crispseg.refinement.learned does it in Python: which pixels may change, tiles, what
// goes back. Not here: its network (refiner.onnx), running that (worker.js), how evidence moves (settle.js).
//
// p: probabilities, {data, channels, height, width}, planes of float32; image: the same with 3 channels, in [0, 1].

import { settled } from "./settle.js";

/**
 * The classes of p once the picture has been looked at, a byte a pixel.
 * `network(image, p)` answers with its orders, maps by name; `facts`: of model.json.
 */
export async function refined(p, image, network, facts) {
  const { height, width } = p, before = largest(p), band = nearBorders(before, height, width, facts.reach);
  const after = before.slice(), side = facts.tile;
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side) {
      const core = { top, left, bottom: Math.min(top + side, height), right: Math.min(left + side, width) };
      if (!any(band, width, core)) continue;
      const seen = {
        top: Math.max(0, top - facts.margin), bottom: Math.min(height, core.bottom + facts.margin),
        left: Math.max(0, left - facts.margin), right: Math.min(width, core.right + facts.margin),
      };
      const q = cut(p, seen, facts.multiple);
      const orders = await network(cut(image, seen, facts.multiple), q);
      const classes = largest(settled(q, cutBand(band, width, seen, facts.multiple), orders, facts));
      for (let y = core.top; y < core.bottom; y++) {
        const from = (y - seen.top) * q.width + core.left - seen.left;
        after.set(classes.subarray(from, from + core.right - core.left), y * width + core.left);
      }
    }
  }
  withoutIslands(before, after, height, width);
  return after;
}

/** The first class of the largest value, at each pixel. */
export function largest({ data, channels, height, width }) {
  const n = height * width, best = data.slice(0, n), mask = new Uint8Array(n);
  for (let c = 1; c < channels; c++) {
    const from = c * n;
    for (let i = 0; i < n; i++) {
      if (data[from + i] > best[i]) { best[i] = data[from + i]; mask[i] = c; }
    }
  }
  return mask;
}

/** Softmax over the channels, in place. */
export function softmax({ data, channels, height, width }) {
  const n = height * width;
  for (let i = 0; i < n; i++) {
    let most = -Infinity, sum = 0;
    for (let c = 0; c < channels; c++) most = Math.max(most, data[c * n + i]);
    for (let c = 0; c < channels; c++) sum += data[c * n + i] = Math.exp(data[c * n + i] - most);
    for (let c = 0; c < channels; c++) data[c * n + i] /= sum;
  }
}

/** A mask as probabilities of the classes that it has: {p, present}, the class at each channel. */
export function certain(mask, height, width) {
  const present = [...new Set(mask)].sort((a, b) => a - b), place = new Uint8Array(256), n = mask.length;
  present.forEach((c, i) => { place[c] = i; });
  const data = new Float32Array(present.length * n);
  for (let i = 0; i < n; i++) data[place[mask[i]] * n + i] = 1;
  return { p: { data, channels: present.length, height, width }, present };
}

/** 1 within `reach` px, in the maximum norm, of a pixel that touches another class. */
function nearBorders(mask, height, width, reach) {
  const edge = new Uint8Array(mask.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (x + 1 < width && mask[i] !== mask[i + 1]) edge[i] = edge[i + 1] = 1;
      if (y + 1 < height && mask[i] !== mask[i + width]) edge[i] = edge[i + width] = 1;
    }
  }
  return spread(spread(edge, height, width, width, 1, reach), width, height, 1, width, reach);
}

/** Widen what is 1 by `reach` along lines of `length` pixels `step` apart; there are `lines`, `next` apart. */
function spread(map, lines, length, next, step, reach) {
  const wide = new Uint8Array(map.length);
  for (let line = 0; line < lines; line++) {
    let until = -1;
    for (let i = -reach; i < length; i++) {
      if (i + reach < length && map[line * next + (i + reach) * step]) until = i + 2 * reach;
      if (i >= 0 && i <= until) wide[line * next + i * step] = 1;
    }
  }
  return wide;
}

function any(band, width, { top, left, bottom, right }) {
  for (let y = top; y < bottom; y++) if (band.subarray(y * width + left, y * width + right).includes(1)) return true;
  return false;
}

/** A window of a map, its sides brought to a multiple by repeating the last row and column. */
function cut(map, { top, left, bottom, right }, multiple) {
  const h = bottom - top, w = right - left, height = raised(h, multiple), width = raised(w, multiple);
  const data = new Float32Array(map.channels * height * width);
  for (let c = 0; c < map.channels; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * map.height + top + Math.min(y, h - 1)) * map.width + left, to = (c * height + y) * width;
      data.set(map.data.subarray(from, from + w), to);
      data.fill(data[to + w - 1], to + w, to + width);
    }
  }
  return { data, channels: map.channels, height, width };
}

function cutBand(band, width, { top, left, bottom, right }, multiple) {
  const w = right - left, wide = raised(w, multiple), data = new Uint8Array(raised(bottom - top, multiple) * wide);
  for (let y = top; y < bottom; y++) data.set(band.subarray(y * width + left, y * width + right), (y - top) * wide);
  return data;
}

function raised(side, multiple) {
  return Math.ceil(side / multiple) * multiple;
}

/** Undo, in `after`, each piece of one class (over the eight neighbours) that is new as a whole: speckle, mostly. */
function withoutIslands(before, after, height, width) {
  const done = new Uint8Array(after.length);
  for (let start = 0; start < after.length; start++) {
    if (done[start] || before[start] === after[start]) continue;
    const piece = [start], c = after[start];
    let held = false;
    done[start] = 1;
    for (let k = 0; k < piece.length; k++) {
      const y = Math.floor(piece[k] / width), x = piece[k] % width;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const i = v * width + u;
          if (after[i] !== c || done[i]) continue;
          if (before[i] === c) held = true;
          else { done[i] = 1; piece.push(i); }
        }
      }
    }
    if (!held) for (const i of piece) done[i] = 2;
  }
  for (let i = 0; i < after.length; i++) if (done[i] === 2) after[i] = before[i];
}
