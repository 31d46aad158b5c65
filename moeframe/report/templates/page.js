"use strict";
// Sorting, filtering, hints and printing. Without it everything can still be read.

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const next = { none: "ascending", ascending: "descending", descending: "none" }[before];
      headings.forEach((each) => each.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? original : sorted(original, column, next === "ascending" ? 1 : -1)));
    });
  });
}

function sorted(rows, column, sign) {
  const value = (row) => row.cells[column].dataset.value;
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // missing values stay last
    const difference = column === 0 ? x.localeCompare(y) : Number(x) - Number(y);
    return sign * difference;
  });
}

for (const field of document.querySelectorAll("input[data-filter]")) {
  const rows = [...document.getElementById(field.dataset.filter).tBodies[0].rows];
  const count = document.querySelector(`output[data-count="${field.dataset.filter}"]`);
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  });
}

for (const choice of document.querySelectorAll("select[data-choose]")) {
  const table = document.getElementById(choice.dataset.choose);
  choice.addEventListener("change", () => (table.dataset.shown = choice.value));
}

// Paper has no folds: open them for printing, and close again what was closed.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const fold of opened) fold.open = true;
});
addEventListener("afterprint", () => {
  for (const fold of opened) fold.open = false;
});

const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "tooltip");
for (const part of document.querySelectorAll("svg .hint")) {
  const title = part.querySelector("title");
  part.dataset.hint = title.textContent;
  title.remove(); // or the browser would show it a second time
}
for (const part of document.querySelectorAll("[data-hint]")) {
  const around = part.parentElement.closest("[data-hint]"); // the line of a mark
  for (const begin of ["pointerenter", "focus", "click"]) {
    part.addEventListener(begin, (event) => {
      event.stopPropagation();
      show(part);
    });
  }
  part.addEventListener("pointerleave", () => (around ? show(around) : (tip.hidden = true)));
  part.addEventListener("blur", () => (tip.hidden = true));
}
document.addEventListener("click", () => (tip.hidden = true));
document.addEventListener("keydown", (event) => event.key === "Escape" && (tip.hidden = true));

function show(part) {
  tip.textContent = part.dataset.hint;
  tip.hidden = false;
  const box = part.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left), window.innerWidth - tip.offsetWidth - 8);
  const below = box.bottom + 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below + tip.offsetHeight > window.innerHeight ? Math.max(8, box.top - tip.offsetHeight - 8) : below}px`;
}
