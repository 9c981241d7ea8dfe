// Whatever scrolls sideways can be reached and scrolled by the keyboard, and says that it scrolls.
(() => {
  const boxes = ".wide, .bd-article pre, .bd-article div.math, .bd-article .shown, .bd-article figure";
  const mark = () => document.querySelectorAll(boxes).forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
    if (scrolls === (box.tabIndex === 0)) return;
    const told = { role: "group", "aria-label": `${box.querySelector("caption")?.textContent || "Content"} (scrolls sideways)` };
    const said = { tabindex: "0", ...(box.tagName === "FIGURE" ? {} : told) };  // a figure is one, and has its caption
    for (const [name, value] of Object.entries(said)) scrolls ? box.setAttribute(name, value) : box.removeAttribute(name);
  });
  addEventListener("load", mark);
  addEventListener("resize", mark);
  addEventListener("toggle", mark, true);
})();
