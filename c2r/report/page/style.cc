// The style sheet of the report's page: light and dark, narrow and wide, screen and paper.
#include "c2r/report/page/page.h"

namespace c2r {

std::string_view page_style() {
  return R"css(:root { --back: #fff; --ink: #1c2127; --quiet: #5a6572; --line: #d9dfe5; --before: #8b97a4; --after: #0b62a4;
  --bound: #b83a00; --third: #c77a12; --good: #e7f3ea; --bad: #fbe9e4; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --ink: #e4e9ee; --quiet: #9aa7b4; --line: #333c46;
  --before: #8794a1; --after: #58a9e8; --bound: #ff9566; --third: #e0a04a; --good: #16301f; --bad: #3b1d15; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5em; margin: 0.5em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 1.8em 0 0.2em; }
p, li { overflow-wrap: anywhere; }
.answer { font-size: 1.2em; padding: 14px 18px; border-radius: 8px; }
.good { background: var(--good); border-left: 6px solid #2a7a44; }
.bad { background: var(--bad); border-left: 6px solid var(--bound); }
.row { display: flex; flex-wrap: wrap; gap: 14px; }
.tile { flex: 1 1 170px; border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 1.5em; }
.tile span { color: var(--quiet); font-size: 0.9em; }
.quiet { color: var(--quiet); font-size: 0.9em; }
.picture { max-width: 100%; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.before { fill: var(--before); }
.after, .cell { fill: var(--after); }
.third { fill: var(--third); }
.line-before, .line-after { fill: none; stroke-width: 2; stroke: var(--before); }
.line-after { stroke: var(--after); }
.grid { stroke: var(--line); }
.axis { stroke: var(--quiet); }
.bound { stroke: var(--bound); stroke-dasharray: 6 4; stroke-width: 1.5; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9em; }
th, td { padding: 2px 12px 2px 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
pre { overflow-x: auto; background: color-mix(in srgb, var(--line) 40%, transparent); padding: 10px; border-radius: 6px; }
summary { cursor: pointer; color: var(--quiet); }
.controls label { margin-right: 18px; white-space: nowrap; }
canvas { max-width: 100%; height: auto; border: 1px solid var(--line); touch-action: pan-y; }
#heat-cell { min-height: 1.5em; }
footer { margin-top: 3em; color: var(--quiet); font-size: 0.9em; }
@media print { :root { --back: #fff; --ink: #000; --quiet: #444; --line: #ccc; --before: #8b97a4; --after: #0b62a4;
  --bound: #b83a00; --third: #c77a12; --good: #e7f3ea; --bad: #fbe9e4; color-scheme: light; }
  .controls, button, summary, .screen, #heat-cell { display: none; } section, .picture { break-inside: avoid; }
  h2 { break-after: avoid; } main { max-width: none; } pre { white-space: pre-wrap; } }
)css";
}

}  // namespace c2r
