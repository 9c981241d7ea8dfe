// Figures that move: uqlib/report/moving.py writes into the page what is drawn at each position of the controls, this file draws it.
// A figure of two networks carries their logits; its numbers are computed here, as by uqlib.metrics.
(function () {
"use strict";

// ---- What a page holds: 16-bit codes of shares of an axis, and words ----

const FULL = 65534; // the code of an axis's end; the next one stands for nothing

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

/** A function from the positions of the controls to what is seen there. */
function decode(spec) {
  const codes = new Uint16Array(bytes(spec.data));
  const column = ({ at, n, over }, state) => {
    const start = at + n * over.reduce((k, control) => k * spec.controls[control].positions + state[control], 0);
    return codes.subarray(start, start + n);
  };
  const numbers = (where, state, scale) => Float64Array.from(column(where, state), (code) => (code > FULL ? NaN : code / scale));
  const words = (where, state) => Array.from(column(where, state)).filter((code) => code <= FULL).map((code) => spec.words[code]).join(" ");
  const mark = (about, state) => {
    const found = {};
    for (const key of ["x", "y", "x2", "y2"]) if (about[key]) found[key] = numbers(about[key], state, FULL);
    if (about.size) found.size = numbers(about.size, state, 10);
    if (about.words) found.words = words(about.words, state).split("\t");
    return found;
  };
  return (state) => ({
    marks: spec.marks.map((each) => mark(each, state)),
    cells: spec.rows.map((row) => (row.cells || []).map((cell) => words(cell, state).split("\t"))),
    reading: spec.reading ? words(spec.reading, state) : "",
    interval: spec.interval ? words(spec.interval, state) : "",
  });
}

// ---- Numbers: as uqlib.metrics has them, held against it by tests/report/test_moving.py ----

const BINS = 15;

/** Rows in the order of their confidence, the surest first, with their losses: what `score` needs. */
function ranked(confidence, correct, losses = []) {
  const order = Uint32Array.from(confidence.keys()).sort((a, b) => confidence[b] - confidence[a]);
  const take = (values) => Float64Array.from(order, (row) => values[row]), sure = take(confidence);
  const bin = Uint8Array.from(sure, (value) => { // ((k - 1) / 15, k / 15]
    const k = Math.ceil(value * BINS);
    return Math.max(0, (value <= (k - 1) / BINS ? k - 1 : value > k / BINS ? k + 1 : k) - 1);
  });
  return { order, sure, bin, right: take(correct), losses: losses.map(take), risks: new Float64Array(order.length + 4) };
}

/** All metrics as fractions and nats, of all rows or of a draw in which each comes up so often. Ties share what they expect. */
function score({ order, sure, bin, right, losses, risks }, often) {
  const gaps = new Float64Array(BINS), [first = sure, second = sure] = losses, all = order.length;
  let n = 0, hits = 0, area = 0, pairs = 0, size = 0, misses = 0, one = 0, two = 0;
  for (let i = 0; i < all; i++) {
    const m = often ? often[order[i]] : 1;
    size += m;
    misses += m * (1 - right[i]);
    gaps[bin[i]] += m * (sure[i] - right[i]);
    one += m * first[i];
    two += m * second[i];
    if (i + 1 < all && sure[i + 1] === sure[i]) continue;
    const wrong = n - hits, slope = misses / size;
    for (let j = 0; j < 4 || j < size; j++) risks[n + j] = wrong + slope * (j + 1); // four at least
    pairs += misses * (hits + (size - misses) / 2);
    n += size;
    hits += size - misses;
    size = misses = 0;
  }
  for (let j = 0; j < n;) area += risks[j] /= ++j;
  const sum = (of) => gaps.reduce((all, gap) => all + of(gap), 0), confidence = (sum((gap) => gap) + hits) / n, auroc = pairs / (hits * (n - hits));
  return { n, right: hits, accuracy: hits / n, confidence, ece: sum(Math.abs) / n, aurc: area / n, auroc, risks: often ? null : risks.slice(0, n), losses: [one / n, two / n] };
}

/** Totals in bins of equal width. */
function binned({ sure, right, bin }) {
  const bins = Array.from({ length: BINS }, () => ({ count: 0, sure: 0, right: 0 }));
  bin.forEach((k, i) => { bins[k].count++; bins[k].sure += sure[i]; bins[k].right += right[i]; });
  return bins;
}

/** How often each of n rows comes up, draw by draw, as uqlib.metrics.interval draws from torch's generator of this seed. */
function drawer(n, seed = 0) {
  const state = new Uint32Array(624).fill(seed);
  let at = 624;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ state[i - 1] >>> 30) + i;
  return () => {
    const often = new Uint16Array(n);
    const size = n >>> 0; // % of whole numbers
    for (let i = 0; i < size; i++) {
      if (at === 624) {
        for (let k = at = 0; k < 624; k++) {
          const both = state[k] & 0x80000000 | state[(k + 1) % 624] & 0x7fffffff;
          state[k] = state[(k + 397) % 624] ^ both >>> 1 ^ -(both & 1) & 0x9908b0df;
        }
      }
      let y = state[at++];
      y ^= y >>> 11;
      y ^= y << 7 & 0x9d2c5680;
      y ^= y << 15 & 0xefc60000;
      often[((y ^ y >>> 18) >>> 0) % size]++;
    }
    return often;
  };
}

/** The percentiles between which 95 % of the values lie. */
function middle(values) {
  const sorted = Float64Array.from(values).sort();
  return [(1 - 0.95) / 2, (1 + 0.95) / 2].map((share) => {
    const at = share * (sorted.length - 1), k = Math.floor(at), rest = at - k, low = sorted[k], high = sorted[k + 1] ?? low;
    return rest < 0.5 ? low + rest * (high - low) : high - (1 - rest) * (high - low);
  });
}

/** Better, worse or same: a difference of which 95 % lies between two ends, where higher (1) or lower (-1) is better. */
const judge = (ends, better) => (ends.every((end) => end * better > 0) ? "better" : ends.every((end) => end * better < 0) ? "worse" : "same");

const print = (value, digits) => (value === value ? value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "\u2212") : "–");

/** What two networks answer together at two weights. */
function decide({ classes, labels }, large, small, [a, b]) {
  const n = labels.length, confidence = new Float64Array(n), correct = new Uint8Array(n), nll = new Float64Array(n);
  const logits = new Float64Array(classes);
  for (let i = 0, start = 0; i < n; i++, start += classes) {
    let best = 0, sum = 0;
    for (let c = 0; c < classes; c++) {
      logits[c] = a * large[start + c] + b * small[start + c];
      if (logits[c] > logits[best]) best = c;
    }
    for (let c = 0; c < classes; c++) sum += Math.exp(logits[c] - logits[best]);
    confidence[i] = 1 / sum;
    correct[i] = best === labels[i];
    nll[i] = Math.log(sum) + logits[best] - logits[labels[i]];
  }
  return ranked(confidence, correct, [nll]);
}

// ---- A figure of two networks, answering anew at each pair of weights ----

function answers({ live, marks, controls }) {
  const integers = (text) => new Int16Array(bytes(text)), labels = integers(live.labels), n = labels.length;
  const networks = live.networks.map((text) => Float64Array.from(integers(text), (code) => code * live.step));
  const often = Array.from({ length: live.draws }, drawer(n));
  const measured = (sidekick, weights) => {
    const ranks = decide({ classes: live.classes, labels }, networks[0], networks[1 + sidekick], weights);
    return { ranks, ...score(ranks), draws: often.map((each) => score(ranks, each)) };
  };
  const alone = measured(0, [live.alone, 0]), of = (state, key) => (key === "nll" ? state.losses[0] : state[key]);
  const fill = (text, values) => text.replace(/{(\w+)}/g, (_, key) => values[key]);
  let known, now;
  return (state, seen) => {
    const weights = [1, 2].map((k) => state[k] * controls[k].step), key = `${state[0]} ${weights}`;
    if (key !== known) now = measured(state[0], weights);
    known = key;
    const [x, y] = [1, 2].map((k) => state[k] / (controls[k].positions - 1)), kept = Math.round(live.kept[state[3]] * n), cut = kept / n;
    const drawn = {
      handle: { x: [x], y: [y], size: [8] },
      guides: { x: [0, x], y: [y, 0], x2: [x, x], y2: [y, y] },
      risk: { x: now.risks.map((_, k) => (k + 1) / n), y: now.risks.map((risk) => (risk > live.risk ? NaN : risk / live.risk)) },
      cut: { x: [cut], y: [0], x2: [cut], y2: [1] },
      kept: { x: [cut], y: [now.risks[kept - 1] / live.risk], size: [5] },
    };
    for (const few of [0, 1]) {
      const bins = binned(now.ranks).filter((bin) => bin.count && bin.count < 5 == few);
      const sure = bins.map((bin) => bin.sure / bin.count), right = bins.map((bin) => bin.right / bin.count);
      drawn["bins" + few] = { x: sure, y: right, size: bins.map((bin) => Math.sqrt(4 + 120 * bin.count / n)) };
      drawn["stems" + few] = { x: sure, y: sure, x2: sure, y2: right };
    }
    const tones = { better: [], worse: [], same: [] };
    const cells = live.metrics.map(({ key, name, scale, digits, better }) => {
      const ends = middle(now.draws.map((each, k) => of(each, key) - of(alone.draws[k], key))), tone = judge(ends, better);
      const [own, other, low, high] = [of(now, key), of(alone, key), ...ends].map((value) => print(scale * value, digits));
      tones[tone].push(name);
      return [[own], [other], [`${low} to ${high}`], [live.say[tone], tone]];
    });
    const more = now.right - alone.right, gap = now.confidence - now.accuracy, wrong = (each) => Math.round(kept * each.risks[kept - 1]);
    const ends = middle(now.draws.map((each, k) => each.right - alone.draws[k].right));
    const values = {
      all: n.toLocaleString("en"), right: now.right, more: Math.abs(more), kept, wrong: wrong(now), instead: wrong(alone),
      sure: (100 * now.confidence).toFixed(1), correct: (100 * now.accuracy).toFixed(1), low: print(ends[0], 0), high: print(ends[1], 0),
      judged: Object.keys(tones).filter((tone) => tones[tone].length).map((tone) => `${live.say[tone]}: ${tones[tone].join(", ")}`).join("; "),
    };
    const parts = !weights[1] ? [weights[0] ? "alone" : "nobody"] : [weights[0] ? "duo" : "sidekick", more > 0 ? "more" : more ? "fewer" : "equal", "kept"];
    if (weights[0] || weights[1]) parts.push(Math.abs(gap) <= 0.01 ? "" : gap > 0 ? "sure" : "unsure");
    return {
      cells,
      marks: marks.map((mark, k) => drawn[mark.live] || seen.marks[k]),
      reading: fill(parts.filter(Boolean).map((part) => live.say[part]).join(" "), values),
      interval: weights[1] ? fill(live.say.interval, values) : "",
    };
  };
}

const kernels = { decode, ranked, score, binned, drawer, middle, judge, print, decide, answers };
if (typeof module !== "undefined") module.exports = kernels;
if (typeof document === "undefined") return;
window.moving = { ...kernels, panelOf };

// ---- Drawing ----

const RIGHT = 12, TOP = 26, BOTTOM = 40; // px around a plot

function svg(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/** The path of all marks of a kind; what is NaN is left out, a line has a gap there. */
function path(kind, mark, X, Y) {
  const [x, y, x2, y2] = [[mark.x, X], [mark.y, Y], [mark.x2, X], [mark.y2, Y]].map(([shares, to]) => Array.from(shares || [], to));
  const there = (k) => !isNaN(x[k] + y[k] + (x2[k] ?? 0) + (y2[k] ?? 0)), at = (k) => `${x[k]} ${y[k]}`, all = [...x.keys()].filter(there);
  if (kind === "band") return all.length ? `M${[...all.map(at), ...all.reverse().map((k) => `${x[k]} ${y2[k]}`)].join("L")}Z` : "";
  return all.map((k) => {
    if (kind === "line") return (there(k - 1) ? "L" : "M") + at(k);
    if (kind === "segments") return `M${at(k)}L${x2[k]} ${y2[k]}`;
    if (kind === "boxes") return `M${at(k)}H${x2[k]}V${y2[k]}H${x[k]}Z`;
    const r = mark.size[k] ?? mark.size[0], arc = `a${r} ${r} 0 1 0 `;
    return `M${x[k] - r} ${y[k]}${arc}${2 * r} 0${arc}${-2 * r} 0`;
  }).join("");
}

/** A plot; it is drawn in pixels of the page, so that its words have one size everywhere. */
function panelOf(about, slots, home, move) {
  const LEFT = about.y.ticks.length ? 46 : 12;
  const root = svg("svg", { role: "img", "aria-label": about.title, class: `mv-panel${about.wide ? " mv-wide" : ""}` }, home);
  const axes = svg("g", {}, root), inner = svg("svg", { overflow: "visible" }, root);
  const nodes = slots.map(({ kind, tone }) => svg(kind === "text" ? "g" : "path", { class: `mv-${kind} mv-${tone.replace(/ /g, " mv-")}` }, inner));
  let width = 0, height = 0;
  const px = (value) => Math.round(10 * value) / 10, X = (share) => px(share * width), Y = (share) => px((1 - share) * height);

  function frame() {
    const all = Math.max(200, root.getBoundingClientRect().width || 300);
    if (all - LEFT - RIGHT === width) return false;
    width = all - LEFT - RIGHT;
    height = Math.round(Math.min(width * about.ratio, 280));
    const floor = height + TOP;
    root.setAttribute("viewBox", `0 0 ${all} ${floor + BOTTOM}`);
    for (const [key, value] of Object.entries({ x: LEFT, y: TOP, width, height })) inner.setAttribute(key, value);
    axes.replaceChildren();
    const say = (x, y, text, more) => svg("text", { x, y, "text-anchor": "middle", ...more }, axes, text);
    say(0, 13, about.title, { class: "mv-title", "text-anchor": "start" });
    say(LEFT + width / 2, floor + 35, about.x.label);
    say(-TOP - height / 2, 10, about.y.label, { transform: "rotate(-90)" });
    for (const [share, text] of about.y.ticks) {
      svg("path", { d: `M${LEFT} ${TOP + Y(share)}h${width}`, class: "mv-grid" }, axes);
      say(LEFT - 5, TOP + Y(share) + 4, text, { "text-anchor": "end" });
    }
    let last = -Infinity;
    for (const [share, text] of about.x.ticks) {
      const x = LEFT + X(share);
      svg("path", { d: `M${x} ${floor}v4`, class: "mv-axis" }, axes);
      if (x - last < 7 * text.length + 8) continue; // on a phone not every tick has room for its words
      say(x, floor + 17, text);
      last = x;
    }
    svg("path", { d: `M${LEFT} ${floor}h${width}`, class: "mv-axis" }, axes);
    return true;
  }

  if (about.drag) {
    root.classList.add("mv-draggable");
    const take = (event) => {
      const box = root.getBoundingClientRect();
      const shares = [(event.clientX - box.left - LEFT) / width, 1 - (event.clientY - box.top - TOP) / height];
      move(about.drag.flatMap((each, way) => {
        if (!each) return [];
        const off = each.shares.map((share) => Math.abs(share - shares[way]));
        return [[each.control, off.indexOf(Math.min(...off))]];
      }));
    };
    root.addEventListener("pointerdown", (event) => {
      root.setPointerCapture(event.pointerId);
      root.addEventListener("pointermove", take);
    });
    for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, () => root.removeEventListener("pointermove", take));
    root.addEventListener("click", take); // a finger that taps; one that moves up or down scrolls the page
  }

  return [frame, (marks) => marks.forEach((mark, k) => {
    if (!mark.words) return nodes[k].setAttribute("d", path(slots[k].kind, mark, X, Y));
    nodes[k].replaceChildren();
    mark.words.forEach((text, i) => isNaN(mark.x[i]) || svg("text", { x: X(mark.x[i]), y: Y(mark.y[i]) + 4, "text-anchor": "middle" }, nodes[k], text));
  })];
}

/** What sets a control of the page to a position. */
function setterOf(control, k, node, move) {
  const inputs = [...node.querySelectorAll("input")], [slider] = inputs;
  inputs.forEach((input, place) => input.addEventListener("input", () => move([[k, control.options ? place : +input.value]])));
  return (place) => {
    if (control.options) { inputs[place].checked = true; return; }
    const text = control.words ? control.words[place] : (place * control.step).toFixed(control.digits);
    slider.value = place;
    slider.style.setProperty("--share", place / (control.positions - 1));
    slider.setAttribute("aria-valuetext", text);
    node.querySelector("i").textContent = text;
  };
}

// ---- The address of a state: #name=position,position ----

const addresses = () => new Map(location.hash.slice(1).split("&").map((part) => part.split("=")).filter((part) => part[1]));

function addressed({ name, controls }) {
  const state = (addresses().get(name) || "").split(",").map(Number);
  return state.length === controls.length && state.every((each, k) => each >= 0 && each < controls[k].positions) && addresses().has(name) ? state : null;
}

function toAddress(name, state) {
  const all = [...addresses().set(name, state.map((each) => +each.toFixed(3)))].map((part) => part.join("="));
  try {
    history.replaceState(history.state, "", `#${all.join("&")}`);
  } catch { /* a page that may not say where it stands is a figure all the same */ }
}

// ---- The figure ----

function start(root) {
  if (root.dataset.ready) return;
  root.dataset.ready = "yes";
  const all = (selector) => [...root.querySelectorAll(selector)], spec = JSON.parse(all("script")[0].textContent), { controls, presets } = spec;
  const still = decode(spec), live = spec.live && answers(spec);
  let state = addressed(spec), shown, timer;
  if (state) setTimeout(() => root.scrollIntoView({ block: "nearest" }));
  else state = spec.start;

  const of = ({ at }, chosen = state[0]) => at[Math.min(at.length - 1, chosen)].map((each, k) => each ?? state[k]); // a preset may differ with the first control
  const isAt = (preset) => !preset.times && of(preset).every((each, k) => Math.abs(each - state[k]) < 1e-9);
  const times = ({ times, of }) => { // as far as all of them can go
    const most = Math.min(times, ...of.map((k) => (controls[k].positions - 1) / state[k]));
    return state.map((each, k) => (of.includes(k) ? most * each : each));
  };
  const buttons = all(".mv-presets button");
  buttons.forEach((button, k) => button.addEventListener("click", () => moved(presets[k].times ? times(presets[k]) : of(presets[k]))));
  const move = (changes) => {
    const kept = presets.find(isAt), next = state.slice();
    for (const [control, place] of changes) next[control] = place;
    moved(kept && kept.at.length > 1 && next[0] !== state[0] ? of(kept, next[0]) : next);
  };
  const setters = controls.map((control, k) => setterOf(control, k, all(`[data-control="${k}"]`)[0], move));
  const [plots] = all(".mv-panels"), panels = spec.panels.map((about, k) => {
    const own = spec.marks.flatMap((mark, place) => (mark.panel === k ? [place] : []));
    const [frame, draw] = panelOf(about, own.map((place) => spec.marks[place]), plots, move);
    return [frame, () => draw(own.map((place) => shown.marks[place]))];
  });
  const [sentence, interval] = all(".mv-reading span"), cells = all("tbody tr").map((line) => line.querySelectorAll("td"));

  function update() {
    shown = still(state);
    if (live) shown = live(state, shown);
    for (const [, draw] of panels) draw();
    setters.forEach((set, k) => set(state[k]));
    buttons.forEach((button, k) => presets[k].times || button.setAttribute("aria-pressed", isAt(presets[k])));
    shown.cells.forEach((row, i) => row.forEach(([text, tone], k) => {
      cells[i][k].textContent = text;
      cells[i][k].className = tone ? `mv-${tone}` : "";
    }));
    sentence.textContent = shown.reading;
    interval.textContent = shown.interval && ` ${shown.interval}`;
  }
  function moved(next) {
    state = next.slice();
    update();
    clearTimeout(timer);
    timer = setTimeout(() => toAddress(spec.name, state), 300);
  }
  for (const [frame] of panels) frame();
  update();
  new ResizeObserver(() => { for (const [frame, draw] of panels) if (frame()) draw(); }).observe(plots);
  addEventListener("hashchange", () => {
    state = addressed(spec) || state;
    update();
  });
}

const startAll = () => document.querySelectorAll(".moving[id]").forEach(start);
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
else startAll();
})();
