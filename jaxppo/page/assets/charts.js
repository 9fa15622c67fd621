// Charts (Apache ECharts): what all of them have, their buttons and keys.
(() => {
  "use strict";
  const { DAY, color, parse, percent, resolved, theme } = jaxppo;

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
    // Read anew each time: the page of a watch changes it.
    const option = () => parse(`chart-${element.dataset.chart}`).option;
    const chart = start(element, () => logged(resolved(option()), state.log));
    addTools(element, spec, state);
    if (spec.growth) {
      describePeriod(element, chart, spec);
      chart.on("dataZoom", () => describePeriod(element, chart, spec));
    }
  }

  const redraw = () => { for (const { draw } of charts.values()) draw(); };

  Object.assign(jaxppo, { addTools, button, charts, logarithmic, redraw, start, startChart, zoomOf, zoomTo });
})();
