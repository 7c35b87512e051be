"use strict";
// Sorting: a click on a column head orders the rows by their data-sort values; empty values go last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const label = head.querySelector(".head");
    if (!label || !label.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    label.replaceWith(button);
    button.append(label);
    button.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const key = (row) => row.cells[column].dataset.sort;
      const numeric = rows.every((row) => !Number.isNaN(Number(key(row))));
      const first = column === 0 || !numeric ? "ascending" : "descending";
      const other = { ascending: "descending", descending: "ascending" };
      const order = other[head.getAttribute("aria-sort")] || first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (numeric ? x - y : x.localeCompare(y));
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// The example browser: search, methods, disagreements.
const controls = document.querySelector("[data-controls]");
if (controls) {
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  const examples = [...document.querySelectorAll(".example")];
  const search = controls.querySelector("[data-search]");
  const split = controls.querySelector("[data-split]");
  const boxes = [...controls.querySelectorAll("[data-method]")];
  const count = controls.querySelector("[data-count]");
  const openAll = controls.querySelector("[data-open]");
  const show = () => {
    const words = search.value.trim().toLowerCase();
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.method));
    let shown = 0;
    for (const example of examples) {
      for (const chip of example.querySelectorAll("[data-chip]")) chip.hidden = hidden.has(chip.dataset.chip);
      let found = "";
      let disagree = false;
      for (const card of example.querySelectorAll(".card")) {
        const off = "card" in card.dataset && hidden.has(card.dataset.card);
        card.hidden = off;
        if (off) continue;
        found += "\n" + card.querySelector(".text").textContent;
        disagree = disagree || "disagree" in card.dataset;
      }
      const asked = example.querySelector(".instruction") || example.querySelector(".heading");
      const fits = !words || (asked.textContent + found).toLowerCase().includes(words);
      example.hidden = !fits || Boolean(split && split.checked && !disagree);
      if (!example.hidden) shown += 1;
    }
    count.textContent = `${shown} of ${examples.length} shown`;
  };
  controls.addEventListener("input", show);
  openAll.addEventListener("click", () => {
    const open = openAll.textContent === "Open all";
    for (const example of examples) example.open = open;
    openAll.textContent = open ? "Close all" : "Open all";
  });
  show();
}
