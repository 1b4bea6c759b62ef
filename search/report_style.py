"""How the report looks."""

# ruff: noqa: E501 - style sheets have long lines

from __future__ import annotations

STYLE = """
:root { --ink: #1d2733; --soft: #5b6876; --line: #dfe5eb; --paper: #fff; --tint: #f5f8fa; --accent: #0b7a75; --warm: #c8553d; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 48px; }
header { margin-bottom: 18px; }
.brand { margin: 0; color: var(--accent); font-weight: 700; letter-spacing: .08em; }
h1 { margin: 2px 0 0; font-size: 30px; line-height: 1.2; }
h2 { margin: 0 0 12px; font-size: 18px; }
.lead { margin: 4px 0 0; color: var(--soft); }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; overflow-x: auto; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
aside { background: #fff7ec; border: 1px solid #f2dcbd; border-left: 4px solid #d9912b; border-radius: 6px; padding: 8px 14px; margin-bottom: 18px; }
aside ul { margin: 0; padding-left: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin-bottom: 18px; }
.tile, section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 12px 16px; }
.tile p { margin: 0; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 26px; font-weight: 650; line-height: 1.3; }
.tile .change { color: var(--accent); font-weight: 600; font-size: 13.5px; }
.tile .before { color: var(--soft); font-size: 13px; }
section { padding: 18px 20px; margin-bottom: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); padding: 6px 10px 6px 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: 6px 10px 6px 0; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
tr.best td { background: #eaf5f4; font-weight: 600; }
td code { color: var(--soft); font-weight: 400; }
.note { color: var(--soft); font-size: 13px; margin: 10px 0 0; }
.plot { height: 420px; margin-bottom: 14px; }
.plot.small { height: 260px; }
.plot noscript { color: var(--soft); }
.bar { display: inline-block; width: 90px; height: 9px; background: var(--tint); border: 1px solid var(--line); border-radius: 5px; overflow: hidden; vertical-align: middle; }
.bar span { display: block; height: 100%; background: var(--accent); }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""
