// The book calibrates its reader: a probability is asked before a finding is shown. The answers stay in this browser.
(function () {
"use strict";

const KEY = "uqlib-guesses", BATCH = 12, DRAWS = 2000;
const EDGES = [0, 0.2, 0.4, 0.6, 0.8, 1]; // of the bins of probabilities

/** Brier score of forecasts, that of the base rate, their difference with an interval, and the bins of the reader's curve. */
function judged(pairs, { drawer, middle }) {
  const n = pairs.length, mean = (of) => pairs.reduce((sum, pair) => sum + of(pair), 0) / n;
  const losses = pairs.map(([chance, came]) => (chance - came) ** 2), rate = mean((pair) => pair[1]);
  const draw = drawer(n), drawn = Array.from({ length: DRAWS }, () => {
    const often = draw();
    let brier = 0, came = 0;
    for (let i = 0; i < n; i++) { brier += often[i] * losses[i]; came += often[i] * pairs[i][1]; }
    return [brier / n, (came / n) * (1 - came / n)];
  });
  const bins = EDGES.slice(1).map((high, k) => {
    const own = pairs.filter(([chance]) => (k === 0 || chance > EDGES[k]) && chance <= high), m = own.length;
    if (!m) return null;
    const share = own.filter((pair) => pair[1]).length / m, z = 1.959963984540054; // Wilson's interval
    const centre = (share + z * z / (2 * m)) / (1 + z * z / m), reach = z * Math.sqrt(share * (1 - share) / m + z * z / (4 * m * m)) / (1 + z * z / m);
    return { count: m, chance: own.reduce((sum, pair) => sum + pair[0], 0) / m, share, low: centre - reach, high: centre + reach };
  }).filter(Boolean);
  return {
    n, rate, bins, brier: mean(([chance, came]) => (chance - came) ** 2), base: rate * (1 - rate), chance: mean((pair) => pair[0]),
    interval: middle(drawn.map((each) => each[0])), gain: middle(drawn.map((each) => each[0] - each[1])),
  };
}

/** Answers by claim; where the browser refuses to keep them they last as long as the page. */
function storeOf(storage) {
  let held = {}, kept = true;
  try { held = JSON.parse(storage().getItem(KEY) || "{}"); } catch { kept = false; }
  const valid = (chance) => typeof chance === "number" && chance >= 0 && chance <= 1;
  held = Object.fromEntries(Object.entries(Object(held)).filter((pair) => valid(pair[1])));
  const keep = (change) => { try { change(storage()); } catch { kept = false; } };
  return {
    get: (claim) => held[claim],
    set(claim, chance) { held[claim] = chance; keep((box) => box.setItem(KEY, JSON.stringify(held))); },
    forget() { held = {}; keep((box) => box.removeItem(KEY)); },
    kept: () => kept,
  };
}

if (typeof module !== "undefined") module.exports = { judged, storeOf, EDGES };
if (typeof document === "undefined") return;

const make = (...given) => window.make(...given); // of evidence.js, which is loaded by then
const percent = (share) => `${Math.round(100 * share)} %`;

function start() {
  const store = storeOf(() => window.localStorage), boxes = [...document.querySelectorAll(".guess")], home = document.querySelector(".guess-result");
  const seen = (box) => store.get(box.dataset.claim) !== undefined;

  for (const box of boxes) {
    const fold = box.querySelector("details"), form = make("div", box, undefined, { className: "guess-form" }), id = `guess-${box.dataset.claim}`;
    box.insertBefore(form, fold);
    const label = make("label", form, "How likely is it that our runs confirm this? ", { htmlFor: id }), said = make("b", label);
    const slider = make("input", form, undefined, { type: "range", id, min: 0, max: 100, step: 5, value: 50 });
    const button = make("button", form, "Show what was found", { type: "button" }), verdict = make("p", form, "", { className: "guess-told" });
    verdict.setAttribute("role", "status");
    const tell = () => {
      said.textContent = `${slider.value} %`;
      slider.style.setProperty("--share", slider.value / 100);
      slider.setAttribute("aria-valuetext", `${slider.value} percent`);
    };
    box.refresh = () => {
      const chance = store.get(box.dataset.claim), done = chance !== undefined;
      if (done) slider.value = 100 * chance;
      tell();
      slider.disabled = done;
      button.hidden = done;
      fold.hidden = !done;
      fold.open = done;
      verdict.textContent = done ? `You said ${percent(chance)}. It is ${box.dataset.came === "1" ? "confirmed" : "not confirmed"}.` : "";
    };
    slider.addEventListener("input", tell);
    button.addEventListener("click", () => {
      store.set(box.dataset.claim, slider.value / 100);
      refresh();
    });
  }

  let shown = BATCH;
  const more = home && make("button", home.parentElement, "", { type: "button", className: "guess-more" });
  if (home) {
    boxes[boxes.length - 1].after(more);
    more.addEventListener("click", () => { shown += BATCH; refresh(); });
    for (const button of document.querySelectorAll(".guess-forget")) {
      button.addEventListener("click", () => { store.forget(); shown = BATCH; boxes.forEach((box) => { box.querySelector("input").value = 50; }); refresh(); });
    }
  }

  const { panelOf, print, judge } = window.moving, list = home && make("p", home, "", { className: "mv-reading" });
  if (list) list.setAttribute("role", "status");
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => [share, String(Math.round(100 * share))]);
  const slots = [["line", "quiet thin dashed"], ["segments", "own"], ["dots", "own"]].map(([kind, tone]) => ({ kind, tone }));
  const plot = home && make("div", home, undefined, { className: "guess-plot" });
  const [frame, draw] = home ? panelOf({
    title: "Your forecasts, and how often they came true", ratio: 0.7,
    x: { label: "you said (%)", ticks }, y: { label: "confirmed (%)", ticks },
  }, slots, plot, () => {}) : [];
  const marks = (bins) => [
    { x: [0, 1], y: [0, 1] },
    { x: bins.map((bin) => bin.chance), x2: bins.map((bin) => bin.chance), y: bins.map((bin) => bin.low), y2: bins.map((bin) => bin.high) },
    { x: bins.map((bin) => bin.chance), y: bins.map((bin) => bin.share), size: bins.map((bin) => 3 + Math.sqrt(bin.count)) },
  ];

  function refresh() {
    boxes.forEach((box) => box.refresh());
    if (!home) return;
    let open = 0;
    for (const box of boxes) box.hidden = !seen(box) && ++open > shown;
    more.hidden = open <= shown;
    more.textContent = `Show ${Math.min(BATCH, open - shown)} more`;
    const pairs = boxes.filter(seen).map((box) => [store.get(box.dataset.claim), +box.dataset.came]);
    const found = pairs.length ? judged(pairs, window.moving) : null, note = store.kept() ? "" : " Your browser does not let this page keep anything: the answers last until you leave it.";
    plot.hidden = !found;
    if (!found) { list.textContent = `No answer yet, of ${boxes.length} findings.${note}`; return; }
    const interval = (ends) => `${print(ends[0], 3)} to ${print(ends[1], 3)}`, few = found.n < 10;
    const told = { better: "better than the base rate", worse: "worse than the base rate", same: "no telling beside the base rate" };
    list.textContent = `${found.n} of ${boxes.length} answered. On average you said ${percent(found.chance)}, and ${percent(found.rate)} were confirmed. ` +
      `Your Brier score is ${print(found.brier, 3)}${few ? "" : ` (95 % interval ${interval(found.interval)})`}; whoever knew that rate and always said it would have ${print(found.base, 3)}. ` +
      `${few ? "With fewer than ten answers that tells little." : `The difference lies between ${interval(found.gain).replace(" to ", " and ")}: ${told[judge(found.gain, -1)]}.`}${note}`;
    frame();
    draw(marks(found.bins));
  }
  refresh();
  if (home) new ResizeObserver(() => { if (!plot.hidden && frame()) refresh(); }).observe(plot);
}

// moving.js, which draws, is loaded by then
document.addEventListener("DOMContentLoaded", () => document.querySelector(".guess") && start());
})();
