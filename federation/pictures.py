"""Small pictures as SVG text: bars, stacked bars, a curve. Each also says in words what it shows."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate

WIDTH, HEIGHT, EDGE = 640, 180, 34
COLOURS = ("#2f7d5b", "#c98a1b", "#b3403a", "#8a94a0", "#3b6ea8")


def stacked(labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """One column a label, its parts stacked in the order of `series`, with a key."""
    top = max((sum(column) for column in zip(*series.values(), strict=True)), default=0.0) or 1.0
    step = (WIDTH - 2 * EDGE) / max(len(labels), 1)
    parts = []
    for place, (label, *values) in enumerate(zip(labels, *series.values(), strict=True)):
        left, wide = EDGE + place * step, max(min(step * 0.7, 48), 1)
        for value, end, colour in zip(values, accumulate(values), COLOURS, strict=False):
            high = value / top * (HEIGHT - 2 * EDGE)
            y = HEIGHT - EDGE - end / top * (HEIGHT - 2 * EDGE)
            parts.append(f'<rect x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{colour}"/>')
        if len(labels) <= 40:
            parts.append(_text(left + wide / 2, HEIGHT - EDGE + 14, label, "middle"))
    parts.append(_text(EDGE - 6, EDGE + 4, f"{top:g}", "end"))
    for place, (name, colour) in enumerate(zip(series, COLOURS, strict=False)):
        parts.append(f'<rect x="{EDGE + place * 110}" y="6" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(EDGE + place * 110 + 14, 15, name))
    words = "; ".join(
        f"{label}: " + ", ".join(f"{value:g} {name}" for name, value in zip(series, column, strict=True))
        for label, *column in zip(labels, *series.values(), strict=True)
    )
    return _svg(parts, words, HEIGHT)


def bars(counts: Mapping[str, int], *, top: int | None = None, unit: str = "", colour: str = COLOURS[2]) -> str:
    """One horizontal bar a name, longest first; in the given order when the length of a full bar, `top`, is given."""
    ordered = list(counts.items()) if top else sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    top = top or max(counts.values(), default=1) or 1
    parts = []
    for place, (name, count) in enumerate(ordered):
        y, wide = 4 + place * 22, count / top * (WIDTH - 220)
        parts.append(_text(116, y + 13, name, "end"))
        parts.append(f'<rect x="124" y="{y}" width="{wide:.1f}" height="16" fill="{colour}"/>')
        parts.append(_text(130 + wide, y + 13, f"{count}{unit}"))
    return _svg(parts, ", ".join(f"{name}: {count}" for name, count in ordered), 8 + 22 * len(ordered))


def curve(points: Sequence[tuple[float, float]], words: str) -> str:
    """A line through (x, y) from zero up, with its last value written."""
    if not points:
        return "<p>Nothing yet.</p>"
    low, high = points[0][0], max(points[-1][0], points[0][0] + 1)
    top = max((y for _, y in points), default=0.0) or 1.0
    placed = [
        (
            EDGE + (x - low) / (high - low) * (WIDTH - 3 * EDGE),
            HEIGHT - EDGE - y / top * (HEIGHT - 2 * EDGE),
        )
        for x, y in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [f'<polyline points="{line}" fill="none" stroke="{COLOURS[4]}" stroke-width="2"/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[4]}"/>' for x, y in placed]
    parts.append(_text(placed[-1][0] + 6, placed[-1][1] + 4, f"{points[-1][1]:.2f}"))
    parts.append(_text(EDGE, HEIGHT - 6, words))
    return _svg(parts, f"{words}; last value {points[-1][1]:.3f}", HEIGHT)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """A label."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="11" fill="currentColor">{escape(words)}</text>'


def _svg(parts: Sequence[str], words: str, height: int) -> str:
    """A picture with its description."""
    inside = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(words)}">{inside}</svg>'
    )
