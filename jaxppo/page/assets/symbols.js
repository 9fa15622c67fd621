// One symbol at a time: price, equity, exposure and trades.
(() => {
  "use strict";
  const { DAY, FORMATS, addTools, button, charts, color, logarithmic, number, parse, percent, start, text, zoomOf, zoomTo } = jaxppo;

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
      axisLabel: { show: i === 2 }, axisTick: { show: false }, axisPointer: { label: { show: i === 2 } },
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
    // Of each trade a line from entry to exit, then a gap. (The series that ECharts has for such leaves an empty canvas of
    // its own over the chart, which is printed white.)
    const routes = held.map(([name, chosen, role, type]) => ({
      name, type: "line", z: 4, silent: true, showSymbol: false, connectNulls: false, tooltip: { show: false },
      lineStyle: { color: color(role), type, width: 1.6, opacity: 0.9 }, itemStyle: { color: color(role) },
      data: trades.filter(chosen).flatMap((t) => [[t.entry, t.entry_price], [t.exit, t.exit_price], [t.exit, null]]),
    }));
    const line = (name, column, role, grid, more = {}) => ({
      name, type: "line", data: column, xAxisIndex: grid, yAxisIndex: grid, showSymbol: false,
      lineStyle: { color: color(role), width: 1.5 }, itemStyle: { color: color(role) }, ...more,
    });
    return {
      grid: grids,
      legend: {
        type: "scroll", top: 4, left: 4, right: 4, itemWidth: 16, itemHeight: 10,
        data: [candled ? "candles" : "close", ...marks.filter((m) => m.data.length).map((m) => m.name), "gain", "loss", "equity", "buy-and-hold", "exposure"],
      },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: { trigger: "axis", confine: true, axisPointer: { type: "cross" }, formatter: (found) => symbolTip(found, data, label) },
      xAxis: [0, 1, 2].map(axis),
      yAxis: [
        log ? logarithmic(value(0, "price", "price_tick"), data.low || data.close) : value(0, "price", "price_tick"),
        value(1, "equity", "tick"),
        value(2, "exposure", "ticks_percent", { scale: false, min: (v) => Math.min(v.min, 0), max: (v) => Math.max(v.max, 0) }),
      ],
      dataZoom: [
        { type: "inside", xAxisIndex: [0, 1, 2], zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
        { type: "slider", xAxisIndex: [0, 1, 2], bottom: 4, height: 20 },
      ],
      // All at once: what is drawn over several frames is not there yet when a page is printed.
      series: [
        ...prices(data, candled), ...routes, ...marks,
        line("equity", data.equity, "policy", 1), line("buy-and-hold", data.hold, "grey", 1),
        line("exposure", data.exposure, "sky", 2, { step: "end", areaStyle: { opacity: 0.35 }, lineStyle: { width: 0.8, color: color("sky") } }),
      ].map((series) => ({ progressive: 0, ...series })),
    };
  }

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
      lines.push(`${text(what)}: ${percent(t.return, 2, true)} in ${number(t.bars, 0)} ${t.bars === 1 ? "bar" : "bars"}`);
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

  function showTrade(row) {
    const view = document.querySelector(".symbols");
    if (!view) return;
    jaxppo.openTab(view.closest("[role=tabpanel]").id.slice("panel-".length));
    view.showTrade(row.symbol, row._number);
    view.scrollIntoView({ block: "start" });
  }

  Object.assign(jaxppo, { showTrade, startSymbols });
})();
