"use strict";
// Everything can be read without this: it only sorts tables and filters examples.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column];
        if (cell.classList.contains("name")) return cell.textContent;
        const text = [...cell.childNodes].filter((node) => node.nodeName === "#text").map((node) => node.data).join("");
        const number = parseFloat(text.replaceAll(",", "").replace("\u2212", "-"));
        return Number.isNaN(number) ? -Infinity : number;
      };
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b || 0);
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (rising ? 1 : -1) * compare(value(a), value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}
const filters = document.getElementById("filters");
if (filters) {
  const examples = [...document.querySelectorAll("article.example")];
  const apply = () => {
    let shown = 0;
    for (const example of examples) {
      const fits = [...filters.querySelectorAll("select")].every((one) => !one.value || example.dataset[one.name] === one.value);
      example.hidden = !fits;
      shown += fits;
    }
    filters.querySelector("output").textContent = `${shown} of ${examples.length}`;
  };
  filters.hidden = false;
  filters.addEventListener("change", apply);
  apply();
}
