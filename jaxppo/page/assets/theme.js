// Light and dark: colours of charts by name, and the reader's choice.
(() => {
  "use strict";
  const { FORMATS, parse } = jaxppo;

  const root = document.documentElement;

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
      line: { symbol: "circle" }, // the default one is filled white, on a dark page too
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

  const print = (on) => { printing = on; };

  function startTheme(redraw) {
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

  Object.assign(jaxppo, { color, resolved, theme, print, startTheme });
})();
