// Sort and filter the table of images. Without this script the table is whole, the worst first.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const box = document.getElementById(table.dataset.filter);
  const [words, choice] = [box.querySelector("input"), box.querySelector("select")];
  const count = box.querySelector("output");
  box.hidden = false;
  const filter = () => {
    const wanted = words.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const tags = row.dataset.tags.split("\n");
      const fits = (!wanted || row.cells[0].textContent.toLowerCase().includes(wanted))
        && (!choice.value || tags.includes(choice.value));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} images`;
  };
  words.addEventListener("input", filter);
  choice.addEventListener("change", filter);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      rows.sort((a, b) => {
        const [one, other] = [value(a), value(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        const order = head.classList.contains("n") ? one - other : one.localeCompare(other);
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
  filter();
}
