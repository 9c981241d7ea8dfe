// On the search page: pages before functions, what explains before what reports; and, from a file, the place in the text.
"use strict";

// Glossary and foundations first, then chapters, then notebooks; functions last. A result is [page, title, anchor, kind, score, file].
var Scorer = {
  score: (result) => {
    const [page, , anchor, , score] = result;
    if (anchor.startsWith("#term-")) {
      result[1] = `${decodeURIComponent(anchor.slice(6)).replace(/-/g, " ")} <small>(glossary)</small>`;
      result[3] = null; // else no text is shown
      return score + 600;
    }
    if (/^(results\/api\/|api$|genindex|py-modindex)/.test(page)) return score - 1000;
    if (page.startsWith("results/foundations/")) return score + 200;
    return score + (page.startsWith("results/") || page === "ledger" ? 0 : 100);
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};

// A browser fetches no file from a file. What Sphinx's search wants of a page, its text, is in BOOK_TEXTS.
if (location.protocol === "file:") {
  const home = new URL("./", location.href).href;
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const fetched = window.fetch;
  window.fetch = (address, ...more) => {
    const page = new URL(address, location.href).href.slice(home.length).replace(/\.html([#?].*)?$/, "");
    const parts = (window.BOOK_TEXTS || {})[decodeURIComponent(page)];
    if (parts === undefined) return fetched(address, ...more);
    const shown = parts.map(([id, text]) => `<p id="${id}">${escaped(text)}</p>`);
    return Promise.resolve(new Response(`<div role="main">${shown.join("\n")}</div>`));
  };
}
