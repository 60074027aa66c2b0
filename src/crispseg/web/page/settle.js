// How evidence moves between pixels, once the refiner's network has said what to do: crispseg.refinement.propagation and
// network.settle, after
//
//     p_k(i) ∝ π_k(i)^β · L_k(i)^γ,     L_k(i) = (Σ_j S(v_i, v_j) p_k(j) + ε s̄) / (Σ_j p_k(j) + ε)
//
// on a grid of stride 4 and then at full size, there at the pixels alone that may change and are not sure yet.
// Not here: the network (refiner.onnx), tiles and bands (refine.js).
//
// Maps are {data, channels, height, width}, planes of float32. Inside, the numbers of a pixel lie side by side.

const TINY = 1e-6;

/** Means over squares of `stride` × `stride` pixels: p on the coarse grid. */
function pooled(p, stride) {
  const height = p.height / stride, width = p.width / stride, data = new Float32Array(p.channels * height * width);
  for (let c = 0; c < p.channels; c++) {
    for (let y = 0; y < p.height; y++) {
      const from = (c * p.height + y) * p.width, to = (c * height + Math.floor(y / stride)) * width;
      for (let x = 0; x < p.width; x++) data[to + Math.floor(x / stride)] += p.data[from + x] / (stride * stride);
    }
  }
  return { data, channels: p.channels, height, width };
}

/**
 * The refined p of a window. `band`: a byte a pixel, whether it may change; `orders`: the network's answers by name;
 * `facts`: stride, coarse and fine (radius and dilation of each step), epsilons, floor, sure.
 */
export function settled(p, band, orders, facts) {
  const { channels: K, height, width } = p, n = height * width, P = pooled(p, facts.stride);
  const prior = boxMean(P, 1);
  const Q = coarseSteps(P, prior, orders, facts);
  const result = p.data.slice(), mix = orders.fine_mix.data, active = [];
  const big = enlarger(P.height, P.width, facts.stride);
  for (let i = 0; i < n; i++) {
    if (!band[i]) continue;
    const at = big(Math.floor(i / width), i % width);
    let most = 0;
    for (let k = 0; k < K; k++) {
      const value = p.data[k * n + i] * mix[i] + at(prior.data, k) * mix[n + i] + at(Q.data, k) * mix[2 * n + i];
      result[k * n + i] = value;
      most = Math.max(most, result[k * n + i]);
    }
    if (most < Math.fround(facts.sure)) active.push(i);
  }
  if (active.length) fineSteps(result, Int32Array.from(active), K, height, width, orders, facts);
  return { data: result, channels: K, height, width };
}

function coarseSteps(P, prior, orders, facts) {
  const { channels: K, height, width } = P, n = height * width, far = boxMean(P, 4), mix = orders.coarse_mix.data;
  let x = new Float32Array(n * K);
  for (let k = 0; k < K; k++) {
    for (let i = 0; i < n; i++) {
      const j = k * n + i;
      x[i * K + k] = P.data[j] * mix[i] + prior.data[j] * mix[n + i] + far.data[j] * mix[2 * n + i];
    }
  }
  const all = Int32Array.from({ length: n }, (_, i) => i), logs = x.map((value) => Math.log(value + facts.floor));
  const v = sideBySide(orders.coarse_v), trust = orders.coarse_trust.data, steps = facts.coarse.length;
  facts.coarse.forEach((reach, s) => {
    x = step(all, (i) => i, x, logs, v, (i) => [trust[s * n + i], trust[(steps + s) * n + i]], facts.epsilons[s], reach, K, height, width);
  });
  const data = new Float32Array(K * n);
  for (let i = 0; i < n; i++) for (let k = 0; k < K; k++) data[k * n + i] = x[i * K + k];
  return { data, channels: K, height, width };
}

/** The steps at the active pixels, in place; all others are seen as they are. */
function fineSteps(p, active, K, height, width, orders, facts) {
  const n = height * width, steps = facts.fine.length, trust = orders.fine_trust.data;
  const far = Math.max(...facts.fine.map(([radius, dilation]) => radius * dilation));
  const row = new Int32Array(n).fill(-1), seen = []; // the pixels that any step looks at, gathered
  for (const i of active) {
    const y = Math.floor(i / width), x = i % width;
    for (let v = Math.max(0, y - far); v <= Math.min(height - 1, y + far); v++) {
      for (let u = Math.max(0, x - far); u <= Math.min(width - 1, x + far); u++) {
        const j = v * width + u;
        if (row[j] < 0) row[j] = seen.push(j) - 1;
      }
    }
  }
  const rows = new Float32Array(seen.length * K), D = orders.fine_v.channels, v = new Float32Array(seen.length * D);
  seen.forEach((j, r) => {
    for (let k = 0; k < K; k++) rows[r * K + k] = p[k * n + j];
    for (let d = 0; d < D; d++) v[r * D + d] = orders.fine_v.data[d * n + j];
  });
  const logs = new Float32Array(active.length * K);
  active.forEach((i, a) => {
    for (let k = 0; k < K; k++) logs[a * K + k] = Math.log(rows[row[i] * K + k] + facts.floor);
  });
  facts.fine.forEach((reach, s) => {
    const epsilon = facts.epsilons[facts.coarse.length + s];
    const moved = step(active, (i) => row[i], rows, logs, { data: v, channels: D },
      (i) => [trust[s * n + i], trust[(steps + s) * n + i]], epsilon, reach, K, height, width);
    active.forEach((i, a) => {
      for (let k = 0; k < K; k++) rows[row[i] * K + k] = moved[a * K + k];
    });
  });
  active.forEach((i) => {
    for (let k = 0; k < K; k++) p[k * n + i] = rows[row[i] * K + k];
  });
}

/**
 * One step at the given pixels, (pixels, K). `place`: pixel to row of x (rows, K) and v (rows, D); `logs`: log π, one row a
 * pixel; `trust(pixel)`: β and γ; borders are repeated.
 */
function step(pixels, place, x, logs, { data: v, channels: D }, trust, epsilon, [radius, dilation], K, height, width) {
  const result = new Float32Array(pixels.length * K), alike = new Float64Array(K), there = new Float64Array(K);
  const taps = (2 * radius + 1) ** 2;
  for (let a = 0; a < pixels.length; a++) {
    const i = pixels[a], y = Math.floor(i / width), left = i % width, own = place(i) * D;
    let total = 0;
    alike.fill(0);
    there.fill(0);
    for (let dy = -radius; dy <= radius; dy++) {
      const line = Math.max(0, Math.min(height - 1, y + dy * dilation)) * width;
      for (let dx = -radius; dx <= radius; dx++) {
        const r = place(line + Math.max(0, Math.min(width - 1, left + dx * dilation)));
        let distance = 0;
        for (let d = 0; d < D; d++) distance += (v[r * D + d] - v[own + d]) ** 2;
        const S = Math.exp(-distance / 2);
        total += S;
        for (let k = 0; k < K; k++) {
          const q = x[r * K + k];
          alike[k] += S * q;
          there[k] += q;
        }
      }
    }
    const [beta, gamma] = trust(i), absent = (epsilon * total) / taps + TINY;
    let most = -Infinity, sum = 0;
    for (let k = 0; k < K; k++) {
      const L = (alike[k] + absent) / (there[k] + epsilon + TINY);
      alike[k] = beta * logs[a * K + k] + gamma * Math.log(L);
      most = Math.max(most, alike[k]);
    }
    for (let k = 0; k < K; k++) sum += alike[k] = Math.exp(alike[k] - most);
    for (let k = 0; k < K; k++) result[a * K + k] = alike[k] / sum;
  }
  return result;
}

/** Mean over the (2r + 1)² cells around each one, of those that there are. */
function boxMean(map, radius) {
  const { channels, height, width } = map, data = new Float32Array(map.data.length), row = new Float64Array(width);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const top = Math.max(0, y - radius), bottom = Math.min(height, y + radius + 1);
      row.fill(0);
      for (let v = top; v < bottom; v++) {
        const from = (c * height + v) * width;
        for (let x = 0; x < width; x++) row[x] += map.data[from + x];
      }
      for (let x = 0; x < width; x++) {
        const left = Math.max(0, x - radius), right = Math.min(width, x + radius + 1);
        let sum = 0;
        for (let u = left; u < right; u++) sum += row[u];
        data[(c * height + y) * width + x] = sum / ((bottom - top) * (right - left));
      }
    }
  }
  return { ...map, data };
}

/** For a pixel of full size, what reads a channel of a coarse map there, bilinear. */
function enlarger(height, width, stride) {
  const along = (i, length) => {
    const at = Math.max(0, (i + 0.5) / stride - 0.5), first = Math.min(length - 1, Math.floor(at));
    return [first, Math.min(length - 1, first + 1), at - first];
  };
  return (y, x) => {
    const [y0, y1, b] = along(y, height), [x0, x1, a] = along(x, width);
    return (data, k) => {
      const top = (k * height + y0) * width, bottom = (k * height + y1) * width;
      return (1 - b) * ((1 - a) * data[top + x0] + a * data[top + x1]) + b * ((1 - a) * data[bottom + x0] + a * data[bottom + x1]);
    };
  };
}

function sideBySide({ data, channels, height, width }) {
  const n = height * width, result = new Float32Array(data.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < n; i++) result[i * channels + c] = data[c * n + i];
  return { data: result, channels };
}
