// The page: tabs, printing, and what starts when it is shown.
(() => {
  "use strict";
  const { all, charts, print, redraw, startChart, startSymbols, startTable, startTheme } = jaxppo;

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
    const list = tab.parentElement; // scrolled by hand: scrollIntoView would also move the page down to the tabs
    list.scrollLeft = Math.min(Math.max(list.scrollLeft, tab.offsetLeft + tab.offsetWidth - list.clientWidth), tab.offsetLeft);
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

  Object.assign(jaxppo, { openTab, startWithin });



  function startPrint() {
    addEventListener("beforeprint", () => {
      print(true);
      for (const panel of all("[role=tabpanel]")) {
        panel.dataset.hidden = String(panel.hidden);
        panel.hidden = false;
        startWithin(panel);
      }
      redraw();
    });
    addEventListener("afterprint", () => {
      print(false);
      for (const panel of all("[role=tabpanel]")) panel.hidden = panel.dataset.hidden === "true";
      redraw();
    });
  }

  document.documentElement.classList.add("js");
  startTheme(redraw);
  startTabs();
  startWithin(document.querySelector("#top") || document.body);
  startPrint();
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { for (const { chart } of charts.values()) chart.resize(); }, 100);
  });
})();
