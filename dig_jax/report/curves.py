"""Line charts as inline SVG: small, sharp on any screen, and coloured by the page's style sheet."""

import html
import math
from collections.abc import Mapping, Sequence

Point = tuple[float, float]
Band = Sequence[tuple[float, float, float]]  # (x, lowest, highest), in order of x

_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 18, 30
_LETTER_WIDTH = 6.5  # pixels, about
_MAX_DOTS = 25  # longer lines are clearer without dots
_MAX_POINTS = 400  # about one per pixel; longer runs are averaged in equal slices
COLORS = 8  # of lines, in style.py; more lines begin again with the first


def line_chart(
    title: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    x_label: str,
    marks: Sequence[tuple[float, str]] = (),
    bands: Mapping[str, Band] | None = None,
) -> str:
    """Draws one chart with its legend, as an HTML figure.

    Args:
      title: what is shown.
      series: (label, points) of each line; points are (x, y) in order of x and finite. Empty ones are left
        out; the others keep the colours of their places.
      x_label: name of the x axis.
      marks: (x, label) of what begins there and lasts up to the next, in order of x.
      bands: label of a line -> the spread around it, drawn as an area.

    Returns:
      HTML, or "" when no line has a point.
    """
    drawn = [(place % COLORS, label, _thin(points)) for place, (label, points) in enumerate(series) if points]
    if not drawn:
        return ""
    areas = {label: _thin(bands[label]) for _, label, _ in drawn if bands and bands.get(label)}
    xs = [x for *_, points in drawn for x, _ in points]
    ys = [y for *_, points in drawn for _, y in points]
    ys += [y for band in areas.values() for _, *ends in band for y in ends]
    x_ticks, y_ticks = _ticks(min(xs), max(xs), whole=True), _ticks(min(ys), max(ys))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for tick in y_ticks:
        _, y = at(x_low, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = at(tick, y_low)
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{_number(tick)}</text>')
    ends = [*(x for x, _ in marks[1:]), math.inf]
    for (begin, label), end in zip(marks, ends, strict=False):  # no marks have no end
        if begin < x_high and end > x_low:
            left, right = (at(min(max(x, x_low), x_high), y_low)[0] for x in (begin, end))
            parts.append(_mark(left, label, room=right - left))
    for color, label, _ in drawn:
        if band := areas.get(label):
            around = [at(x, low) for x, low, _ in band] + [at(x, high) for x, _, high in reversed(band)]
            places = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
            parts.append(f'<polygon class="line{color}" points="{places}"/>')
    for color, label, points in drawn:
        parts.append(_line(color, label, [at(x, y) for x, y in points], points))
    legend = "".join(
        f'<span class="key line{color}">{html.escape(label)}</span>' for color, label, _ in drawn
    )
    heading = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{heading}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{heading} by {html.escape(x_label)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _mark(x: float, label: str, room: float) -> str:
    """A vertical line with its label at the top, cut to `room` pixels."""
    line = ""
    if x > _LEFT:  # at the axis itself there is a line already
        line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    letters = int((room - 6) / _LETTER_WIDTH)
    shown = label if len(label) <= letters else label[: max(letters - 1, 0)] + "…" * (letters > 1)
    return line + f'<text x="{x + 4:.1f}" y="{_TOP - 3}">{html.escape(shown)}</text>'


def _line(color: int, label: str, places: Sequence[Point], points: Sequence[tuple[float, ...]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = f'<polyline class="line{color}" points="{path}"/>'
    if len(points) > _MAX_DOTS:
        return line
    dots = "".join(
        f'<circle class="line{color}" cx="{px:.1f}" cy="{py:.1f}" r="2.5">'
        f"<title>{html.escape(label)}: {y:.4g} at {_number(x)}</title></circle>"
        for (px, py), (x, y) in zip(places, points, strict=True)
    )
    return line + dots


def _thin(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most `_MAX_POINTS` points, or parts of a band: means over equal slices."""
    size = math.ceil(len(points) / _MAX_POINTS)
    slices = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(values) / len(part) for values in zip(*part, strict=True)) for part in slices]


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to eight round numbers that enclose low..high."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    if whole:
        step = max(1.0, step)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [tick * step for tick in range(start, max(end, start + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}"
