"""How the page looks: one column, large figures, dark where the reader's system is dark."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b2430; --soft: #5b6878; --paper: #ffffff; --card: #f4f6f9; --rule: #d8dee6;
  --train: #7c5cd6; --held: #0b7a75; --right: 11 122 117; --wrong: 205 70 30; --focus: #2563eb; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6ebf1; --soft: #9aa7b6; --paper: #12161b; --card: #1b2128; --rule: #323b46;
  --train: #b49dff; --held: #3cc9bf; --right: 45 170 160; --wrong: 225 105 60; --focus: #7aa7ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4rem 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.soft, caption, figcaption { color: var(--soft); font-size: .9rem; }
section { margin: 2.4rem 0; padding-top: 1.4rem; border-top: 1px solid var(--rule); }
a { color: inherit; }
.legend { list-style: none; margin: .6rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem;
  font-size: .9rem; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; }
.tile { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; display: block; }
dl { margin: 0; display: grid; gap: .5rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
dl div { min-width: 0; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th:first-child, td.words { text-align: left; }
tbody th { font-weight: 500; min-width: 5.5rem; max-width: 18rem; white-space: normal;
  overflow-wrap: break-word; }
#settings td { white-space: normal; text-align: left; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
.meter { display: inline-block; width: 7rem; height: .6rem; background: var(--card); margin-right: .6rem;
  border-radius: .3rem; overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--held); }
tr.others .meter i { background: var(--soft); }
tr.own th, tr.own td { font-weight: 700; }
.matrix td { text-align: center; min-width: 2.3rem; background: rgb(var(--wrong) / calc(var(--a) * .9)); }
.matrix td.right { background: rgb(var(--right) / calc(var(--a) * .9)); }
.matrix td.full { color: #fff; }
.matrix td.none { color: var(--soft); background: none; }
.matrix thead th[scope=col] { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  padding: .6rem .3rem; max-height: 11rem; overflow: hidden; text-overflow: ellipsis; }
.matrix thead th:first-child { writing-mode: horizontal-tb; transform: none; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
svg { width: 100%; height: auto; display: block; max-width: 40rem; }
svg text { fill: var(--ink); font-size: 13px; }
svg text.name { fill: var(--soft); }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .line { fill: none; stroke-width: 2; }
svg .line.train { stroke: var(--train); stroke-dasharray: 6 3; } svg .line.held { stroke: var(--held); }
svg .dot.train { fill: var(--train); } svg .dot.held, svg .bar { fill: var(--held); }
.key { display: inline-block; width: 1.2rem; height: 0; margin-right: .4rem; vertical-align: middle;
  border-top: 3px solid var(--held); }
.key.train { border-top: 3px dashed var(--train); }
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .7rem; }
.card div { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; }
.card img { width: 100%; height: auto; display: block; border-radius: .25rem; }
.card figcaption { margin-top: .4rem; overflow-wrap: anywhere; }
.card figcaption b { color: var(--ink); }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
footer { margin: 3rem 0 1rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 34rem) {
  body { padding: 1rem; } th, td { padding: .3rem .35rem; } .meter { width: 3.2rem; margin-right: .4rem; }
  #classes .meter { display: none; } svg text { font-size: 19px; } }
@media print { body { max-width: none; } section { break-inside: avoid; } }
"""
