"""The style sheet of report.html: light and dark, from a phone's width up."""

STYLE = """
:root { --page: #fafafa; --card: #ffffff; --ink: #18181b; --soft: #71717a; --rule: #e4e4e7;
  --line0: #2563eb; --line1: #d97706; --line2: #059669; --line3: #c026d3; --line4: #dc2626; --line5: #0891b2;
  --line6: #65a30d; --line7: #78716c; --better: #15803d; --worse: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #111113; --card: #1b1b1f; --ink: #ededf0; --soft: #a1a1aa; --rule: #303036;
    --line0: #60a5fa; --line1: #fbbf24; --line2: #34d399; --line3: #e879f9; --line4: #f87171;
    --line5: #22d3ee; --line6: #a3e635; --line7: #a8a29e; --better: #4ade80; --worse: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 64px; }
h1 { margin: 0; font-size: 28px; letter-spacing: -0.02em; overflow-wrap: anywhere; }
header p { margin: 4px 0 0; color: var(--soft); }
h2 { margin: 36px 0 12px; font-size: 18px; }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: 10px 14px; border-top: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { text-align: left; font-weight: 400; white-space: normal; }
thead td { color: var(--soft); font-size: 14px; }
thead th, thead td { border-top: 0; }
.better { color: var(--better); } .worse { color: var(--worse); } .same { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 14px; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 14px;
  margin-bottom: 14px; }
figure { margin: 0; padding: 12px; min-width: 0; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; }
figcaption { font-size: 14px; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 12px;
  overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 0 12px; color: var(--soft); }
.key::before { content: ""; display: inline-block; width: 12px; height: 3px; margin-right: 5px;
  vertical-align: middle; border-radius: 2px; background: var(--line); }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.wide { overflow-x: auto; }
.line0 { --line: var(--line0); } .line1 { --line: var(--line1); } .line2 { --line: var(--line2); }
.line3 { --line: var(--line3); } .line4 { --line: var(--line4); } .line5 { --line: var(--line5); }
.line6 { --line: var(--line6); } .line7 { --line: var(--line7); }
polyline { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
polygon { fill: var(--line); opacity: 0.16; } circle { fill: var(--line); }
.samples { align-items: start; }
.pictures { display: flex; gap: 6px; margin-bottom: 8px; }
.pictures svg { flex: 1 1 0; min-width: 0; margin: 0; border-radius: 6px; }
.store { position: absolute; margin: 0; }
rect { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; }
rect.edge { stroke: #000; stroke-width: 4; opacity: 0.55; }
rect.true { stroke: #22c55e; } rect.predicted { stroke: #ef4444; }
.group td { vertical-align: top; } .group .shown { width: 300px; min-width: 220px; }
.group .said { text-align: left; white-space: normal; min-width: 200px; }
.group pre, .group .pictures { margin: 0; }
.slices { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px;
  align-items: start; margin-bottom: 14px; }
.slices table { font-size: 14px; } .slices th, .slices td { padding: 7px 10px; white-space: nowrap; }
section > p { margin: 0 0 12px; color: var(--soft); }
img { display: block; width: 100%; height: auto; border-radius: 6px; margin-bottom: 8px; }
pre { margin: 6px 0 0; padding: 8px 10px; max-height: 220px; overflow: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--page); border-radius: 6px;
  font: 12.5px/1.45 ui-monospace, monospace; }
details { margin-top: 18px; } summary { cursor: pointer; color: var(--soft); margin-bottom: 12px; }
"""
