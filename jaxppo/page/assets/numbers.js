// Numbers as text, the same as jaxppo/page/text.py writes them, and what all scripts of a page share.
// All data comes from JSON blocks in the page; nothing is loaded from anywhere.
window.jaxppo = {};
(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const parse = (id) => JSON.parse(document.getElementById(id).textContent);
  const DAY = 86_400_000; // milliseconds
  const MINUS = "\u2212";
  const DASH = "\u2013";


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

  function count(value, digits = 3) {
    for (const [limit, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= limit) return tick(+(value / limit).toPrecision(digits)) + unit;
    }
    return tick(+value.toPrecision(3));
  }

  const finite = (show) => (value) => (typeof value === "number" ? show(value) : number(value));
  // By the names that `Chart.option` may give in place of a function.
  const FORMATS = {
    number: finite((v) => number(v)),
    number3: finite((v) => number(v, 3)),
    whole: finite((v) => number(v, 0)),
    tick: finite(tick),
    percent: finite((v) => percent(v)),
    percent0: finite((v) => percent(v, 0)),
    signed: finite((v) => percent(v, 1, true)),
    ticks_percent: finite((v) => tick(100 * v) + "\u00a0%"),
    count: finite((v) => count(v)),
    // An axis has room for eight characters.
    price_tick: finite((v) => {
      const size = Math.abs(v);
      if (size >= 1e6) return count(v, 5);
      return size > 0 && size < 1e-4 ? (+v.toPrecision(4)).toExponential().replace(/-/g, MINUS) : FORMATS.price(v);
    }),
    price: finite((v) => String(+v.toPrecision(7))),
    count_text: (v) => count(Number(v)), // of a category axis, whose labels are texts
  };

  // As HTML, whatever the data holds.
  const text = (value) => {
    const made = document.createElement("span");
    made.textContent = String(value);
    return made.innerHTML;
  };

  Object.assign(jaxppo, { all, parse, DAY, DASH, number, percent, count, FORMATS, text });
})();
