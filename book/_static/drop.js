// Drop a file: the reader's own answers, read and judged in the page. The numbers are those of moving.js; nothing is sent anywhere.
(function () {
"use strict";

const kernels = () => (typeof window === "undefined" ? require("./moving.js") : window.moving);
const WORDS = { 1: 1, 0: 0, true: 1, false: 0, yes: 1, no: 0, right: 1, wrong: 0 };
const COLUMNS = ["confidence", "correct", "confidence_2", "correct_2", "group"];
const STEPS = 2e7, DRAWS = 1000; // of the bootstrap: rows times draws, and draws

// name, what it is, its scale and digits in print, which way is better
const MEASURES = [
  ["accuracy", "Accuracy (% ↑)", 100, 2, 1],
  ["nll", "NLL (nats ↓)", 1, 4, -1],
  ["brier", "Brier (↓)", 1, 4, -1],
  ["ece", "ECE (% ↓)", 100, 2, -1],
  ["aurc", "AURC (% ↓)", 100, 3, -1],
  ["auroc", "AUROC (% ↑)", 100, 2, 1],
];

function fields(line, separator) {
  if (!line.includes('"')) return line.split(separator);
  const found = [];
  for (let at = 0; at <= line.length;) {
    if (line[at] !== '"') {
      const end = line.indexOf(separator, at), stop = end < 0 ? line.length : end;
      found.push(line.slice(at, stop));
      at = stop + 1;
      continue;
    }
    let end = at + 1;
    while (end < line.length && !(line[end] === '"' && line[end + 1] !== '"')) end += line[end] === '"' ? 2 : 1;
    found.push(line.slice(at + 1, end).replace(/""/g, '"'));
    at = end + 2;
  }
  return found;
}

/** The columns of a CSV; an Error names the line, the column and the value that cannot be read. */
function parse(text) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  if (!lines.length) throw Error("The file is empty. It needs a header line with the names confidence and correct, and a line for each answer.");
  const separator = [",", ";", "\t"].find((each) => lines[0].includes(each)) || ",";
  const names = fields(lines[0], separator).map((name) => name.trim().toLowerCase()), where = COLUMNS.map((name) => names.indexOf(name));
  for (const k of [0, 1]) {
    if (where[k] < 0) throw Error(`Line 1, the header, has no column ${COLUMNS[k]}; it has ${names.map((name) => `"${name}"`).join(", ")}.`);
  }
  if (where[2] < 0 !== where[3] < 0) throw Error("A second model needs both columns, confidence_2 and correct_2; one of them is missing in line 1.");
  if (lines.length < 3) throw Error(`The file has ${lines.length - 1} answers; at least two are needed.`);
  const two = where[2] >= 0, n = lines.length - 1, columns = COLUMNS.slice(0, two ? 4 : 2).map(() => new Float64Array(n));
  const group = where[4] >= 0 ? new Array(n) : null;
  for (let i = 0; i < n; i++) {
    const row = fields(lines[i + 1], separator), wrong = (k, what) => Error(`Line ${i + 2}, column ${COLUMNS[k]}: "${row[where[k]]}" ${what}`);
    if (row.length !== names.length) throw Error(`Line ${i + 2} has ${row.length} fields, the header has ${names.length}: "${lines[i + 1].slice(0, 60)}".`);
    columns.forEach((column, k) => {
      const word = row[where[k]].trim();
      const value = k % 2 ? WORDS[word.toLowerCase()] ?? (word && WORDS[+word]) : word === "" ? NaN : +word;
      if (k % 2 && !(value === 0 || value === 1)) throw wrong(k, "is neither 1 nor 0 (true or false, yes or no, right or wrong do as well).");
      if (!(value >= 0 && value <= 1)) throw wrong(k, `is no number from 0 to 1.${value <= 100 ? " A percentage? Divide it by 100." : word.includes(",") ? " A decimal comma? Write a point." : ""}`);
      column[i] = value;
    });
    if (group) group[i] = row[where[4]].trim();
  }
  return { n, group, models: two ? [columns.slice(0, 2), columns.slice(2)] : [columns] };
}

/** The losses of an answer, as a forecast of whether it is right. */
function losses([confidence, correct]) {
  const nll = confidence.map((sure, i) => -Math.log(correct[i] ? sure : 1 - sure));
  return [nll.map((each) => (Number.isFinite(each) ? each : 0)), confidence.map((sure, i) => (sure - correct[i]) ** 2), nll.findIndex((each) => !Number.isFinite(each))];
}

/** All measures of one or two models on these rows, each with its draws, and their difference on the same draws. */
function judged(models, draws, seed = 0) {
  const { ranked, score, drawer, middle, judge } = kernels(), n = models[0][0].length, lost = models.map(losses);
  const ranks = models.map(([confidence, correct], k) => ranked(confidence, correct, lost[k].slice(0, 2)));
  const flat = (state) => ({ ...state, nll: state.losses[0], brier: state.losses[1] });
  const values = ranks.map((each) => flat(score(each))), draw = drawer(n, seed);
  const drawn = ranks.map(() => MEASURES.map(() => new Float64Array(draws)));
  for (let k = 0; k < draws; k++) {
    const often = draw();
    ranks.forEach((each, m) => {
      const state = flat(score(each, often));
      MEASURES.forEach(([name], j) => { drawn[m][j][k] = state[name]; });
    });
  }
  return MEASURES.map(([name, , , , better], j) => {
    const there = (m) => (name === "nll" && lost[m][2] >= 0 ? NaN : values[m][name]);
    const interval = (value, all) => ({ value, ends: isNaN(value) || all.some(isNaN) ? [NaN, NaN] : middle(all) });
    const found = { name, models: models.map((_, m) => interval(there(m), drawn[m][j])) };
    if (models.length < 2) return found;
    const difference = interval(there(1) - there(0), drawn[1][j].map((value, k) => value - drawn[0][j][k]));
    return { ...found, difference, tone: judge(difference.ends, better) };
  });
}

const drawsFor = (n) => Math.max(200, Math.min(DRAWS, Math.floor(STEPS / n)));

if (typeof module !== "undefined") module.exports = { parse, judged, drawsFor, losses };
if (typeof document === "undefined") return;

const make = (...given) => window.make(...given); // of evidence.js, which is loaded by then

function tableOf(results, caption, home) {
  const { print } = kernels(), two = results[0].models.length > 1, table = make("table", home, undefined, { className: "mv-numbers" });
  make("caption", table, caption);
  const head = table.createTHead().insertRow();
  for (const text of ["", ...(two ? ["first model", "second model", "second less first", "so it is"] : ["value, 95 % interval"])]) make(text ? "th" : "td", head, text, text ? { scope: "col" } : {});
  const body = table.createTBody();
  results.forEach(({ name, models, difference, tone }) => {
    const [, title, scale, digits] = MEASURES.find(([each]) => each === name), line = body.insertRow();
    make("th", line, title, { scope: "row" });
    for (const { value, ends } of difference ? [...models, difference] : models) {
      const cell = make("td", line, print(scale * value, digits));
      if (!isNaN(ends[0])) make("small", cell, ` [${ends.map((end) => print(scale * end, digits)).join(", ")}]`);
    }
    if (difference) make("td", line, isNaN(difference.ends[0]) ? "" : tone === "same" ? "no telling" : tone, { className: `mv-${tone}` });
  });
  return table;
}

/** Reads a text and shows what it says under the form. */
function show(text, name, home) {
  home.replaceChildren();
  let data;
  try {
    data = parse(text);
  } catch (error) {
    make("p", home, `${name}: ${error.message}`, { className: "drop-error" });
    return;
  }
  const { n, group, models } = data, draws = drawsFor(n), count = n.toLocaleString("en");
  const errors = models.map(([, correct]) => n - correct.reduce((a, b) => a + b, 0));
  make("p", home, `${name}: ${count} answers, ${errors.map((each) => each.toLocaleString("en")).join(" and ")} of them wrong. ` +
    `Intervals of 95 % from ${draws.toLocaleString("en")} draws of as many answers${models.length > 1 ? ", the same draws for both models" : ""}.`);
  const missing = models.map(losses).findIndex((each) => each[2] >= 0);
  tableOf(judged(models, draws), "All answers", home);
  if (missing >= 0) {
    const line = losses(models[missing])[2] + 2, column = COLUMNS[2 * missing];
    make("p", home, `NLL: none, since line ${line} has a ${column} of ${models[missing][0][line - 2]}, and the opposite happened; the Brier score stands in for it.`);
  }
  if (errors.some((each) => each === 0 || each === n)) make("p", home, "AUROC: none where all answers are right, or all are wrong.");
  if (!group) return;
  const rows = new Map();
  group.forEach((each, i) => (rows.has(each) ? rows.get(each).push(i) : rows.set(each, [i])));
  const largest = [...rows].sort((a, b) => b[1].length - a[1].length), shown = largest.filter(([, some]) => some.length > 1).slice(0, 20);
  const box = make("div", home, undefined, { className: "drop-groups" });
  make("p", box, `${rows.size} groups${shown.length < rows.size ? `, of which the ${shown.length} largest are shown` : ""}; each is drawn from by itself.`);
  const next = (k) => { // one group at a time, so that the page stays alive
    if (k === shown.length) { home.dataset.done = "yes"; return; }
    const [name, some] = shown[k], fold = make("details", box);
    make("summary", fold, `${name || "(no name)"}: ${some.length.toLocaleString("en")} answers`);
    tableOf(judged(models.map((columns) => columns.map((column) => Float64Array.from(some, (i) => column[i]))), drawsFor(n)), name, fold);
    setTimeout(next, 0, k + 1);
  };
  setTimeout(next, 0, 0);
}

function start(root) {
  const result = make("div", root, undefined, { className: "drop-result" }), example = root.querySelector("script").textContent.trim();
  result.setAttribute("role", "status");
  const file = root.querySelector("input[type=file]"), zone = root.querySelector(".drop-zone");
  const read = async (given) => { if (given) show(await given.text(), given.name, result); };
  file.addEventListener("change", () => read(file.files[0]));
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("drop-over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("drop-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("drop-over");
    read(event.dataTransfer.files[0]);
  });
  root.querySelector(".drop-example").addEventListener("click", () => show(example, "The example", result));
  root.querySelector(".drop-save").href = `data:text/csv;charset=utf-8,${encodeURIComponent(example)}`;
  root.classList.add("drop-ready");
}

// moving.js, whose kernels are used, is loaded by then
document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".drop").forEach(start));
})();
