"use strict";
// The page is whole without this: it adds sorting, values by keyboard, and the same word marked in every method.
(() => {
  const line = document.createElement("output");
  line.className = "readout";
  line.setAttribute("aria-live", "polite");
  document.body.append(line);

  const texts = [...document.querySelectorAll(".tokens")].map((box) => [...box.querySelectorAll("[title]")]);
  const places = new Map();
  for (const units of texts) units.forEach((unit, index) => places.set(unit, [units, index]));

  const nameOf = (place) => {
    if (places.has(place)) return place.textContent;
    const row = place.parentElement, table = place.closest("table");
    const side = row.querySelector("th"), head = table && table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
    const top = head && head.cells[place.cellIndex];
    return [side, top].filter(Boolean).map((cell) => cell.textContent.trim()).join(", ");
  };
  let marked = [];
  const clear = () => {
    for (const unit of marked) unit.classList.remove("same");
    marked = [];
  };
  const tell = (place) => {
    clear();
    line.textContent = place ? `${nameOf(place)}: ${place.title}` : "";
    if (!places.has(place)) return;
    const [units, index] = places.get(place);
    for (const others of texts) {
      if (others.length === units.length && others[index].textContent === place.textContent) marked.push(others[index]);
    }
    for (const unit of marked) unit.classList.add("same");
  };
  const titled = (event) => event.target.closest && event.target.closest(".tokens [title],td[title]");
  document.addEventListener("pointerover", (event) => tell(titled(event)));
  document.addEventListener("focusin", (event) => tell(titled(event)));

  for (const units of texts) {
    units.forEach((unit, index) => {
      unit.tabIndex = index ? -1 : 0;
    });
  }
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !places.has(event.target)) return;
    const [units, index] = places.get(event.target);
    const next = units[index + (getComputedStyle(event.target).direction === "rtl" ? -step : step)];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  const number = (text) => {
    const plain = text.replace(/\u2212/g, "-").replace(/[\u2009\u202f,%±+\s]/g, "");
    return plain !== "" && isFinite(plain) ? Number(plain) : null;
  };
  const sort = (table, head) => {
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0], column = head.cellIndex;
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column] ? row.cells[column].textContent.trim() : "";
      return { row, text, value: number(text) };
    });
    const numeric = keyed.every((one) => one.value !== null || one.text === "" || one.text === "–");
    keyed.sort((a, b) => {
      if (!numeric) return a.text.localeCompare(b.text) * (down ? -1 : 1);
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return (a.value - b.value) * (down ? -1 : 1);
    });
    body.append(...keyed.map((one) => one.row));
  };
  for (const table of document.querySelectorAll("table:not(.grid):not(.bars)")) {
    if (!table.tHead || !table.tBodies[0] || table.tBodies[0].rows.length < 2) continue;
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head));
    }
  }
})();
