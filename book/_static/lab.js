/* The live page: a picture is drawn, its gradient sent, and two attackers read it as you watch.
   Nothing leaves the page. The mathematics is in attack.js. */
"use strict";

(() => {
  const place = document.getElementById("lab");
  if (!place) return;
  const { SIDE, N, H, K } = attack, STEPS = 100;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // Digits as strokes of a pen: "x,y x,y ..." in pixels.
  const DIGITS = [
    "14,5 10,7 8,12 8,16 10,21 14,23 18,21 20,16 20,12 18,7 14,5",
    "10,9 14,5 14,23",
    "9,9 11,6 15,5 18,7 18,11 14,16 9,22 19,22",
    "9,7 13,5 17,6 18,9 16,12 13,13 17,15 18,19 15,22 11,23 8,21",
    "16,23 16,5 8,17 20,17",
    "18,5 10,5 9,13 14,12 18,14 18,19 15,22 11,23 8,21",
    "17,5 12,8 9,14 9,19 12,23 16,22 18,18 16,15 12,15 9,18",
    "8,6 19,6 15,14 12,23",
    "14,13 10,10 10,7 14,5 18,7 18,10 14,13 9,17 9,21 14,23 19,21 19,17 14,13",
    "18,10 15,13 11,12 9,9 11,6 15,5 18,8 17,16 14,23",
  ];
  const LAWS = { gaussian: "Gaussian", laplace: "Laplace" };
  const RIVALS = {
    l2: "L2: Gaussian noise, nothing hidden",
    l1: "L1: Laplace noise, nothing hidden",
    cosine: "cosine: only the direction",
    unknown: "Bayes, but not which entries are hidden",
  };
  const SHORT = { l2: "L2", l1: "L1", cosine: "Cosine", unknown: "Bayes, mask unknown" };
  const start = {
    digit: 3, drawn: "", noise: 0.03, hidden: 0.5, law: "gaussian", rival: "l2", prior: 4, seed: 1,
  };
  const state = { ...start, ...read(location.hash) };

  /** The state that an address tells, as far as it can be one. */
  function read(hash) {
    const told = {}, given = new URLSearchParams(hash.replace(/^#/, ""));
    const number = (name, low, high, whole) => {
      const v = Number(given.get(name));
      if (given.has(name) && v >= low && v <= high && (!whole || Number.isInteger(v))) told[name] = v;
    };
    number("digit", 0, K - 1, true);
    number("noise", 1e-4, 1);
    number("hidden", 0, 0.95);
    number("prior", 0.01, 100);
    number("seed", 1, 1e9, true);
    if (given.get("law") in LAWS) told.law = given.get("law");
    if (given.get("rival") in RIVALS) told.rival = given.get("rival");
    const drawn = (given.get("drawn") || "").slice(0, 20000), point = /^(\d+(\.\d+)?,\d+(\.\d+)?)?$/;
    if (drawn.split(/[ ;]/).every((p) => point.test(p))) told.drawn = drawn;
    return told;
  }

  function write() {
    const changed = Object.entries(state).filter(([k, v]) => v !== start[k]);
    const text = new URLSearchParams(changed).toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function element(kind, properties, ...children) {
    const made = Object.assign(document.createElement(kind), properties);
    made.append(...children);
    return made;
  }

  function panel(name, side) {
    const canvas = element("canvas", { width: side, height: side });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    const label = element("figcaption", { textContent: name });
    return { canvas, label, figure: element("figure", {}, canvas, label) };
  }

  function slider(name, key, low, high, show) {
    const log = low > 0, to = log ? Math.log10 : Number, back = log ? (v) => 10 ** v : Number;
    const bounds = { min: to(low), max: to(high), step: 0.01, value: to(state[key]) };
    const input = element("input", { type: "range", ...bounds }), told = element("output");
    const set = () => {
      told.textContent = show(state[key]);
      input.setAttribute("aria-valuetext", told.textContent);
    };
    input.addEventListener("input", () => {
      state[key] = Number(back(input.value).toPrecision(3));
      set();
      restart();
    });
    set();
    return element("label", {}, name, input, told);
  }

  function menu(name, options, value, choose) {
    const select = element("select");
    for (const key in options) select.append(new Option(options[key], key, false, key === String(value)));
    select.addEventListener("change", () => choose(select.value));
    return element("label", {}, name, select);
  }

  function button(name, press) {
    const made = element("button", { type: "button", textContent: name });
    made.addEventListener("click", press);
    return made;
  }

  const mine = panel("Your picture. Draw here", SIDE * 10);
  const sent = panel("What is sent", 8 * SIDE);
  const bayes = panel("Bayes", SIDE), rival = panel("", SIDE);
  const digits = Object.fromEntries(DIGITS.map((_, k) => [k, String(k)]));
  const status = element("p", { className: "lab-status" });
  status.setAttribute("role", "status");
  place.replaceChildren(
    element("div", { className: "lab-pictures" }, mine.figure, sent.figure, bayes.figure, rival.figure),
    status,
    element("div", { className: "lab-controls" },
      menu("Take a digit", digits, state.digit, (v) => take(Number(v))),
      slider("Noise", "noise", 1e-4, 1, (v) => v.toPrecision(2)),
      slider("Hidden", "hidden", 0, 0.95, (v) => `${Math.round(100 * v)} %`),
      menu("Law of the noise", LAWS, state.law, (v) => set("law", v)),
      menu("The other attacker believes", RIVALS, state.rival, (v) => set("rival", v)),
      slider("Prior's weight", "prior", 0.01, 100, (v) => v.toPrecision(2)),
      button("New noise", () => set("seed", state.seed + 1)),
      button("Clear the picture", () => draw(" "))),
  );
  mine.canvas.tabIndex = 0;
  mine.canvas.setAttribute("role", "application");
  mine.canvas.setAttribute("aria-label",
    "Your picture. Draw by mouse or touch, or with the arrow keys; the space bar lifts the pen or puts it down.");

  function set(key, value) {
    state[key] = value;
    restart();
  }

  function take(digit) {
    Object.assign(state, { digit, drawn: "" });
    restart();
  }

  function draw(strokes) {
    state.drawn = strokes;
    restart();
  }

  /** The picture of strokes, (N,) in [0, 1]: as bright as the pen is near. */
  function picture() {
    const x = new Float64Array(N);
    for (const stroke of (state.drawn || DIGITS[state.digit]).split(";")) {
      const points = stroke.trim().split(" ").filter(Boolean).map((p) => p.split(",").map(Number));
      points.forEach(([ax, ay], k) => {
        const [bx, by] = points[k + 1] || [ax, ay];
        const length = (bx - ax) ** 2 + (by - ay) ** 2 || 1;
        for (let i = 0; i < N; i++) {
          const px = (i % SIDE) + 0.5, py = Math.floor(i / SIDE) + 0.5;
          const t = Math.min(1, Math.max(0, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length));
          const far = Math.hypot(px - ax - t * (bx - ax), py - ay - t * (by - ay));
          x[i] = Math.max(x[i], Math.min(1, Math.max(0, 1.9 - far)));
        }
      });
    }
    return x;
  }

  function paint(canvas, values, side, scale = 1, middle = 0) {
    const context = canvas.getContext("2d"), shown = context.createImageData(side, side);
    values.forEach((v, i) => {
      const grey = 255 * (middle + v * scale);
      shown.data.set([grey, grey, grey, 255], 4 * i); // clamped
    });
    if (canvas.width === side) return context.putImageData(shown, 0, 0);
    const small = element("canvas", { width: side, height: side });
    small.getContext("2d").putImageData(shown, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  /** The first layer's gradient: a tile for each hidden unit, each a number times the picture. */
  function tiles(g) {
    const side = 8 * SIDE, shown = new Float64Array(side * side);
    let power = 0;
    for (let i = 0; i < H * N; i++) power += g[i] * g[i];
    for (let j = 0; j < H; j++)
      for (let i = 0; i < N; i++) {
        const row = Math.floor(j / 8) * SIDE + Math.floor(i / SIDE);
        shown[row * side + (j % 8) * SIDE + (i % SIDE)] = g[j * N + i];
      }
    paint(sent.canvas, shown, side, 0.18 / Math.sqrt(power / (H * N)), 0.5);
  }

  const theta = attack.network(1);
  let work = null, asked = false, seen = true, luck = {};

  /** Send the gradient again and begin both attacks anew. */
  function restart() {
    write();
    const x = picture(), { noise, hidden, law, seed, digit } = state;
    if (luck.of !== `${law} ${seed}`) luck = { of: `${law} ${seed}`, ...attack.draws(seed, law) };
    const drawn = luck;
    const g = attack.release(attack.gradient(theta, x, digit), drawn, noise, hidden);
    const begin = (belief) => {
      const what = { law, belief, scale: noise, hidden, rank: drawn.rank };
      const f = (at) => attack.posterior(theta, digit, g, what, state.prior, at);
      return attack.climb(f, STEPS, seed);
    };
    paintMine(x);
    tiles(g);
    work = { x, climbs: [begin("bayes"), begin(state.rival)] };
    place.dataset.done = "false";
    proceed();
  }

  function proceed() {
    if (asked || !work || document.hidden || !seen) return;
    asked = true;
    (calm.matches ? setTimeout : requestAnimationFrame)(() => {
      asked = false;
      const until = performance.now() + 24, { x, climbs } = work;
      while (climbs[0].step < STEPS && performance.now() < until) climbs.forEach((c) => c.advance());
      const done = climbs[0].step >= STEPS;
      if (done || !calm.matches) show(x, climbs, done);
      if (done) work = null;
      else proceed();
    });
  }

  function show(x, climbs, done) {
    const names = ["Bayes", SHORT[state.rival]];
    const told = climbs.map((climb, k) => {
      const at = [bayes, rival][k], db = attack.psnr(climb.x, x);
      paint(at.canvas, climb.x, SIDE);
      at.label.textContent = `${names[k]}: ${db.toFixed(1)} dB`;
      at.canvas.setAttribute("aria-label", `What ${names[k]} found`);
      return at.label.textContent;
    });
    if (!done) return;
    place.dataset.done = "true";
    const black = attack.psnr(new Float64Array(N), x).toFixed(1);
    const numbers = attack.P.toLocaleString("en");
    status.textContent = `${numbers} numbers were sent. ${told.join(", ")}; a black picture: ${black} dB.`;
  }

  // Drawing, by pointer and by keys.
  let pen = null, at = [14, 14], down = false;
  const where = (event) => {
    const box = mine.canvas.getBoundingClientRect();
    const scaled = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return scaled.map((v) => (SIDE * Math.min(1, Math.max(0, v))).toFixed(1)).join(",");
  };
  const add = (text, fresh) => {
    const before = state.drawn.trim();
    draw(fresh && before ? `${before};${text}` : `${before} ${text}`.trim());
  };
  mine.canvas.addEventListener("pointerdown", (event) => {
    mine.canvas.setPointerCapture(event.pointerId);
    pen = event.pointerId;
    add(where(event), true);
  });
  mine.canvas.addEventListener("pointermove", (event) => pen === event.pointerId && add(where(event)));
  for (const end of ["pointerup", "pointercancel"]) mine.canvas.addEventListener(end, () => (pen = null));
  mine.canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (event.key === " ") down = !down;
    else at = at.map((v, k) => Math.min(SIDE - 1, Math.max(1, v + step[k])));
    if (down) add(at.join(","), event.key === " ");
    else restart();
  });
  for (const change of ["focus", "blur"]) mine.canvas.addEventListener(change, () => paintMine());

  function paintMine(x = picture()) {
    paint(mine.canvas, x, SIDE);
    cursor();
  }

  function cursor() {
    if (document.activeElement !== mine.canvas || pen !== null) return;
    const context = mine.canvas.getContext("2d");
    context.strokeStyle = down ? "#e69f00" : "#56b4e9";
    context.lineWidth = 3;
    context.strokeRect(10 * at[0] - 10, 10 * at[1] - 10, 20, 20);
  }

  document.addEventListener("visibilitychange", proceed);
  new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    proceed();
  }).observe(place);
  restart();
})();
