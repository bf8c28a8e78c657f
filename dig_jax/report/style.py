"""The style sheet of report.html: light and dark, from a phone's width up."""

STYLE = """
:root { --page: #fafafa; --card: #ffffff; --ink: #18181b; --soft: #71717a; --rule: #e4e4e7;
  --line0: #2563eb; --line1: #d97706; --line2: #059669; --better: #15803d; --worse: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #111113; --card: #1b1b1f; --ink: #ededf0; --soft: #a1a1aa; --rule: #303036;
    --line0: #60a5fa; --line1: #fbbf24; --line2: #34d399; --better: #4ade80; --worse: #f87171; } }
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
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px;
  margin-bottom: 14px; }
figure { margin: 0; padding: 12px; min-width: 0; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; }
figcaption { font-size: 14px; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 2px 12px;
  overflow-wrap: anywhere; }
.legend { display: flex; gap: 12px; color: var(--soft); }
.key::before { content: ""; display: inline-block; width: 12px; height: 3px; margin-right: 5px;
  vertical-align: middle; border-radius: 2px; background: var(--line0); }
.key.line1::before { background: var(--line1); } .key.line2::before { background: var(--line2); }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.wide { overflow-x: auto; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.line0 { stroke: var(--line0); } polyline.line1 { stroke: var(--line1); }
polyline.line2 { stroke: var(--line2); }
circle.line0 { fill: var(--line0); } circle.line1 { fill: var(--line1); } circle.line2 { fill: var(--line2); }
img { display: block; width: 100%; height: auto; border-radius: 6px; margin-bottom: 8px; }
pre { margin: 6px 0 0; padding: 8px 10px; max-height: 220px; overflow: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--page); border-radius: 6px;
  font: 12.5px/1.45 ui-monospace, monospace; }
details { margin-top: 18px; } summary { cursor: pointer; color: var(--soft); margin-bottom: 12px; }
"""
