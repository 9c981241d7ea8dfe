// Evidence beside the number that has it, one switch for the code of a page, filters of the ledger. All of it reads without this file.
"use strict";
const every = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
/** An element with a text, in its parent: what drop.js and guess.js make theirs of. */
window.make = (name, parent, text, more) => {
  const made = element(name, more, ...(text === undefined ? [] : [text]));
  parent.append(made);
  return made;
};

function showEvidence() {
  const numbers = every("a.ev");
  if (!numbers.length) return;
  const note = document.body.appendChild(element("div", { className: "ev-note", id: "ev-note", hidden: true }));
  note.setAttribute("role", "tooltip");
  let leaving = 0, open = null;
  const hide = () => {
    open?.classList.remove("open");
    open?.removeAttribute("aria-describedby");
    open = null;
    note.hidden = true;
  };
  const show = (link) => {
    clearTimeout(leaving);
    if (open === link) return;
    hide();
    const entry = document.getElementById(link.hash.slice(1));
    const source = entry.parentElement.previousElementSibling.cloneNode(true);
    note.replaceChildren(...entry.cloneNode(true).childNodes, source);
    note.hidden = false;
    const at = [...link.getClientRects()].at(-1), width = document.documentElement.clientWidth;
    const below = at.bottom + note.offsetHeight + 8 < innerHeight || at.top < note.offsetHeight + 8;
    note.style.left = `${scrollX + Math.max(8, Math.min(at.left, width - note.offsetWidth - 8))}px`;
    note.style.top = `${scrollY + (below ? at.bottom + 4 : link.getClientRects()[0].top - note.offsetHeight - 4)}px`;
    link.classList.add("open");
    link.setAttribute("aria-describedby", note.id);
    open = link;
  };
  const leave = () => { leaving = setTimeout(hide, 250); }; // time to move into the note, which has links
  for (const link of numbers) {
    link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", leave);
    link.addEventListener("click", (event) => { event.preventDefault(); show(link); });
  }
  note.addEventListener("pointerenter", () => clearTimeout(leaving));
  note.addEventListener("pointerleave", leave);
  note.addEventListener("focusin", () => clearTimeout(leaving));
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("pointerdown", (event) => event.target.closest?.(".ev-note, a.ev") || hide());
}

function switchCode() {
  const cells = every(".bd-article details.hide"), title = document.querySelector(".bd-article h1");
  if (cells.length < 2 || !title) return;
  const button = element("button", { type: "button", className: "code-switch" });
  const set = (open) => {
    for (const cell of cells) cell.open = open;
    button.textContent = open ? "Hide all code" : "Show all code";
    button.setAttribute("aria-pressed", String(open));
  };
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  set(false);
  title.closest(".bd-article").classList.add("one-switch"); // in place of a word at each cell
  title.after(button);
}

function filterLedger() {
  const claims = every(".claim"), place = document.querySelector(".ledger-filters");
  if (!place || !claims.length) return;
  const papers = every("section").filter((section) => section.querySelector(":scope > h2") && section.querySelector(".claim"));
  const asked = new URLSearchParams(location.search);
  const kind = (claim) => claim.classList[1];
  const defined = new Map(every("dl dt").map((dt) => [dt.textContent.trim().slice(2).replaceAll(" ", "-"), dt.nextElementSibling?.textContent.trim()]));
  const verdicts = [...defined.keys()].filter((name) => claims.some((claim) => kind(claim) === name));
  const choose = (label, values, words, given, meaning = () => "") => {
    const boxes = values.map((value) => element("input", { type: "checkbox", checked: !given || given === value, value }));
    const labels = boxes.map((box, k) => element("label", { title: meaning(values[k]) }, box, ` ${words[k]}`));
    place.append(element("fieldset", { className: "filters" }, element("legend", { className: "visually-hidden", textContent: label }), ...labels));
    return () => new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  };
  const own = (section) => section.querySelector(".claim[id]").id.split("-")[1];
  const title = (section) => section.querySelector("h2").firstChild.textContent.split(":")[0];
  const count = (name) => claims.filter((claim) => kind(claim) === name).length;
  const read = choose("Paper", papers.map(own), papers.map(title), asked.get("paper"));
  const chosen = choose("Verdict", verdicts, verdicts.map((name) => `${name.replaceAll("-", " ")} (${count(name)})`),
    asked.get("verdict")?.replaceAll(" ", "-"), (name) => defined.get(name));
  const apply = () => {
    const verdict = chosen(), paper = read(), all = verdict.size === verdicts.length;
    for (const claim of claims) claim.classList.toggle("filtered-out", !verdict.has(kind(claim)));
    for (const section of papers) {
      section.classList.toggle("filtered-out", !paper.has(own(section)));
      for (const row of every(":scope > section", section))
        row.classList.toggle("filtered-out", !all && !row.querySelector(".claim:not(.filtered-out)"));
    }
  };
  place.closest("section").after(place); // there it stays in sight
  place.addEventListener("change", apply);
  apply();
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.matches("details.claim")) target.open = true;
}

showEvidence();
switchCode();
filterLedger();
openTarget();
if (location.search) document.getElementById(location.hash.slice(1))?.scrollIntoView(); // the page is shorter now
addEventListener("hashchange", openTarget);
