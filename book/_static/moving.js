// Figures that move: uqlib/report/moving.py writes into the page what is drawn at each position of the controls, this file draws it.
// A figure of two networks carries their logits instead, and its numbers are computed here, as uqlib.metrics computes them.
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
    const numbers = (where, state, scale) =>
      Float64Array.from(column(where, state), (code) => (code > FULL ? NaN : code / scale));
    const words = (where, state) => Array.from(column(where, state)).filter((code) => code <= FULL).map((code) => spec.words[code]).join(" ");
    const marks = (state) => spec.marks.map((mark) => {
      if (mark.live) return {};
      const found = {};
      for (const key of ["x", "y", "x2", "y2"]) if (mark[key]) found[key] = numbers(mark[key], state, FULL);
      if (mark.size) found.size = numbers(mark.size, state, 10);
      if (mark.words) found.words = words(mark.words, state).split("\t");
      return found;
    });
    return (state) => ({
      marks: marks(state),
      cells: spec.rows ? spec.rows.map((row) => row.cells.map((cell) => words(cell, state).split("\t"))) : [],
      reading: spec.reading ? words(spec.reading, state) : "",
      interval: spec.interval ? words(spec.interval, state) : "",
    });
  }

  const LIVE = {};

  if (typeof module !== "undefined") module.exports = { decode };
  if (typeof document === "undefined") return;

  // ---- Drawing ----

  const RIGHT = 12, TOP = 26, BOTTOM = 40; // px around a plot

  const svg = (name, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const html = (name, attributes, parent, text) => {
    const node = document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const px = (value) => Math.round(10 * value) / 10;

  /** The path of all marks of a kind; what is NaN is left out, a line has a gap there. */
  const PATHS = {
    line({ x, y }, X, Y) {
      let d = "", pen = "M";
      for (let k = 0; k < x.length; k++) {
        const here = x[k] + y[k] === x[k] + y[k];
        if (here) d += pen + X(x[k]) + " " + Y(y[k]);
        pen = here ? "L" : "M";
      }
      return d;
    },
    dots({ x, y, size }, X, Y) {
      let d = "";
      for (let k = 0; k < x.length; k++) {
        const r = size[k] === undefined ? size[0] : size[k];
        if (x[k] + y[k] === x[k] + y[k]) d += `M${X(x[k]) - r} ${Y(y[k])}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      }
      return d;
    },
    segments({ x, y, x2, y2 }, X, Y) {
      let d = "";
      for (let k = 0; k < x.length; k++) if (x[k] + y[k] === x[k] + y[k]) d += `M${X(x[k])} ${Y(y[k])}L${X(x2[k])} ${Y(y2[k])}`;
      return d;
    },
    boxes({ x, y, x2, y2 }, X, Y) {
      let d = "";
      for (let k = 0; k < x.length; k++) if (x[k] + y[k] === x[k] + y[k]) d += `M${X(x[k])} ${Y(y[k])}H${X(x2[k])}V${Y(y2[k])}H${X(x[k])}Z`;
      return d;
    },
    band({ x, y, y2 }, X, Y) {
      const there = Array.from(x.keys()).filter((k) => x[k] + y[k] === x[k] + y[k]);
      const points = there.map((k) => `${X(x[k])} ${Y(y[k])}`).concat(there.reverse().map((k) => `${X(x[k])} ${Y(y2[k])}`));
      return points.length ? `M${points.join("L")}Z` : "";
    },
  };

  /** A plot; it is drawn in pixels of the page, so that its words have one size everywhere. */
  function panelOf(about, slots, home, move) {
    const root = svg("svg", { role: "img", "aria-label": about.title, class: `mv-panel${about.wide ? " mv-wide" : ""}` }, home);
    const LEFT = about.y.ticks.length ? 46 : 12;
    const axes = svg("g", {}, root), inner = svg("svg", { overflow: "hidden" }, root), plot = svg("g", {}, inner);
    const nodes = slots.map((slot) => svg(slot.kind === "text" ? "g" : "path", { class: `mv-${slot.kind} mv-${slot.tone.replace(/ /g, " mv-")}` }, plot));
    let width = 0, height = 0;
    const X = (share) => px(share * width), Y = (share) => px((1 - share) * height);

    function frame() {
      const all = Math.max(200, home.clientWidth && root.getBoundingClientRect().width || 300);
      if (all - LEFT - RIGHT === width) return false;
      width = all - LEFT - RIGHT;
      height = Math.round(width * about.ratio);
      root.setAttribute("viewBox", `0 0 ${all} ${height + TOP + BOTTOM}`);
      for (const [key, value] of Object.entries({ x: LEFT, y: TOP, width, height })) inner.setAttribute(key, value);
      axes.replaceChildren();
      svg("text", { x: 0, y: 13, class: "mv-title" }, axes, about.title);
      svg("text", { x: LEFT + width / 2, y: height + TOP + 35, "text-anchor": "middle" }, axes, about.x.label);
      svg("text", { x: -(TOP + height / 2), y: 10, transform: "rotate(-90)", "text-anchor": "middle" }, axes, about.y.label);
      for (const [share, text] of about.y.ticks) {
        svg("path", { d: `M${LEFT} ${TOP + Y(share)}h${width}`, class: share ? "mv-grid" : "mv-axis" }, axes);
        svg("text", { x: LEFT - 5, y: TOP + Y(share) + 4, "text-anchor": "end" }, axes, text);
      }
      let last = -Infinity;
      for (const [share, text] of about.x.ticks) {
        const x = LEFT + X(share), wide = 7 * text.length + 8;
        svg("path", { d: `M${x} ${TOP + height}v4`, class: "mv-axis" }, axes);
        if (x - last < wide) continue; // on a phone not every tick has room for its words
        svg("text", { x, y: TOP + height + 17, "text-anchor": "middle" }, axes, text);
        last = x;
      }
      svg("path", { d: `M${LEFT} ${TOP + height}h${width}`, class: "mv-axis" }, axes);
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
        if (event.pointerType === "mouse") event.preventDefault();
        root.setPointerCapture(event.pointerId);
        root.addEventListener("pointermove", take);
      });
      for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, () => root.removeEventListener("pointermove", take));
      root.addEventListener("click", take); // a finger that taps; one that moves up or down scrolls the page
    }

    return {
      frame,
      draw(marks) {
        slots.forEach((slot, k) => {
          const mark = marks[k];
          if (slot.kind !== "text") return nodes[k].setAttribute("d", mark.x ? PATHS[slot.kind](mark, X, Y) : "");
          nodes[k].replaceChildren();
          mark.words.forEach((text, i) => {
            if (mark.x[i] === mark.x[i]) svg("text", { x: X(mark.x[i]), y: Y(mark.y[i]) + 4, "text-anchor": slot.anchor || "middle" }, nodes[k], text);
          });
        });
      },
    };
  }

  // ---- The controls ----

  function controlOf(control, k, id, home, move) {
    if (control.options) {
      const group = html("fieldset", { class: "mv-choice" }, home);
      html("legend", {}, group, control.name);
      const radios = control.options.map((text, place) => {
        const label = html("label", {}, group), radio = html("input", { type: "radio", name: `${id}-${k}`, value: place }, label);
        html("span", {}, label, text);
        radio.addEventListener("change", () => move([[k, place]]));
        return radio;
      });
      return (place) => { radios[place].checked = true; };
    }
    const label = html("label", { class: "mv-slider" }, home);
    html("b", {}, label, control.name);
    const output = html("output", { "aria-live": "off" }, label);
    const slider = html("input", { type: "range", min: 0, max: control.positions - 1, step: 1 }, label);
    slider.addEventListener("input", () => move([[k, +slider.value]]));
    return (place) => {
      const text = control.words ? control.words[place] : (place * control.step).toFixed(control.digits);
      slider.value = place;
      slider.style.setProperty("--share", place / (control.positions - 1));
      slider.setAttribute("aria-valuetext", text);
      output.textContent = text;
    };
  }

  /** The state that the address holds for a figure: #name=position,position. */
  function addressed(name, controls) {
    const found = location.hash.slice(1).split("&").find((part) => part.startsWith(`${name}=`));
    if (!found) return null;
    const state = found.slice(name.length + 1).split(",").map(Number);
    return state.length === controls.length && state.every((each, k) => each >= 0 && each <= controls[k].positions - 1) ? state : null;
  }

  function toAddress(name, state) {
    const others = location.hash.slice(1).split("&").filter((part) => part.includes("=") && !part.startsWith(`${name}=`));
    try {
      history.replaceState(history.state, "", `#${[`${name}=${state.map((each) => +each.toFixed(3))}`, ...others].join("&")}`);
    } catch { /* a page that may not say where it stands is a figure all the same */ }
  }

  // ---- The figure ----

  let figures = 0;

  function start(root) {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const spec = JSON.parse(root.querySelector("script").textContent), { controls, name } = spec, id = `mv${figures++}`;
    const still = decode(spec), live = spec.live && LIVE[spec.live.kind](spec);
    const at = (state) => {
      const seen = still(state.map((each, k) => (controls[k].step ? 0 : each)));
      return live ? live(state, seen) : seen;
    };
    root.replaceChildren();
    const presets = spec.presets.length ? html("div", { class: "mv-presets", role: "group", "aria-label": "Settings to start from" }, root) : null;
    const of = (preset) => preset.at[Math.min(preset.at.length - 1, state[0])];
    const buttons = spec.presets.map((preset) => {
      const button = html("button", { type: "button" }, presets, preset.name);
      button.addEventListener("click", () => moved(preset.times ? state.map((each, k) => (
        preset.of.includes(k) ? Math.min(controls[k].positions - 1, preset.times * each) : each)) : of(preset)));
      return button;
    });
    const isAt = (preset) => !preset.times && of(preset).every((each, k) => Math.abs(each - state[k]) < 1e-9);
    const home = html("div", { class: "mv-controls" }, root);
    const move = (changes) => {
      const kept = spec.presets.find(isAt), next = state.slice();
      for (const [control, place] of changes) next[control] = place;
      if (!kept || kept.at.length === 1 || changes[0][0] !== 0) return moved(next);
      moved(kept.at[next[0]]); // of another sidekick, say, the weights that are its own
    };
    const setters = controls.map((control, k) => controlOf(control, k, id, home, move));
    const legend = html("p", { class: "mv-legend" }, root), seen = new Set();
    for (const { name: words, tone, kind } of spec.marks) {
      if (!words || seen.has(words)) continue;
      html("span", { class: `mv-key mv-key-${kind} mv-${tone.replace(/ /g, " mv-")}` }, legend, words);
      seen.add(words);
    }
    const plots = html("div", { class: `mv-panels mv-of-${spec.panels.length}` }, root);
    const panels = spec.panels.map((about, k) => {
      const own = spec.marks.map((mark, place) => [mark, place]).filter(([mark]) => mark.panel === k);
      const panel = panelOf(about, own.map(([mark]) => mark), plots, move);
      return { frame: panel.frame, draw: (marks) => panel.draw(own.map(([, place]) => marks[place])) };
    });
    const reading = html("p", { class: "mv-reading", "aria-live": "polite" }, root);
    const sentence = html("span", {}, reading), interval = html("span", { class: "mv-interval" }, reading);
    const table = html("table", { class: "mv-numbers" }, root), head = table.createTHead().insertRow();
    html("td", {}, head, spec.about);
    for (const column of spec.columns) html("th", { scope: "col" }, head, column);
    const body = table.createTBody();
    const cells = spec.rows.map((row) => {
      const line = body.insertRow();
      line.className = `mv-${row.tone}`;
      html("th", { scope: "row" }, line, row.name);
      return spec.columns.map(() => line.insertCell());
    });
    if (!spec.rows.length) table.remove();

    let state = addressed(name, controls), timer, shown;
    if (state) setTimeout(() => root.scrollIntoView({ block: "nearest" }));
    else state = spec.start;

    function update() {
      shown = at(state);
      panels.forEach((panel) => panel.draw(shown.marks));
      setters.forEach((set, k) => set(state[k]));
      buttons.forEach((button, k) => { if (!spec.presets[k].times) button.setAttribute("aria-pressed", isAt(spec.presets[k])); });
      shown.cells.forEach((row, i) => row.forEach(([text, tone], k) => {
        cells[i][k].textContent = text;
        cells[i][k].className = tone ? `mv-${tone}` : "";
      }));
      sentence.textContent = shown.reading;
      interval.textContent = shown.interval ? ` ${shown.interval}` : "";
    }
    function moved(next) {
      state = next.slice();
      update();
      clearTimeout(timer);
      timer = setTimeout(() => toAddress(name, state), 300);
    }
    panels.forEach((panel) => panel.frame());
    update();
    new ResizeObserver(() => {
      if (panels.filter((panel) => panel.frame()).length) panels.forEach((panel) => panel.draw(shown.marks));
    }).observe(plots);
    addEventListener("hashchange", () => {
      const wanted = addressed(name, controls);
      if (wanted) { state = wanted; update(); }
    });
  }

  const startAll = () => document.querySelectorAll(".moving").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
