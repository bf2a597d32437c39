// Tables sort by their headings and download as they stand; text copies.
"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const missing = (text) => text === "n/a" || text === "";

  function order(a, b, numeric) {
    return numeric ? Number(a) - Number(b) : collator.compare(a, b);
  }

  function sort(table, column) {
    const heads = [...table.tHead.rows[0].cells], head = heads[column];
    const up = head.getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0], rows = [...body.rows];
    const texts = rows.map((row) => value(row, column));
    const numeric = texts.every((text) => missing(text) || !Number.isNaN(Number(text)));
    rows.sort((a, b) => {
      const x = value(a, column), y = value(b, column);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return (up ? 1 : -1) * order(x, y, numeric);
    });
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows);
  }

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function csv(table) {
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.column);
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map((_, i) => value(row, i)));
    // With its mark a spreadsheet takes it for UTF-8.
    return "\ufeff" + [heads, ...rows].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
  }

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column));
    });
    const button = Object.assign(document.createElement("button"), { type: "button", className: "download", textContent: "Download CSV" });
    button.setAttribute("aria-label", `Download CSV: ${table.caption.textContent}`);
    button.addEventListener("click", () => save(table.dataset.file, csv(table), "text/csv"));
    table.parentElement.after(button);
  }

  for (const block of document.querySelectorAll("[data-copy]")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy ${block.dataset.copy}`);
    button.addEventListener("click", async () => {
      const text = block.innerText.trim();
      try {
        await navigator.clipboard.writeText(text);
      } catch { // not allowed in a file opened from disk by some browsers
        const range = document.createRange();
        range.selectNodeContents(block);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.before(button);
  }

  // On paper the panels are open.
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details.panel:not([open])")) { d.open = true; closed.push(d); }
  });
  addEventListener("afterprint", () => { for (const d of closed.splice(0)) d.open = false; });
})();
