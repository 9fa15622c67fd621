"""How the report looks: one palette for the charts and the page, and the page's style sheet."""

from __future__ import annotations

# Okabe and Ito (2008), "Color Universal Design": told apart under every common colour-vision deficiency.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILLION = "#D55E00"
PURPLE = "#B5609A"
SKY = "#56B4E9"
YELLOW = "#C9B400"  # darkened from #F0E442, which vanishes as a thin line on white
BLACK = "#374151"
GREY = "#8A919C"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, BLACK, GREY)

INK = "#1F2937"
MUTED = "#6B7280"
GRID = "#E8EAED"

POLICY = BLUE
FINAL = PURPLE
BENCHMARK = GREY
WIN = GREEN
LOSS = VERMILLION

# Charts are drawn once, on white; a dark page inverts them and turns the hue back, so that blue stays blue.
# invert(.906) takes white to the dark page's --card.
CSS = """
:root { --page: #f4f5f7; --card: #ffffff; --ink: #1f2937; --muted: #5f6875; --line: #e2e5e9; --accent: #0072b2;
  --good: #007a59; --bad: #b84a00; --caution: #8a6100; --good-bg: #e6f4ef; --bad-bg: #fceee4; --caution-bg: #fdf5e0; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.015em; }
h2 { font-size: 18px; margin: 0 0 4px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 20px 0 6px; }
p { margin: 6px 0 12px; max-width: 100ch; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.muted, figcaption, .lead { color: var(--muted); }
.lead { margin: 0 0 14px; max-width: none; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 16px 0 20px; padding: 10px 0; font-size: 13px;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 22px 16px;
  margin: 0 0 18px; }
.cards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; margin: 0 0 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px 11px; }
.card .label { font-size: 12px; color: var(--muted); }
.card .value { font-size: 25px; font-weight: 650; line-height: 1.25; letter-spacing: -.02em; white-space: nowrap; }
.card .note { font-size: 12px; color: var(--muted); line-height: 1.35; margin-top: 2px; }
.good { color: var(--good); } .bad { color: var(--bad); } .caution { color: var(--caution); }
.verdict { border-left: 5px solid var(--muted); }
.verdict.good, .verdict.bad, .verdict.caution { color: inherit; }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.verdict.caution { border-left-color: var(--caution); }
.verdict h2 { font-size: 19px; margin-bottom: 6px; } .verdict p:last-child { margin-bottom: 2px; }
ul.warnings { list-style: none; margin: 8px 0 4px; padding: 0; }
ul.warnings li { border-radius: 7px; padding: 8px 12px; margin: 0 0 7px; }
ul.warnings b { margin-right: 5px; }
li.bad { background: var(--bad-bg); } li.caution { background: var(--caution-bg); }
li.good { background: var(--good-bg); }
li span { color: var(--ink); }
figure { margin: 8px 0 4px; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; margin-top: 4px; max-width: 100ch; }
.scroll { overflow-x: auto; margin: 6px 0 10px; }
table { border-collapse: collapse; font-size: 13px; }
table.dense { font-size: 12px; width: 100%; } table.dense th { font-size: 11px; }
table.dense th, table.dense td { padding: 5px 5px; }
th { color: var(--muted); font-weight: 600; font-size: 12px; text-align: left; vertical-align: bottom; }
th, td { padding: 5px 9px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 2px; }
td.num, th.num { text-align: right; } td.num { white-space: nowrap; }
tr.total td { font-weight: 650; border-bottom: 2px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; align-items: start; }
.columns > * { min-width: 0; }
dl { margin: 8px 0; display: grid; grid-template-columns: minmax(120px, max-content) 1fr; gap: 5px 18px;
  font-size: 13.5px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
dl.glossary dt { color: var(--ink); font-weight: 600; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--accent); font-size: 13.5px; }
footer { color: var(--muted); font-size: 12.5px; text-align: center; }
@media (max-width: 900px) { .cards { grid-template-columns: repeat(3, 1fr); } .columns { grid-template-columns: 1fr; } }
@media (max-width: 520px) { .cards { grid-template-columns: repeat(2, 1fr); } main { padding: 16px 12px 40px; }
  section { padding: 14px; } }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #0f1011; --card: #181818; --ink: #e4e6ea; --muted: #9aa2ad; --line: #2c2e31; --accent: #5db4e8;
    --good: #3fc79b; --bad: #ff9257; --caution: #e6b84a; --good-bg: #12281f; --bad-bg: #33200f; --caution-bg: #2d2610; }
  figure img { filter: invert(.906) hue-rotate(180deg); }
}
@media print {
  @page { margin: 13mm; }
  :root { --page: #ffffff; }
  body { font-size: 11px; } main { max-width: none; padding: 0; } nav { display: none; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 12px 0; margin: 0; }
  section.verdict { border-left-width: 4px; border-left-style: solid; padding-left: 12px; }
  .cards { grid-template-columns: repeat(6, 1fr); } .card .value { font-size: 18px; }
  h2, h3 { break-after: avoid; } footer, details:not([open]) { display: none; }
  figure, .card, tr, li { break-inside: avoid; }
  .scroll { overflow: visible; } table, table.dense { font-size: 9px; } th { font-size: 9px; }
  th, td { padding: 3px 4px; }
  dl { font-size: 10px; } figcaption { font-size: 10px; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
