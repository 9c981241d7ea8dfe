// The interactive figure of difficulty weights: uqlib/explorer.py writes the difficulties into the page, this file does the rest.
// Temperature, normaliser and strength make a weight of each difficulty, and the weight a confidence that is optimal under the loss.
(function () {
  "use strict";

  // ---- Numbers: those of uqlib.difficulty and uqlib.losses, held against them by tests/test_explorer.py ----

  const LEVELS = 65535, C = 1e-3; // steps of a difficulty from the easiest to the hardest; the constant of the weights

  const NORMALISERS = {
    minmax: ["min–max", (d, all) => (d - all.low) / (all.high - all.low)],
    zscore: ["z-score", (d, all) => (d - all.mean) / all.deviation],
    raw: ["raw", (d) => d],
    clipped: ["99.9 % quantile", (d, all) => Math.min(1, (d - all.low) / (all.most - all.low))],
  };

  /** Difficulties, hardest first, and of how many images each speaks: itself, or its share of the easier ones. */
  function decode(data) {
    const bytes = Uint8Array.from(atob(data.difficulty), (letter) => letter.charCodeAt(0));
    const codes = new Uint16Array(bytes.buffer), { low, high } = data.all, span = (high - low) / LEVELS;
    const strata = codes.length - data.alone, others = data.images - data.alone;
    const edge = (k) => Math.floor(others * k / strata);
    return {
      ...data,
      difficulty: Float64Array.from(codes, (code) => low + code * span),
      copies: Array.from(codes, (_, k) => (k < data.alone ? 1 : edge(k - data.alone + 1) - edge(k - data.alone))),
    };
  }

  /** The weight of a difficulty. The largest exponent is taken out, so nothing overflows. */
  function weigher({ all }, temperature, normaliser) {
    const normalised = NORMALISERS[normaliser][1], top = normalised(all.high, all);
    const whole = 1 + C * Math.exp(-top / temperature);
    return (difficulty) => Math.exp((normalised(difficulty, all) - top) / temperature) / whole;
  }

  /**
   * The confidence p in the true class that minimises -log p - strength * entropy: log(p (K - 1) / (1 - p)) = 1 / (strength p).
   * In z, the logit of the true class over the others, that is z = (1 + (K - 1) exp(-z)) / strength. The difference of
   * the sides rises in z and is concave: there is one solution, and Newton comes to it from the left.
   */
  function optimal(strength, classes) {
    const others = (z) => (classes - 1) * Math.exp(-z);
    let z = 1 / strength;
    if (others(z) === 0) return 1; // cross entropy alone, or so nearly that doubles cannot tell
    for (let step = Infinity; step > 1e-12 * z;) {
      const rest = others(z);
      step = ((1 + rest) / strength - z) / (1 + rest / strength);
      z += step;
    }
    return 1 / (1 + others(z));
  }

  /** All numbers of the figure, as fractions, and the two curves as functions of the difficulty. */
  function measure(data, temperature, alpha, normaliser) {
    const weight = weigher(data, temperature, normaliser), best = (difficulty) => optimal(alpha * weight(difficulty), data.classes);
    const mean = (of) => data.difficulty.reduce((sum, d, k) => sum + data.copies[k] * of(d), 0) / data.images;
    const average = mean(weight);
    return {
      weight, best,
      mean: average,
      strength: alpha * average,
      heavy: mean((d) => weight(d) > 0.5),
      confidence: mean(best),
      hardest: best(data.all.high),
      easiest: best(data.all.low),
      constant: optimal(alpha * average, data.classes),
    };
  }

  if (typeof module !== "undefined") module.exports = { decode, measure, optimal, NORMALISERS };
  if (typeof document === "undefined") return;

  // ---- Drawing ----

  const LEFT = 36, TOP = 26, WIDTH = 296, HEIGHT = 180; // of the plots, in a view box of 340 x 242
  const svg = (name, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const across = (share) => LEFT + share * WIDTH, up = (share) => TOP + (1 - share) * HEIGHT;
  const many = (number) => number.toLocaleString("en");
  const percent = (share) => (100 * share).toFixed(share > 0.99 ? 2 : 1);
  const small = (number) => (number === 0 ? "0" : number < 0.0005 ? "< 0.001" : number.toFixed(3));

  /** Round numbers within [low, high], four to eight of them. */
  function roundNumbers(low, high) {
    const power = 10 ** Math.floor(Math.log10((high - low) / 4));
    const step = [5, 2, 1].map((each) => each * power).find((each) => (high - low) / each >= 4);
    const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: count }, (_, k) => +((first + k) * step).toPrecision(6));
  }

  /** A plot over the difficulty, with the images as grey bars behind it; `vertical` draws the other axis anew. */
  function panel(parent, title, data) {
    const { low, high } = data.all;
    const root = svg("svg", { viewBox: "0 0 340 242", role: "img", "aria-label": title }, parent);
    const bars = svg("path", { class: "ex-bars" }, root), grid = svg("g", {}, root), plot = svg("g", {}, root);
    svg("text", { x: LEFT, y: 13, class: "ex-title" }, root, title);
    svg("text", { x: across(0.5), y: 238, "text-anchor": "middle" }, root, `difficulty: ${data.name}`);
    for (const number of roundNumbers(low, high)) {
      const x = across((number - low) / (high - low));
      svg("path", { d: `M${x} ${up(0)}v4`, class: "ex-axis" }, root);
      svg("text", { x, y: up(0) + 16, "text-anchor": "middle" }, root, String(number).replace("-", "\u2212"));
    }
    bars.setAttribute("d", histogram(data));
    const vertical = (ticks) => {
      grid.replaceChildren();
      for (const [share, text] of ticks) {
        svg("path", { d: `M${LEFT} ${up(share)}h${WIDTH}`, class: share ? "ex-grid" : "ex-axis" }, grid);
        svg("text", { x: LEFT - 5, y: up(share) + 3.5, "text-anchor": "end" }, grid, text);
      }
    };
    const constant = svg("path", { class: "ex-line ex-constant" }, plot), own = svg("path", { class: "ex-line ex-own" }, plot);
    const lines = (curve, level) => {
      const points = Array.from({ length: WIDTH + 1 }, (_, k) => {
        return `${across(k / WIDTH)} ${up(curve(low + (high - low) * k / WIDTH)).toFixed(2)}`;
      });
      own.setAttribute("d", `M${points.join("L")}`);
      constant.setAttribute("d", `M${LEFT} ${up(level).toFixed(2)}h${WIDTH}`);
    };
    return { vertical, lines };
  }

  const BARS = 74;

  function histogram({ difficulty, copies, all }) {
    const counts = new Float64Array(BARS);
    difficulty.forEach((d, k) => {
      counts[Math.min(BARS - 1, Math.floor(BARS * (d - all.low) / (all.high - all.low)))] += copies[k];
    });
    const largest = Math.max(...counts);
    return Array.from(counts, (count, k) => {
      if (!count) return "";
      const height = Math.max(0.8, 0.92 * HEIGHT * count / largest); // a single image is seen too
      return `M${across(k / BARS) + 0.4} ${up(0)}v${(-height).toFixed(1)}h${WIDTH / BARS - 0.8}V${up(0)}Z`;
    }).join("");
  }

  function weightPanel(parent, data) {
    const { vertical, lines } = panel(parent, "Weight", data);
    vertical([0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => [share, String(share)]));
    return (state) => lines(state.weight, state.mean);
  }

  const FLOORS = { 90: 2, 80: 5, 60: 10, 40: 10, 0: 20 }; // where the axis of the confidence may start, and its steps, in percent

  function confidencePanel(parent, data) {
    const { vertical, lines } = panel(parent, "Optimal confidence in the true class (%)", data);
    let drawn;
    return (state) => {
      const floor = Math.max(...Object.keys(FLOORS).filter((each) => each <= 100 * state.hardest));
      const share = (confidence) => (100 * confidence - floor) / (100 - floor);
      if (floor !== drawn) {
        const ticks = Array.from({ length: (100 - floor) / FLOORS[floor] + 1 }, (_, k) => floor + k * FLOORS[floor]);
        vertical(ticks.map((tick) => [share(tick / 100), String(tick)]));
        drawn = floor;
      }
      lines((difficulty) => share(state.best(difficulty)), share(state.constant));
    };
  }

  // ---- Words ----

  function reading(state, data, setting) {
    const published = PUBLISHED.every((each, k) => each === setting[k]);
    return does(state, data, setting[1]) + (published ? " T and α are the paper’s; how it scales the distances it does not say." : "");
  }

  function does(state, data, alpha) {
    if (alpha === 0) return "With α\u00a0=\u00a00 no entropy is asked for. This is cross entropy: full confidence is best everywhere, on wrong labels too.";
    const of = (share) => `${+percent(share)}\u00a0%`, rare = Math.round(state.heavy * data.images), least = state.weight(data.all.low);
    if (state.mean < 0.02) {
      return `The weights of nearly all images vanish: ${many(rare)} of ${many(data.images)} ${rare === 1 ? "has" : "have"} a weight above ½. ` +
        `For the hardest image the best confidence is ${of(state.hardest)}; for nearly all others this is cross entropy.`;
    }
    const ends = `The best confidence is ${of(state.hardest)} for the hardest image and ${of(state.easiest)} for the easiest`;
    if (least > 0.8) return `${ends}. All weights are above ${least.toFixed(2)}, so this is nearly constant entropy regularisation.`;
    return `${ends}. A constant bonus of the same mean strength asks for ${of(state.constant)} on every image, easy or hard.`;
  }

  const COLUMNS = [
    ["Mean weight", "", (s) => small(s.mean)],
    ["Strength", "α × mean", (s) => small(s.strength)],
    ["Weight >\u00a0½", "% images", (s) => (s.heavy === undefined ? "–" : percent(s.heavy))],
    ["Confidence", "%, mean", (s) => percent(s.confidence)],
    ["Confidence", "%, hardest", (s) => percent(s.hardest)],
  ];

  // ---- The figure ----

  const TENS = [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9];
  const TEMPERATURES = [0.01, 0.1, 1, 10].flatMap((power) => TENS.map((each) => +(each * power).toPrecision(2)))
    .filter((temperature) => temperature >= 0.05 && temperature <= 20);
  const PUBLISHED = [0.7, 0.3, "minmax"]; // the paper's, on CIFAR
  const PRESETS = { "Paper’s setting": PUBLISHED, "Raw distances": [0.7, 0.3, "raw"] };

  const SKELETON = `
    <div class="ex-presets" role="group" aria-label="Settings to start from"></div>
    <div class="ex-sliders">
      <label><b>Temperature <i>T</i></b><output></output><input type="range" min="0" max="${TEMPERATURES.length - 1}"></label>
      <label><b>Strength <i>α</i></b><output></output><input type="range" min="0" max="0.5" step="0.01"></label>
      <label><b>Normaliser</b><select>${Object.entries(NORMALISERS).map(([name, [words]]) => `<option value="${name}">${words}</option>`).join("")}</select></label>
    </div>
    <p class="ex-legend"><span class="ex-own">weights by difficulty</span><span class="ex-constant">constant, same mean strength</span><span
      class="ex-images">training images</span></p>
    <div class="ex-panels"></div>
    <table class="ex-metrics"><thead><tr><td class="ex-count"></td>${COLUMNS.map(([name, unit]) => {
      return `<th scope="col">${name}<small>${unit}</small></th>`;
    }).join("")}</tr></thead><tbody></tbody></table>
    <p class="ex-reading" aria-live="polite"></p>`;

  function start(root) {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const data = decode(JSON.parse(root.querySelector("script").textContent));
    root.innerHTML = SKELETON;
    const find = (selector) => root.querySelector(selector);

    const buttons = Object.entries(PRESETS).map(([name, setting]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => update(...setting));
      find(".ex-presets").append(button);
      return [button, setting];
    });
    const sliders = root.querySelectorAll("input"), outputs = root.querySelectorAll("output"), choice = find("select");
    sliders[0].addEventListener("input", () => update(TEMPERATURES[sliders[0].value], now[1], now[2]));
    sliders[1].addEventListener("input", () => update(now[0], +sliders[1].value, now[2]));
    choice.addEventListener("change", () => update(now[0], now[1], choice.value));
    const row = (name, title) => {
      const line = find("tbody").insertRow(), head = document.createElement("th");
      line.className = name;
      head.scope = "row";
      head.textContent = title;
      line.append(head);
      return COLUMNS.map(() => line.insertCell());
    };
    const own = row("ex-own", "By difficulty"), constant = row("ex-constant", "Constant");
    const fill = (cells, state) => cells.forEach((cell, k) => { cell.textContent = COLUMNS[k][2](state); });
    const panels = [weightPanel, confidencePanel].map((make) => make(find(".ex-panels"), data));

    let now;
    function update(...setting) {
      now = setting;
      const [temperature, alpha, normaliser] = now, state = measure(data, ...now);
      panels.forEach((draw) => draw(state));
      fill(own, state);
      fill(constant, { mean: state.mean, strength: state.strength, confidence: state.constant, hardest: state.constant });
      [TEMPERATURES.indexOf(temperature), alpha].forEach((place, k) => {
        const text = k ? alpha.toFixed(2) : String(temperature);
        sliders[k].value = place;
        outputs[k].textContent = text;
        sliders[k].setAttribute("aria-valuetext", text);
        sliders[k].style.setProperty("--share", place / sliders[k].max);
      });
      choice.value = normaliser;
      buttons.forEach(([button, preset]) => button.setAttribute("aria-pressed", preset.every((each, k) => each === now[k])));
      find(".ex-reading").textContent = reading(state, data, now);
    }
    find(".ex-count").textContent = `${many(data.images)} images`;
    update(...PUBLISHED);
  }

  const startAll = () => document.querySelectorAll(".difficulty-explorer").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
