// The interactive figure of a duo: uqlib/explorer.py writes the logits into the page, this file does the rest.
// Two weights multiply the logits of two networks; every number and curve is computed anew from the logits when one moves.
(function () {
  "use strict";

  // ---- Numbers: the same definitions as uqlib.metrics, held against it by tests/test_explorer.py ----

  const BINS = 15;

  function integers(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Int16Array(bytes.buffer);
  }

  function decode(data) {
    const logits = (text) => Float64Array.from(integers(text), (value) => value * data.step);
    return { classes: data.classes, large: logits(data.large), small: logits(data.small), labels: integers(data.labels) };
  }

  /** Confidence and correctness of each row, and the mean NLL in nats, at these two weights. */
  function decide(duo, large, small) {
    const { classes, labels } = duo;
    const confidence = new Float64Array(labels.length), correct = new Uint8Array(labels.length);
    const logits = new Float64Array(classes);
    let nll = 0;
    for (let i = 0, start = 0; i < labels.length; i++, start += classes) {
      let best = 0, sum = 0;
      for (let c = 0; c < classes; c++) {
        logits[c] = large * duo.large[start + c] + small * duo.small[start + c];
        if (logits[c] > logits[best]) best = c;
      }
      for (let c = 0; c < classes; c++) sum += Math.exp(logits[c] - logits[best]);
      confidence[i] = 1 / sum;
      correct[i] = best === labels[i];
      nll += Math.log(sum) + logits[best] - logits[labels[i]];
    }
    return { confidence, correct, nll: nll / labels.length };
  }

  /** All metrics at two weights, as fractions and nats, and the curves behind them. */
  function measure(duo, large, small) {
    const { confidence, correct, nll } = decide(duo, large, small);
    const { risks, pairs, right } = ranked(confidence, correct);
    const n = correct.length, bins = binned(confidence, correct);
    return {
      right, risks, bins, nll,
      accuracy: right / n,
      confidence: confidence.reduce((a, b) => a + b) / n,
      ece: bins.reduce((total, bin) => total + Math.abs(bin.confidence - bin.correct), 0) / n,
      aurc: risks.reduce((a, b) => a + b) / n,
      auroc: pairs / (right * (n - right)),
    };
  }

  /** Selective risk at k = 1, ..., n, and how many pairs of right and wrong stand in order; ties share what they expect. */
  function ranked(confidence, correct) {
    const order = Array.from(confidence.keys()).sort((a, b) => confidence[b] - confidence[a]);
    const risks = new Float64Array(order.length);
    let right = 0, pairs = 0;
    for (let first = 0, last; first < order.length; first = last) {
      let hits = 0;
      for (last = first; last < order.length && confidence[order[last]] === confidence[order[first]]; last++) {
        hits += correct[order[last]];
      }
      const size = last - first, misses = size - hits;
      for (let k = first; k < last; k++) risks[k] = (first - right + misses * (k + 1 - first) / size) / (k + 1);
      pairs += misses * (right + hits / 2);
      right += hits;
    }
    return { risks, pairs, right };
  }

  /** Totals over bins of equal width, ((k-1)/15, k/15]. */
  function binned(confidence, correct) {
    const bins = Array.from({ length: BINS }, () => ({ count: 0, confidence: 0, correct: 0 }));
    for (let i = 0; i < correct.length; i++) {
      const bin = bins[Math.max(0, Math.ceil(confidence[i] * BINS) - 1)];
      bin.count += 1;
      bin.confidence += confidence[i];
      bin.correct += correct[i];
    }
    return bins;
  }

  if (typeof module !== "undefined") module.exports = { decode, measure };
  if (typeof document === "undefined") return;

  // ---- Drawing ----

  const STEPS = 200; // of a slider
  const SIDE = 194, LEFT = 36, TOP = 26; // of the square plots, in a view box of 240 x 256
  const svg = (name, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const line = (points) => "M" + points.map((point) => point.map((x) => x.toFixed(1)).join(" ")).join("L");
  const across = (share) => LEFT + share * SIDE, up = (share) => TOP + (1 - share) * SIDE;
  const many = (number) => number.toLocaleString("en");
  const percent = (share, digits = 1) => (100 * share).toFixed(digits);

  /** A square plot with axes that run over [0, 1]; ticks are pairs of share and text. */
  function panel(parent, title, xlabel, ylabel) {
    const root = svg("svg", { viewBox: "0 0 240 256", role: "img", "aria-label": title }, parent);
    const grid = svg("g", {}, root), plot = svg("g", {}, root);
    svg("text", { x: LEFT, y: 13, class: "ex-title" }, root, title);
    const labels = [
      svg("text", { x: across(0.5), y: 251, "text-anchor": "middle" }, root),
      svg("text", { x: -up(0.5), y: 9.5, transform: "rotate(-90)", "text-anchor": "middle" }, root),
    ];
    [xlabel, ylabel].forEach(([words, index], k) => {
      labels[k].append(words);
      if (!index) return;
      svg("tspan", { "font-style": "italic" }, labels[k], "T");
      svg("tspan", { dy: 3, "font-size": "75%", "font-style": "italic" }, labels[k], index);
    });
    const ticks = (x, y) => {
      grid.replaceChildren();
      for (const [share, text] of x) {
        svg("path", { d: `M${across(share)} ${TOP}v${SIDE}`, class: share ? "ex-grid" : "ex-axis" }, grid);
        svg("text", { x: across(share), y: up(0) + 14, "text-anchor": "middle" }, grid, text);
      }
      for (const [share, text] of y) {
        svg("path", { d: `M${LEFT} ${up(share)}h${SIDE}`, class: share ? "ex-grid" : "ex-axis" }, grid);
        svg("text", { x: LEFT - 5, y: up(share) + 3.5, "text-anchor": "end" }, grid, text);
      }
    };
    return { root, plot, ticks };
  }

  /** An axis from 0 that holds this number, in at most so many round steps: its end, and its ticks. */
  function axis(largest, most) {
    const power = 10 ** Math.floor(Math.log10(largest / most) - 1e-9);
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => largest <= 1.000001 * each * most);
    const parts = Math.ceil(largest / step - 1e-6);
    return { end: parts * step, ticks: Array.from({ length: parts + 1 }, (_, k) => [k / parts, String(+(k * step).toFixed(4))]) };
  }
  const percents = axis(100, 5).ticks;

  /** Error among the kept against the share that is kept; grey stands still. */
  function riskPanel(parent, reference) {
    const { plot, ticks } = panel(parent, "Error among the kept", ["kept, surest first (%)", ""], ["wrong (%)", ""]);
    const grey = svg("path", { class: "ex-line ex-reference" }, plot), own = svg("path", { class: "ex-line ex-own" }, plot);
    let drawn = 0;
    return (state) => {
      // below 5 % kept, one error more or less is all one sees
      const n = state.risks.length, from = Math.ceil(n / 20);
      const shown = (risks) => risks.slice(from - 1);
      const largest = Math.max(0.001, ...shown(state.risks), ...shown(reference.risks));
      const { end, ticks: wrong } = axis(100 * largest, 5);
      const path = (risks) => {
        const points = [], stride = Math.max(1, Math.floor(n / 400));
        for (let k = n; k >= from; k -= stride) points.push([across(k / n), up(100 * risks[k - 1] / end)]);
        return line(points);
      };
      if (end !== drawn) {
        ticks(percents, wrong);
        grey.setAttribute("d", path(reference.risks));
        drawn = end;
      }
      own.setAttribute("d", path(state.risks));
    };
  }

  /** Accuracy against mean confidence in each bin: the ECE is the mean of the stems, weighted by the areas of the points. */
  function reliabilityPanel(parent, reference) {
    const { plot, ticks } = panel(parent, "Reliability", ["mean confidence (%)", ""], ["accuracy (%)", ""]);
    ticks(percents, percents);
    svg("path", { d: `M${across(0)} ${up(0)}L${across(1)} ${up(1)}`, class: "ex-diagonal" }, plot);
    const points = (state, group, name) => {
      group.replaceChildren();
      for (const { count, confidence, correct } of state.bins.filter((bin) => bin.count)) {
        const cx = across(confidence / count), cy = up(correct / count);
        if (name === "ex-own") svg("path", { d: `M${cx} ${cy}V${up(confidence / count)}`, class: "ex-stem" }, group);
        svg("circle", { cx, cy, r: Math.sqrt(3 + 80 * count / state.risks.length), class: name }, group);
      }
    };
    points(reference, svg("g", {}, plot), "ex-reference");
    const own = svg("g", {}, plot);
    return (state) => points(state, own, "ex-own");
  }

  /** The NLL over the weights. It is convex in them, so every level set is met once by a ray from near its bottom. */
  function mapPanel(parent, duo, data, limit, alone, move) {
    const { root, plot, ticks } = panel(parent, "NLL over the weights (nats)", ["weight of the large, ", "ℓ"], ["weight of the sidekick, ", "s"]);
    ticks(axis(limit, 4).ticks, axis(limit, 4).ticks);
    const place = ([large, small]) => [across(large / limit), up(small / limit)];
    const frame = { x: LEFT, y: TOP, width: SIDE, height: SIDE };
    const levels = svg("svg", { ...frame, viewBox: Object.values(frame).join(" "), class: "ex-levels" }, plot), guides = svg("path", { class: "ex-guides" }, plot);
    const [x, y] = place(data.weights), [cx, cy] = place(alone);
    svg("circle", { cx, cy, r: 4.5, class: "ex-reference" }, plot);
    const handle = svg("g", { class: "ex-handle" }, plot);
    svg("circle", { r: 22, class: "ex-touch" }, handle);
    svg("circle", { r: 6.5, class: "ex-own" }, handle);
    svg("path", { d: `M${x - 5} ${y}h10M${x} ${y - 5}v10`, class: "ex-fitted" }, plot);

    const take = (event) => {
      const box = root.getBoundingClientRect(), unit = 240 / box.width;
      const share = [(event.clientX - box.left) * unit - LEFT, TOP + SIDE - (event.clientY - box.top) * unit];
      move(share.map((value) => Math.round(Math.min(1, Math.max(0, value / SIDE)) * STEPS) * limit / STEPS));
    };
    // a finger scrolls the page over the map: it taps, or drags the point itself
    root.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" && !handle.contains(event.target)) return;
      root.setPointerCapture(event.pointerId);
      root.addEventListener("pointermove", take);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      root.addEventListener(end, () => root.removeEventListener("pointermove", take));
    }
    root.addEventListener("click", take);
    drawLevels(levels, duo, data.weights, limit, place);
    return (state, weights) => {
      const [px, py] = place(weights);
      handle.setAttribute("transform", `translate(${px} ${py})`);
      guides.setAttribute("d", `M${LEFT} ${py}H${px}V${up(0)}`);
    };
  }

  const RADII = 20, RAYS = 72, NICE = [1, 1.2, 1.5, 1.8, 2, 2.5, 3, 4, 5, 7];

  /** Lines of equal NLL, traced along rays from the bottom, a ray at a time, so that the page never waits for them. */
  function drawLevels(group, duo, [large, small], limit, place) {
    const reach = Math.hypot(Math.max(large, limit - large), Math.max(small, limit - small));
    const radii = Array.from({ length: RADII + 1 }, (_, k) => reach * (k / RADII) ** 2);
    const rays = [];
    const trace = () => {
      const angle = 2 * Math.PI * rays.length / RAYS, dx = Math.cos(angle), dy = Math.sin(angle);
      rays.push({ dx, dy, nll: radii.map((r) => decide(duo, large + r * dx, small + r * dy).nll) });
      if (rays.length < RAYS) setTimeout(trace);
      else draw();
    };
    const crossing = ({ dx, dy, nll }, level) => {
      const k = nll.findIndex((value) => value > level);
      const r = k < 0 ? 2 * reach : radii[k - 1] + (radii[k] - radii[k - 1]) * (level - nll[k - 1]) / (nll[k] - nll[k - 1]);
      return place([large + r * dx, small + r * dy]);
    };
    const draw = () => {
      const bottom = rays[0].nll[0], all = `M${LEFT} ${TOP}h${SIDE}v${SIDE}h${-SIDE}Z`;
      const nice = [-3, -2, -1, 0, 1, 2].flatMap((power) => NICE.map((value) => value * 10 ** power));
      const levels = nice.filter((level) => level > 1.02 * bottom && level < decide(duo, 0, 0).nll);
      let last = place([large, small]);
      for (const level of levels) {
        const points = rays.map((ray) => crossing(ray, level));
        svg("path", { d: `${all}${line(points)}Z`, class: "ex-wall", "fill-rule": "evenodd" }, group);
        svg("path", { d: `${line(points)}Z`, class: "ex-level", "data-nll": level }, group);
      }
      for (const level of levels) {
        const [x, y] = crossing(rays[RAYS / 8], level); // up and to the right
        if (Math.hypot(x - last[0], y - last[1]) < 20 || x > LEFT + SIDE - 10 || y < TOP + 8) continue;
        svg("text", { x, y: y + 3, "text-anchor": "middle", class: "ex-value" }, group, String(+level.toPrecision(2)));
        last = [x, y];
      }
    };
    setTimeout(trace);
  }

  // ---- Words ----

  function reading(state, alone, [large, small], isAlone) {
    const n = state.risks.length, all = many(n);
    if (large === 0 && small === 0) return "With both weights at zero nobody is heard: every class gets the same probability.";
    if (isAlone) return `This is the large network alone, with its own temperature: ${state.right} of ${all} right. Everything grey shows this state.`;
    const more = state.right - alone.right, gap = state.confidence - state.accuracy;
    const kept = Math.round(0.8 * n), errors = (risks) => Math.round(kept * risks[kept - 1]);
    const sure = `${percent(state.confidence)}\u00a0% sure and ${percent(state.accuracy)}\u00a0% right`;
    const trust = Math.abs(gap) <= 0.01 ? `on average it is ${sure}` : `it is too ${gap > 0 ? "sure" : "unsure"} of itself, on average ${sure}`;
    if (small === 0) {
      return `Only the large network is heard, so its labels do not change and the same ${state.right} of ${all} are right; ${trust}.`;
    }
    const who = large === 0 ? "The sidekick alone" : "The duo";
    const count = more === 0 ? `as many of ${all} right as` : `${Math.abs(more)} ${more > 0 ? "more" : "fewer"} of ${all} right than`;
    return `${who} gets ${count} the large network alone; among the ${kept} images it is surest of, ` +
      `${errors(state.risks)} are wrong instead of ${errors(alone.risks)}; ${trust}.`;
  }

  const COLUMNS = [
    ["Accuracy", "% ↑", (s) => percent(s.accuracy)],
    ["NLL", "nats ↓", (s) => s.nll.toFixed(3)],
    ["ECE", "% ↓", (s) => percent(s.ece)],
    ["AURC", "% ↓", (s) => percent(s.aurc, 2)],
    ["AUROC", "% ↑", (s) => (Number.isFinite(s.auroc) ? percent(s.auroc) : "–")],
  ];

  // ---- The figure ----

  const SKELETON = `
    <div class="ex-presets" role="group" aria-label="Weights to start from"></div>
    <div class="ex-sliders">${["Large network", "Sidekick"].map((who, k) => `
      <label><span><b>${who} <i>T</i><sub><i>${"ℓs"[k]}</i></sub></b> <span class="ex-name"></span></span><output></output><input type="range" min="0"></label>`).join("")}
    </div>
    <p class="ex-legend"><span class="ex-own">these weights</span><span class="ex-reference">large network alone, temperature-scaled</span><span
      class="ex-fitted">weights fitted on other images</span></p>
    <div class="ex-panels"></div>
    <table class="ex-metrics"><thead><tr><td class="ex-count"></td>${COLUMNS.map(([name, unit]) => {
      return `<th scope="col" title="${unit.endsWith("↑") ? "higher" : "lower"} is better">${name}<small>${unit}</small></th>`;
    }).join("")}</tr></thead><tbody></tbody></table>
    <p class="ex-reading" aria-live="polite"></p>`;

  function start(root) {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const data = JSON.parse(root.querySelector("script").textContent), duo = decode(data);
    const [large, small] = data.temperatures.map((temperature) => 1 / temperature);
    const presets = {
      "Large alone": [large, 0],
      "Sidekick alone": [0, small],
      Unweighted: [large / 2, small / 2],
      "Fitted duo": data.weights,
      "As trained (1, 0)": [1, 0],
    };
    const limit = axis(Math.max(...Object.values(presets).flat()), 4).end;
    const alone = measure(duo, large, 0);
    root.innerHTML = SKELETON;
    const find = (selector) => root.querySelector(selector);

    const buttons = Object.entries(presets).map(([name, weights]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => update(weights));
      find(".ex-presets").append(button);
      return [button, weights];
    });
    const sliders = [...root.querySelectorAll("input")], outputs = [...root.querySelectorAll("output")];
    sliders.forEach((slider, k) => {
      root.querySelectorAll(".ex-name")[k].textContent = data.names[k];
      slider.max = limit;
      slider.step = limit / STEPS;
      slider.addEventListener("input", () => update(weights.map((weight, other) => (other === k ? +slider.value : weight))));
    });
    const row = (name, title) => {
      const line = find("tbody").insertRow(), head = document.createElement("th");
      line.className = name;
      head.scope = "row";
      head.textContent = title;
      line.append(head);
      return COLUMNS.map(() => line.insertCell());
    };
    const cells = row("ex-own", "These weights");
    const fill = (cells, state) => cells.forEach((cell, k) => { cell.textContent = COLUMNS[k][2](state); });
    fill(row("ex-reference", "Large alone"), alone);
    const home = find(".ex-panels");
    const panels = [mapPanel(home, duo, data, limit, presets["Large alone"], update), riskPanel(home, alone), reliabilityPanel(home, alone)];

    let weights;
    function update(wanted) {
      weights = wanted;
      const state = measure(duo, ...weights), is = (other) => other.every((weight, k) => weight === weights[k]);
      panels.forEach((draw) => draw(state, weights));
      fill(cells, state);
      sliders.forEach((slider, k) => {
        slider.value = weights[k];
        outputs[k].textContent = weights[k].toFixed(3);
        slider.setAttribute("aria-valuetext", weights[k].toFixed(3));
        slider.style.setProperty("--share", weights[k] / limit);
      });
      buttons.forEach(([button, preset]) => button.setAttribute("aria-pressed", is(preset)));
      find(".ex-reading").textContent = reading(state, alone, weights, is(presets["Large alone"]));
    }
    find(".ex-count").textContent = `${many(duo.labels.length)} images`;
    update(data.weights);
  }

  const startAll = () => document.querySelectorAll(".duo-explorer").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
