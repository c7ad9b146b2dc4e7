/* Gradient leakage in one file: a client's gradient, what a server may believe, and the climb.
   The same mathematics as the package `gradleak`; tests/book/test_attack.py compares the two. */
"use strict";

const attack = (() => {
  const SIDE = 28, N = SIDE * SIDE, H = 64, K = 10; // pixels, hidden units, classes
  const W1 = 0, B1 = H * N, W2 = B1 + H, B2 = W2 + K * H, P = B2 + K; // places in theta and g

  /** Uniform numbers in [0, 1) from a seed (mulberry32). */
  function uniform(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** The untrained network N - H - K, weights and biases uniform as PyTorch draws them. */
  function network(seed) {
    const next = uniform(seed), theta = new Float64Array(P);
    for (let i = 0; i < P; i++) theta[i] = (2 * next() - 1) / Math.sqrt(i < W2 ? N : H);
    return theta;
  }

  /** What one forward run knows: h = tanh(W1 x + b1), p = softmax(W2 h + b2), and the errors. */
  function forward(theta, x, y) {
    const h = new Float64Array(H), p = new Float64Array(K), d1 = new Float64Array(H);
    for (let j = 0; j < H; j++) {
      let z = theta[B1 + j];
      for (let i = 0, at = W1 + j * N; i < N; i++) z += theta[at + i] * x[i];
      h[j] = Math.tanh(z);
    }
    for (let k = 0; k < K; k++) {
      p[k] = theta[B2 + k];
      for (let j = 0; j < H; j++) p[k] += theta[W2 + k * H + j] * h[j];
    }
    const top = Math.max(...p);
    let sum = 0;
    for (let k = 0; k < K; k++) sum += p[k] = Math.exp(p[k] - top);
    for (let k = 0; k < K; k++) p[k] /= sum;
    const d2 = p.map((v, k) => v - (k === y ? 1 : 0)); // of the cross-entropy, by the outputs
    for (let j = 0; j < H; j++) {
      for (let k = 0; k < K; k++) d1[j] += theta[W2 + k * H + j] * d2[k];
      d1[j] *= 1 - h[j] * h[j];
    }
    return { h, p, d1, d2 };
  }

  /** The gradient of the loss by all weights: d1 x', d1, d2 h', d2. */
  function gradient(theta, x, y, run = forward(theta, x, y)) {
    const g = new Float64Array(P), { h, d1, d2 } = run;
    for (let j = 0; j < H; j++) {
      for (let i = 0, at = W1 + j * N; i < N; i++) g[at + i] = d1[j] * x[i];
      g[B1 + j] = d1[j];
    }
    for (let k = 0; k < K; k++) {
      for (let j = 0; j < H; j++) g[W2 + k * H + j] = d2[k] * h[j];
      g[B2 + k] = d2[k];
    }
    return g;
  }

  /** The slope in x of <r, gradient(x)>, by hand: reverse through the lines of both above. */
  function pulled(theta, x, run, r) {
    const { h, p, d1, d2 } = run, slope = new Float64Array(N);
    const by1 = new Float64Array(H), byH = new Float64Array(H), by2 = new Float64Array(K);
    for (let j = 0; j < H; j++) {
      by1[j] = r[B1 + j];
      for (let i = 0, at = W1 + j * N; i < N; i++) by1[j] += r[at + i] * x[i];
      const bent = by1[j] * (1 - h[j] * h[j]);
      let back = 0;
      for (let k = 0; k < K; k++) {
        back += theta[W2 + k * H + j] * d2[k];
        by2[k] += r[W2 + k * H + j] * h[j] + theta[W2 + k * H + j] * bent;
        byH[j] += r[W2 + k * H + j] * d2[k];
      }
      byH[j] -= 2 * h[j] * back * by1[j];
    }
    let mean = 0;
    for (let k = 0; k < K; k++) mean += p[k] * (by2[k] += r[B2 + k]);
    for (let j = 0; j < H; j++) {
      for (let k = 0; k < K; k++) byH[j] += theta[W2 + k * H + j] * p[k] * (by2[k] - mean);
      const byZ = byH[j] * (1 - h[j] * h[j]);
      for (let i = 0, at = W1 + j * N; i < N; i++) slope[i] += r[at + i] * d1[j] + theta[at + i] * byZ;
    }
    return slope;
  }

  /** Unit noise of a law and the share below which an entry is hidden: drawn once for a seed. */
  function draws(seed, law) {
    const next = uniform(seed), noise = new Float64Array(P), rank = new Float64Array(P);
    for (let i = 0; i < P; i++) {
      rank[i] = next();
      const far = -Math.log(1 - next()), turn = next();
      if (law === "laplace") noise[i] = turn < 0.5 ? far : -far;
      else noise[i] = Math.sqrt(2 * far) * Math.cos(2 * Math.PI * turn);
    }
    return { noise, rank };
  }

  /** What the client sends: a share of the entries set to zero, noise on all. */
  function release(gradient, drawn, scale, hidden) {
    return gradient.map((v, i) => (drawn.rank[i] < hidden ? 0 : v) + scale * drawn.noise[i]);
  }

  const LOG2PI = Math.log(2 * Math.PI);
  const density = {
    gaussian: (e, s) => [-0.5 * (e / s) ** 2 - Math.log(s) - 0.5 * LOG2PI, e / (s * s)],
    laplace: (e, s) => [-Math.abs(e) / s - Math.log(2 * s), Math.sign(e) / s],
  };

  /** log p(g | v) of a belief, and in r its slope by v. what: law, scale, hidden, rank, belief. */
  function likelihood(what, g, v, r) {
    const { scale, hidden, rank, belief } = what;
    if (belief === "cosine") {
      let gv = 0, gg = 0, vv = 0;
      for (let i = 0; i < P; i++) (gv += g[i] * v[i]), (gg += g[i] * g[i]), (vv += v[i] * v[i]);
      const size = Math.sqrt(gg * vv), c = 3000 / scale;
      for (let i = 0; i < P; i++) r[i] = (c * (g[i] - (gv / vv) * v[i])) / size;
      return (c * gv) / size;
    }
    const law = density[{ l2: "gaussian", l1: "laplace" }[belief] || what.law];
    let total = 0;
    for (let i = 0; i < P; i++) {
      if (belief === "bayes" && rank[i] < hidden) {
        total += law(g[i], scale)[0];
        r[i] = 0;
      } else if (belief === "unknown" && hidden > 0) {
        const [kept, slope] = law(g[i] - v[i], scale), [zero] = law(g[i], scale);
        const a = Math.log(1 - hidden) + kept, b = Math.log(hidden) + zero, top = Math.max(a, b);
        const sum = top + Math.log(Math.exp(a - top) + Math.exp(b - top));
        total += sum;
        r[i] = Math.exp(a - sum) * slope;
      } else {
        const [value, slope] = law(g[i] - v[i], scale);
        total += value;
        r[i] = slope;
      }
    }
    return total;
  }

  /** Total variation: log p(x) = -weight sum |difference of neighbours|; adds its slope. */
  function variation(x, weight, slope) {
    let total = 0;
    const pair = (i, j) => {
      total += Math.abs(x[j] - x[i]);
      const s = weight * Math.sign(x[j] - x[i]);
      slope[i] += s;
      slope[j] -= s;
    };
    for (let i = 0; i < N; i++) {
      if ((i + 1) % SIDE) pair(i, i + 1);
      if (i + SIDE < N) pair(i, i + SIDE);
    }
    return -weight * total;
  }

  /** log p(g | x, y) + log p(x) and its slope in x. */
  function posterior(theta, y, g, what, weight, x) {
    const run = forward(theta, x, y), r = new Float64Array(P);
    const fits = likelihood(what, g, gradient(theta, x, y, run), r);
    const slope = pulled(theta, x, run, r);
    return { value: fits + variation(x, weight, slope), slope };
  }

  /** A climb by signed Adam, whose rate falls from 0.1 to 0.005: call it for one more step. */
  function climb(f, steps, seed) {
    const next = uniform(seed), x = Float64Array.from({ length: N }, next);
    const m = new Float64Array(N), v = new Float64Array(N);
    const at = { x, step: 0, steps };
    at.advance = () => {
      const { slope } = f(x), t = ++at.step, rate = 0.1 * 0.05 ** ((t - 1) / steps);
      for (let i = 0; i < N; i++) {
        const s = Math.sign(slope[i]);
        m[i] = 0.9 * m[i] + 0.1 * s;
        v[i] = 0.999 * v[i] + 0.001 * s * s;
        x[i] += (rate * m[i]) / (1 - 0.9 ** t) / (Math.sqrt(v[i] / (1 - 0.999 ** t)) + 1e-12);
      }
    };
    return at;
  }

  /** PSNR in dB of an answer, clipped to [0, 1]. */
  function psnr(found, x) {
    let error = 0;
    for (let i = 0; i < N; i++) error += (Math.min(1, Math.max(0, found[i])) - x[i]) ** 2;
    return -10 * Math.log10(error / N);
  }

  return { SIDE, N, H, K, P, network, gradient, draws, release, posterior, climb, psnr };
})();
