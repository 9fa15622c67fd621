// The page of a watch asks for what is new and shows it in place. All HTML comes escaped from the watch itself, and the
// page's content security policy runs no script but these, whatever the files of a run hold.
(() => {
  "use strict";

  const { charts } = jaxppo;
  const { seconds } = JSON.parse(document.getElementById("watch").textContent);
  const lost = document.getElementById("lost");
  const shown = new Map();

  // Whether it is new under this name.
  function isNew(name, text) {
    if (shown.get(name) === text) return false;
    shown.set(name, text);
    return true;
  }

  function show(state) {
    document.title = state.title;
    for (const [name, html] of Object.entries(state.parts)) {
      const part = document.getElementById(`live-${name}`);
      if (part && isNew(`part ${name}`, html)) part.innerHTML = html;
    }
    for (const [name, data] of Object.entries(state.charts)) {
      const text = JSON.stringify(data);
      const block = document.getElementById(`chart-${name}`);
      if (!block || !isNew(`chart ${name}`, text)) continue;
      block.textContent = text;
      const drawn = charts.get(document.querySelector(`[data-chart="${CSS.escape(name)}"]`));
      if (drawn) drawn.draw();
    }
  }

  async function ask() {
    try {
      const answer = await fetch("state.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const state = await answer.json();
      show(state);
      lost.textContent = state.over ? "Nothing more is written; this page is up to date and asks no more." : "";
      if (state.over) return;
    } catch {
      lost.textContent = "The watch cannot be reached (it ends with the run, or by Ctrl-C); this is what it showed last.";
    }
    setTimeout(ask, 1000 * seconds);
  }

  setTimeout(ask, 1000 * seconds);
})();
