// Resizing as crispseg does it in Python (torch's bilinear, with and without anti-aliasing). A browser's own drawing
// resizes differently from one to the next. Not here: which sizes (worker.js).
//
// Maps are planes of float32 one after the other, row by row: {data, channels, height, width}.

/** How a model trained on pictures of one size sees another: as many pixels, own proportions. */
export function seenSize([height, width], trained) {
  if (!trained) return [height, width];
  const factor = Math.sqrt((trained[0] * trained[1]) / (height * width));
  return [Math.max(1, halfToEven(height * factor)), Math.max(1, halfToEven(width * factor))];
}

/** The map at another size, bilinear. `antialias`: where it shrinks, each new pixel is the mean of those it covers. */
export function resized(map, [height, width], antialias) {
  const taps = antialias ? coveringTaps : nearestTaps;
  const wide = map.width === width ? map : alongRows(map, taps(map.width, width), width);
  return map.height === height ? wide : alongColumns(wide, taps(map.height, height), height);
}

/** For each new pixel: the first old one that counts, and the weights from there on. */
function coveringTaps(from, to) {
  const scale = from / to, support = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let j = first; j < last; j++) weights.push(Math.max(0, 1 - Math.abs((j - centre + 0.5) / support)));
    const total = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => w / total) };
  });
}

function nearestTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const at = Math.max(0, (i + 0.5) * scale - 0.5), first = Math.min(from - 1, Math.floor(at));
    return first === from - 1 ? { first, weights: [1] } : { first, weights: [1 - (at - first), at - first] };
  });
}

function alongRows(map, taps, width) {
  const rows = map.channels * map.height, data = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++) {
    const from = y * map.width;
    for (let x = 0; x < width; x++) {
      const { first, weights } = taps[x];
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += weights[j] * map.data[from + first + j];
      data[y * width + x] = sum;
    }
  }
  return { ...map, data, width };
}

function alongColumns(map, taps, height) {
  const { channels, width } = map, data = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const { first, weights } = taps[y], to = (c * height + y) * width;
      for (let j = 0; j < weights.length; j++) {
        const from = (c * map.height + first + j) * width, weight = weights[j];
        for (let x = 0; x < width; x++) data[to + x] += weight * map.data[from + x];
      }
    }
  }
  return { ...map, data, height };
}

/** Python's round(): a half goes to the even neighbour. */
function halfToEven(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}
