// What makes a page of jaxppo interactive: tabs, themes, charts (Apache ECharts), tables (Tabulator), symbols.
// All data comes from JSON blocks in the page; nothing is loaded from anywhere.
(() => {
  "use strict";

  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const parse = (id) => JSON.parse(document.getElementById(id).textContent);
  const MINUS = "\u2212";
  const DASH = "\u2013";
  root.classList.add("js");

  // ---------------------------------------------------------------- numbers, as jaxppo/page/text.py writes them

  function number(value, digits = 2) {
    if (value === null || value === undefined || Number.isNaN(value)) return DASH;
    if (!Number.isFinite(value)) return value > 0 ? "\u221e" : MINUS + "\u221e";
    const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return value < 0 && /[1-9]/.test(text) ? MINUS + text : text;
  }

  function tick(value) {
    return String(+value.toPrecision(6)).replace("-", MINUS);
  }

  function percent(value, digits = 1, sign = false) {
    if (typeof value !== "number" || !Number.isFinite(value)) return number(value);
    const text = number(100 * value, digits);
    return (sign && value > 0 && /[1-9]/.test(text) ? "+" : "") + text + "\u00a0%";
  }

  function count(value) {
    for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= limit) return tick(+(value / limit).toPrecision(3)) + unit;
    }
    return tick(+value.toPrecision(3));
  }

  const finite = (show) => (value) => (typeof value === "number" ? show(value) : number(value));
  // By the names that `Chart.option` may give in place of a function.
  const FORMATS = {
    number: finite((v) => number(v)),
    number1: finite((v) => number(v, 1)),
    number3: finite((v) => number(v, 3)),
    whole: finite((v) => number(v, 0)),
    tick: finite(tick),
    percent: finite((v) => percent(v)),
    percent0: finite((v) => percent(v, 0)),
    percent2: finite((v) => percent(v, 2)),
    signed: finite((v) => percent(v, 1, true)),
    ticks_percent: finite((v) => tick(100 * v) + "\u00a0%"),
    count: finite(count),
    price: finite((v) => String(+v.toPrecision(7))),
    count_text: (v) => count(Number(v)), // of a category axis, whose labels are texts
  };

  // ---------------------------------------------------------------- themes

  const roles = document.getElementById("roles") ? parse("roles") : {};
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  function stored() {
    try { return localStorage.getItem("jaxppo-theme"); } catch { return null; } // a file of its own may have no storage
  }

  function isDark() {
    if (printing) return false;
    return root.dataset.theme ? root.dataset.theme === "dark" : media.matches;
  }

  const color = (role) => (roles[role] ? roles[role][isDark() ? 1 : 0] : role);

  const STYLED = new Set(["color", "borderColor", "backgroundColor", "formatter", "valueFormatter", "labelFormatter"]);

  // Names of colours and formats become what they name, under the keys that hold such alone: a symbol may be called @ES.
  function resolved(value, styled = false) {
    if (typeof value === "string") {
      if (!styled || value[0] !== "@") return value;
      const name = value.slice(1);
      return FORMATS[name] || color(name);
    }
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map((x) => resolved(x, styled));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, STYLED.has(k))]));
    }
    return value;
  }

  function theme() {
    const axis = {
      axisLine: { lineStyle: { color: color("grid") } },
      axisTick: { lineStyle: { color: color("grid") } },
      axisLabel: { color: color("muted"), hideOverlap: true },
      splitLine: { lineStyle: { color: color("grid") } },
      nameTextStyle: { color: color("muted") },
    };
    return {
      color: ["policy", "orange", "green", "purple", "sky", "vermillion", "yellow", "black", "grey"].map(color),
      backgroundColor: "transparent",
      textStyle: { fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", color: color("ink") },
      categoryAxis: { ...axis, splitLine: { show: false } },
      valueAxis: axis, logAxis: axis, timeAxis: axis,
      legend: { textStyle: { color: color("ink") }, inactiveColor: color("grey"), pageTextStyle: { color: color("ink") } },
      tooltip: {
        backgroundColor: color("card"), borderColor: color("grid"), textStyle: { color: color("ink"), fontSize: 12.5 },
        axisPointer: { lineStyle: { color: color("grey") }, crossStyle: { color: color("grey") } },
      },
    };
  }

  // ---------------------------------------------------------------- charts

  const charts = new Map(); // element -> {chart, draw}

  function start(element, make) {
    const chart = echarts.init(element, theme(), { renderer: "canvas" });
    const draw = () => {
      chart.setTheme(theme());
      chart.setOption(completed(make(), element), { notMerge: true });
    };
    charts.set(element, { chart, draw });
    draw();
    keys(element, chart);
    return chart;
  }

  // What every chart has, unless its option says otherwise.
  function completed(option, element) {
    const narrow = element.clientWidth < 520;
    const axes = (found) => (Array.isArray(found) ? found : found ? [found] : []);
    for (const axis of [...axes(option.xAxis), ...axes(option.yAxis)]) {
      axis.axisLabel = { fontSize: narrow ? 10.5 : 11.5, ...axis.axisLabel };
    }
    return {
      animation: false,
      aria: { enabled: true, label: { description: element.getAttribute("aria-label") } },
      grid: { left: 8, right: 14, top: 40, bottom: 8, containLabel: true },
      legend: { type: "scroll", top: 4, left: 4, right: 4, itemWidth: 18, itemHeight: 10 },
      tooltip: { trigger: "axis", confine: true },
      ...option,
    };
  }

  function zoomOf(chart) {
    const zoom = chart.getOption().dataZoom;
    return zoom && zoom.length ? zoom[0] : null;
  }

  function zoomTo(chart, from, to) {
    const width = Math.min(Math.max(to - from, 0.2), 100);
    const begin = Math.min(Math.max(from, 0), 100 - width);
    chart.dispatchAction({ type: "dataZoom", start: begin, end: begin + width });
  }

  // Arrows move the pointer, with Shift the shown period; + and - zoom, 0 shows everything.
  function keys(element, chart) {
    let at = -1;
    element.addEventListener("keydown", (event) => {
      const zoom = zoomOf(chart);
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && event.shiftKey && zoom) {
        const by = (step * (zoom.end - zoom.start)) / 4;
        zoomTo(chart, zoom.start + by, zoom.end + by);
      } else if (step) {
        const series = chart.getModel().getSeriesByIndex(0);
        const n = series ? series.getData().count() : 0;
        at = Math.min(Math.max(at < 0 ? (step > 0 ? 0 : n - 1) : at + step, 0), n - 1);
        chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at });
      } else if (zoom && "+=-".includes(event.key)) {
        const change = ((zoom.end - zoom.start) * (event.key === "-" ? -0.5 : 0.25));
        zoomTo(chart, zoom.start + change, zoom.end - change);
      } else if (zoom && event.key === "0") {
        zoomTo(chart, 0, 100);
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  function button(text, title, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.title = title;
    made.addEventListener("click", () => act(made));
    return made;
  }

  function savePicture(element) {
    const { chart } = charts.get(element);
    const link = document.createElement("a");
    link.href = chart.getDataURL({ pixelRatio: 2, backgroundColor: color("card") });
    link.download = `${element.dataset.chart}.png`;
    link.click();
  }

  const DAY = 86_400_000;
  const RANGES = [["1 m", 31], ["6 m", 183], ["1 y", 366], ["5 y", 1827], ["All", Infinity]];

  function addTools(element, spec, state) {
    const tools = element.closest("figure").querySelector(".tools");
    const redraw = () => charts.get(element).draw();
    if (spec.times) {
      const length = (spec.times[spec.times.length - 1] - spec.times[0]) / DAY;
      for (const [text, days] of RANGES.filter(([, d]) => d < length || d === Infinity)) {
        tools.append(button(text, days === Infinity ? "the whole period" : `the last ${text}`, () => {
          zoomTo(charts.get(element).chart, days === Infinity ? 0 : 100 * (1 - days / length), 100);
        }));
      }
    }
    if (spec.log) {
      const toggle = button("Log", "logarithmic axis", (made) => {
        state.log = !state.log;
        made.setAttribute("aria-pressed", String(state.log));
        redraw();
      });
      toggle.setAttribute("aria-pressed", String(state.log));
      tools.append(toggle);
    }
    tools.append(button("PNG", "save as a picture", () => savePicture(element)));
  }

  // Round values between two others; a logarithmic axis of its own has powers of ten alone, of which most curves pass one.
  function roundValues(low, high) {
    const apart = (high - low) / 6;
    const size = 10 ** Math.floor(Math.log10(apart));
    const step = size * [1, 2, 2.5, 5, 10].find((s) => s * size >= apart);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(+v.toPrecision(6));
    return found;
  }

  function logarithmic(axis, numbers) {
    const above = numbers.filter((v) => v > 0);
    const [low, high] = [Math.min(...above), Math.max(...above)];
    const customValues = roundValues(low, high);
    return {
      ...axis, type: "log", min: low, max: high,
      axisTick: { ...axis.axisTick, customValues }, axisLabel: { ...axis.axisLabel, customValues },
    };
  }

  function logged(option, on) {
    if (!on) return option;
    const { source } = option.dataset[0];
    const numbers = Object.keys(source).filter((k) => /^y\d+$/.test(k)).flatMap((k) => source[k]);
    option.yAxis[0] = logarithmic(option.yAxis[0], numbers);
    return option;
  }

  // What each curve of growth did within the period shown.
  function describePeriod(element, chart, spec) {
    const out = element.closest("figure").querySelector("output");
    if (!out || !spec.growth) return;
    const { source } = chart.getOption().dataset[0];
    const zoom = zoomOf(chart);
    const [first, last] = [spec.times[0], spec.times[spec.times.length - 1]];
    const [from, to] = [zoom.start, zoom.end].map((share) => first + ((last - first) * share) / 100);
    const inside = source.time.map((t, i) => [t, i]).filter(([t]) => t >= from && t <= to).map(([, i]) => i);
    if (inside.length < 2) { out.textContent = "Under two points in this period."; return; }
    const [a, b] = [inside[0], inside[inside.length - 1]];
    const day = (t) => new Date(t).toISOString().slice(0, 10);
    const said = spec.growth.map(([column, name]) => {
      const curve = source[column];
      let peak = -Infinity, fall = 0;
      for (const i of inside) { if (curve[i] > peak) peak = curve[i]; fall = Math.max(fall, 1 - curve[i] / peak); }
      return `${name} ${percent(curve[b] / curve[a] - 1, 1, true)} (largest drawdown ${percent(fall)})`;
    });
    out.textContent = `${day(source.time[a])} to ${day(source.time[b])}: ${said.join("; ")}`;
  }

  function startChart(element) {
    const spec = parse(`chart-${element.dataset.chart}`);
    if (spec.times === true) spec.times = spec.option.dataset[0].source.time;
    const state = { log: Boolean(spec.log === "on") };
    const chart = start(element, () => logged(resolved(structuredClone(spec.option)), state.log));
    addTools(element, spec, state);
    if (spec.growth) {
      describePeriod(element, chart, spec);
      chart.on("dataZoom", () => describePeriod(element, chart, spec));
    }
  }

  // ---------------------------------------------------------------- one symbol: candles, equity, exposure, trades

  const SIDES = { long: ["long", "policy", "triangle", 0], short: ["short", "orange", "triangle", 180] };
  const EXITS = {
    order: ["closed by an order", "circle"], stop: ["stop-loss", "rect"], take_profit: ["take-profit", "diamond"],
    liquidation: ["liquidation", "pin"], end: ["open at the end", "emptyCircle"],
  };

  function candleLabel(times, step) {
    return (i) => {
      const t = times[i];
      if (t === undefined) return "";
      const text = new Date(t).toISOString();
      return step < DAY ? `${text.slice(0, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
    };
  }

  const MOST_CANDLES = 500; // more than that on a screen are a smear of two colours: the close is drawn then

  // Both ways to draw the price, one of them without data.
  function prices(data, candled) {
    const line = { color: color("grey"), width: 1.2 };
    return [
      {
        id: "candles", name: "candles", type: "candlestick",
        data: candled ? data.time.map((_, i) => [data.open[i], data.close[i], data.low[i], data.high[i]]) : [],
        itemStyle: { color: color("up"), borderColor: color("up"), color0: color("down"), borderColor0: color("down") },
      },
      { id: "close", name: "close", type: "line", data: candled ? [] : data.close, showSymbol: false, lineStyle: line, itemStyle: line },
    ];
  }

  function symbolOption(data, log, candled) {
    const times = data.time.map((minutes) => minutes * 60_000);
    const step = times.length > 1 ? (times[times.length - 1] - times[0]) / (times.length - 1) : DAY;
    const label = candleLabel(times, step);
    const grids = [
      { top: 44, height: "47%" }, { top: "63%", height: "15%" }, { top: "82%", height: "8%" },
    ].map((grid) => ({ left: 58, right: 14, outerBoundsMode: "none", ...grid }));
    const axis = (i) => ({
      type: "category", gridIndex: i, data: times.map((_, k) => label(k)), boundaryGap: true,
      axisLabel: { show: i === 2 }, axisTick: { show: false },
    });
    const value = (i, name, format, more = {}) => ({
      type: "value", gridIndex: i, scale: true, name, nameLocation: "middle", nameGap: 44,
      axisLabel: { formatter: FORMATS[format] }, splitNumber: i ? 2 : 5, ...more,
    });
    const trades = data.trades || [];
    const marks = Object.entries(SIDES).map(([side, [name, role, symbol, turn]]) => ({
      name: `${name} entry`, type: "scatter", symbol, symbolRotate: turn, symbolSize: 11, z: 5,
      itemStyle: { color: color(role), borderColor: color("card"), borderWidth: 1 },
      data: trades.filter((t) => t.side === side).map((t) => ({ value: [t.entry, t.entry_price], trade: t })),
    }));
    for (const [reason, [name, symbol]] of Object.entries(EXITS)) {
      marks.push({
        name: `exit: ${name}`, type: "scatter", symbol, symbolSize: 8, z: 5, itemStyle: { color: color("muted") },
        data: trades.filter((t) => t.reason === reason).map((t) => ({
          value: [t.exit, t.exit_price], trade: t,
          itemStyle: { color: color(t.pnl > 0 ? "win" : t.pnl < 0 ? "loss" : "grey"), borderColor: color("card"), borderWidth: 1 },
        })),
      });
    }
    const held = [["gain", (t) => t.pnl > 0, "win", "solid"], ["loss", (t) => !(t.pnl > 0), "loss", "dashed"]];
    const routes = held.map(([name, chosen, role, type]) => ({
      name, type: "lines", coordinateSystem: "cartesian2d", z: 4, silent: true, polyline: false,
      lineStyle: { color: color(role), type, width: 1.6, opacity: 0.9 },
      data: trades.filter(chosen).map((t) => ({ coords: [[t.entry, t.entry_price], [t.exit, t.exit_price]] })),
    }));
    const line = (name, column, role, grid, more = {}) => ({
      name, type: "line", data: column, xAxisIndex: grid, yAxisIndex: grid, showSymbol: false,
      lineStyle: { color: color(role), width: 1.5 }, itemStyle: { color: color(role) }, ...more,
    });
    return {
      grid: grids,
      legend: {
        type: "scroll", top: 4, left: 4, right: 4, itemWidth: 16, itemHeight: 10,
        data: [candled ? "candles" : "close", ...marks.filter((m) => m.data.length).map((m) => m.name), "gain", "loss"],
      },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "cross" }, formatter: (found) => symbolTip(found, data, label) },
      xAxis: [0, 1, 2].map(axis),
      yAxis: [
        log ? logarithmic(value(0, "price", "price"), data.low || data.close) : value(0, "price", "price"),
        value(1, "equity", "tick"),
        value(2, "exposure", "ticks_percent", { scale: false, min: (v) => Math.min(v.min, 0), max: (v) => Math.max(v.max, 0) }),
      ],
      dataZoom: [
        { type: "inside", xAxisIndex: [0, 1, 2], zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
        { type: "slider", xAxisIndex: [0, 1, 2], bottom: 4, height: 20 },
      ],
      series: [
        ...prices(data, candled), ...routes, ...marks,
        line("equity", data.equity, "policy", 1), line("buy-and-hold", data.hold, "grey", 1),
        line("exposure", data.exposure, "sky", 2, { step: "end", areaStyle: { opacity: 0.35 }, lineStyle: { width: 0.8, color: color("sky") } }),
      ],
    };
  }

  const text = (value) => {
    const made = document.createElement("span");
    made.textContent = String(value);
    return made.innerHTML;
  };

  function symbolTip(found, data, label) {
    const i = found.length ? found[0].dataIndex : 0;
    const at = found.find((f) => f.seriesType !== "scatter");
    const k = at ? at.dataIndex : i;
    const lines = [`<b>${text(label(k))}</b>`];
    if (data.open) {
      lines.push(["open", "high", "low", "close"].map((c) => `${c} ${FORMATS.price(data[c][k])}`).join(" &middot; "));
    } else {
      lines.push(`close ${FORMATS.price(data.close[k])}`);
    }
    lines.push(`equity ${number(data.equity[k], 3)} &middot; buy-and-hold ${number(data.hold[k], 3)} &middot; exposure ${percent(data.exposure[k], 0)}`);
    for (const t of (data.trades || []).filter((t) => t.entry === k || t.exit === k).slice(0, 6)) {
      const what = t.entry === k ? `${t.side} entry at ${FORMATS.price(t.entry_price)}` : `exit (${(EXITS[t.reason] || [t.reason])[0]}) at ${FORMATS.price(t.exit_price)}`;
      lines.push(`${text(what)}: ${percent(t.return, 2, true)} in ${number(t.bars, 0)} bars`);
    }
    return lines.join("<br>");
  }

  function startSymbols(element) {
    const view = element.closest(".symbols");
    const select = view.querySelector("select");
    const state = { log: false };
    const shown = () => parse(`symbol-${select.selectedIndex}`);
    let data = shown();
    const note = view.querySelector("output");
    let zoom = { start: 0, end: 100 };
    const few = () => Boolean(data.open) && ((zoom.end - zoom.start) / 100) * data.time.length <= MOST_CANDLES;
    const chart = start(element, () => {
      state.candled = few();
      const option = symbolOption(data, state.log, state.candled);
      for (const slider of option.dataZoom) Object.assign(slider, zoom);
      return option;
    });
    chart.on("dataZoom", () => {
      const { start: from, end: to } = zoomOf(chart);
      zoom = { start: from, end: to };
      if (few() !== state.candled) charts.get(element).draw();
    });
    const choose = () => {
      data = shown();
      zoom = { start: 0, end: 100 };
      charts.get(element).draw();
      note.textContent = data.note;
    };
    note.textContent = data.note;
    select.addEventListener("change", choose);
    const tools = view.querySelector(".tools");
    const turn = (by) => () => {
      select.selectedIndex = (select.selectedIndex + by + select.length) % select.length;
      choose();
    };
    tools.append(
      button("\u2039", "the symbol before", turn(-1)), button("\u203a", "the next symbol", turn(1)),
      button("All", "the whole period", () => zoomTo(chart, 0, 100)),
    );
    addTools(element, { log: true }, state);
    view.showTrade = (symbol, number) => {
      select.selectedIndex = Math.max([...select.options].findIndex((o) => o.value === symbol), 0);
      choose();
      const trade = (data.trades || []).find((t) => t.number === number);
      if (!trade) return;
      const n = data.time.length;
      const margin = Math.max(20, trade.exit - trade.entry);
      zoomTo(chart, (100 * (trade.entry - margin)) / n, (100 * (trade.exit + margin)) / n);
    };
  }

  // ---------------------------------------------------------------- tables

  function shownAs(kind, digits) {
    const as = {
      number: (v) => number(v, digits ?? 2), whole: (v) => number(v, 0), price: (v) => FORMATS.price(v),
      percent: (v) => percent(v, digits ?? 2), signed: (v) => percent(v, digits ?? 2, true),
      time: (v) => (v === null ? DASH : new Date(v * 1000).toISOString().slice(0, 16).replace("T", " ")),
    }[kind];
    return as ? (cell) => text(cell.getValue() === null ? DASH : as(cell.getValue())) : undefined;
  }

  function column(spec) {
    const numeric = spec.kind !== "text" && spec.kind !== "choice";
    const made = {
      title: spec.title, field: spec.field, hozAlign: numeric ? "right" : "left", sorter: numeric ? "number" : "string",
      formatter: shownAs(spec.kind, spec.digits) || "plaintext", headerTooltip: spec.meaning || true,
      headerSortStartingDir: numeric ? "desc" : "asc", frozen: spec.frozen || false, minWidth: 64,
    };
    if (spec.kind === "choice") {
      Object.assign(made, { headerFilter: "list", headerFilterParams: { valuesLookup: true, clearable: true }, headerFilterFunc: "=" });
    } else if (spec.kind === "text") {
      made.headerFilter = "input";
    }
    return made;
  }

  function startTable(element) {
    const spec = parse(`table-${element.dataset.table}`);
    const columns = spec.columns.map(column);
    if (spec.show) {
      columns.push({
        title: "Chart", headerSort: false, hozAlign: "center", download: false,
        formatter: () => '<button type="button" class="link">show</button>',
        cellClick: (_, cell) => showTrade(cell.getRow().getData()),
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

  function showTrade(row) {
    const view = document.querySelector(".symbols");
    if (!view) return;
    openTab(view.closest("[role=tabpanel]").id.slice("panel-".length));
    view.showTrade(row.symbol, row._number);
    view.scrollIntoView({ block: "start" });
  }

  // ---------------------------------------------------------------- tabs

  const started = new WeakSet();

  function startWithin(panel) {
    for (const element of all("[data-chart], [data-table], [data-symbols]", panel)) {
      if (started.has(element) || element.closest("details:not([open])")) continue;
      started.add(element);
      if (element.dataset.table !== undefined) startTable(element);
      else if (element.dataset.symbols !== undefined) startSymbols(element);
      else startChart(element);
    }
    for (const [element, { chart }] of charts) if (panel.contains(element)) chart.resize();
  }

  function openTab(name, focus = false) {
    const tab = document.getElementById(`tab-${name}`);
    if (!tab) return;
    for (const other of all("[role=tab]")) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    startWithin(document.getElementById(`panel-${name}`));
  }

  // A link to a section opens the tab that it lies in.
  function followHash() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const panel = target && target.closest("[role=tabpanel]");
    if (!panel) return;
    openTab(panel.id.slice("panel-".length));
    target.scrollIntoView();
  }

  function startTabs() {
    const tabs = all("[role=tab]");
    const name = (tab) => tab.id.slice("tab-".length);
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => {
        openTab(name(tab));
        history.replaceState(null, "", `#${tab.dataset.first}`);
      });
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        openTab(name(tabs[(to + tabs.length) % tabs.length]), true);
      });
    });
    if (tabs.length) openTab(name(tabs[0]));
    followHash();
    addEventListener("hashchange", followHash);
    for (const folded of all("details")) {
      folded.addEventListener("toggle", () => { if (folded.open) startWithin(folded); });
    }
  }

  // ---------------------------------------------------------------- the page

  const redraw = () => { for (const { draw } of charts.values()) draw(); };

  function startTheme() {
    const choice = document.querySelector("#theme");
    if (!choice) return;
    const set = (value) => {
      if (value === "auto") delete root.dataset.theme; else root.dataset.theme = value;
      choice.value = value;
    };
    set(["light", "dark"].includes(stored()) ? stored() : "auto");
    choice.addEventListener("change", () => {
      set(choice.value);
      try { localStorage.setItem("jaxppo-theme", choice.value); } catch { /* not kept, then */ }
      redraw();
    });
    media.addEventListener("change", redraw);
  }

  function startPrint() {
    addEventListener("beforeprint", () => {
      printing = true;
      for (const panel of all("[role=tabpanel]")) {
        panel.dataset.hidden = String(panel.hidden);
        panel.hidden = false;
        startWithin(panel);
      }
      redraw();
    });
    addEventListener("afterprint", () => {
      printing = false;
      for (const panel of all("[role=tabpanel]")) panel.hidden = panel.dataset.hidden === "true";
      redraw();
    });
  }

  startTheme();
  startTabs();
  startWithin(document.querySelector("#top") || document.body);
  startPrint();
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { for (const { chart } of charts.values()) chart.resize(); }, 100);
  });
  window.jaxppo = { charts, openTab, startWithin, FORMATS, start, resolved };
})();
