// Tables to sort, filter and download (Tabulator).
(() => {
  "use strict";
  const { DASH, FORMATS, button, number, parse, percent, text } = jaxppo;

  function shownAs(kind, digits) {
    const as = {
      number: (v) => number(v, digits ?? 2), short: (v) => FORMATS.tick(v), whole: (v) => number(v, 0), price: (v) => FORMATS.price(v),
      percent: (v) => percent(v, digits ?? 2), signed: (v) => percent(v, digits ?? 2, true),
      time: (v) => (v === null ? DASH : new Date(v * 1000).toISOString().slice(0, 16).replace("T", " ")),
    }[kind];
    return as ? (cell) => text(cell.getValue() === null ? DASH : as(cell.getValue())) : undefined;
  }

  // Names are the data's: as text, never as HTML, and each of them, whatever it is called (Tabulator's own list keeps
  // them as keys of an object, which loses `__proto__`).
  function choices(values) {
    return {
      values: [...new Set(values)].filter((v) => v !== null && v !== "").sort(), clearable: true, itemFormatter: (label) => text(label),
    };
  }

  function column(spec, values) {
    const numeric = spec.kind !== "text" && spec.kind !== "choice";
    const made = {
      title: spec.title, field: spec.field, hozAlign: numeric ? "right" : "left", sorter: numeric ? "number" : "string",
      formatter: shownAs(spec.kind, spec.digits) || "plaintext", headerTooltip: spec.meaning || true,
      headerSortStartingDir: numeric ? "desc" : "asc", frozen: spec.frozen || false, minWidth: 64,
    };
    const named = { elementAttributes: { "aria-label": `Filter by ${spec.title}` } };
    if (spec.kind === "choice") {
      Object.assign(made, { headerFilter: "list", headerFilterParams: { ...choices(values), ...named }, headerFilterFunc: "=" });
    } else if (spec.kind === "text") {
      Object.assign(made, { headerFilter: "input", headerFilterParams: named });
    }
    return made;
  }

  function startTable(element) {
    const spec = parse(`table-${element.dataset.table}`);
    const columns = spec.columns.map((c, k) => column(c, spec.rows.map((row) => row[k])));
    if (spec.show) {
      columns.push({
        title: "Chart", headerSort: false, hozAlign: "center", download: false,
        formatter: () => '<button type="button" class="link">show</button>',
        cellClick: (_, cell) => jaxppo.showTrade(cell.getRow().getData()),
      });
    }
    const rows = spec.rows.map((row, i) => {
      const record = { _number: i };
      spec.columns.forEach((c, k) => { record[c.field] = row[k]; });
      return record;
    });
    const table = new Tabulator(element, {
      data: rows, columns, index: "_number", layout: "fitDataFill", maxHeight: 460, placeholder: "No row fits the filters.",
      columnDefaults: { resizable: false },
    });
    const figure = element.closest("figure");
    const tools = figure.querySelector(".tools");
    tools.append(button("CSV", "download the rows that are shown", () => table.download("csv", `${element.dataset.table}.csv`)));
    tools.append(button("Clear filters", "show all rows", () => { table.clearHeaderFilter(); }));
    const out = figure.querySelector("output");
    const tell = (_, found) => { out.textContent = `${number(found.length, 0)} of ${number(rows.length, 0)} rows`; };
    table.on("dataFiltered", tell);
    table.on("tableBuilt", () => {
      tell(null, rows);
      // Tabulator's headings take no keys of their own.
      for (const heading of table.getColumns()) {
        const box = heading.getElement();
        if (!heading.getField()) continue;
        box.tabIndex = 0;
        box.addEventListener("keydown", (event) => {
          if (event.target !== box || (event.key !== "Enter" && event.key !== " ")) return;
          event.preventDefault();
          const [sorted] = table.getSorters();
          const down = sorted && sorted.field === heading.getField() && sorted.dir === "desc";
          table.setSort(heading.getField(), down ? "asc" : "desc");
        });
      }
    });
  }

  Object.assign(jaxppo, { startTable });
})();
