"""Charts as inline SVG: lines and bars, drawn to scale, with a text twin for readers who cannot see them.

Returns markup that is safe to put into a page: every caller-given string is escaped here. Colours are CSS
classes (`s0`, `s1`, …), so a page can be light or dark. Axes always start at zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40  # margins, in SVG units


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; None leaves a gap. `tone` picks the colour, `dashed` the stroke."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    tone: int = 0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A small sign on the horizontal axis: a learning run and how it ended."""

    x: float
    kind: str  # "adopt", "reject" or "wait"
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Upper end and name of an axis; it starts at zero."""

    top: float
    label: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """One group of bars: a name and a value (None: nothing measured) per series."""

    name: str
    values: tuple[float | None, ...]


def nice_top(value: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 x 10^n that is at least `value` (1 for zero and below)."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def ticks(top: float, count: int = 4) -> list[float]:
    """Return `count` + 1 evenly spaced values from zero to `top`."""
    return [top * index / count for index in range(count + 1)]


def line_chart(
    lines: Sequence[Line],
    *,
    x: Axis,
    y: Axis,
    title: str,
    marks: Sequence[Mark] = (),
    width: int = 720,
    height: int = 300,
) -> Markup:
    """Return an SVG line chart of `lines` on the given axes; values outside an axis are a caller's mistake."""
    frame = _Frame(x, y, width, height)
    parts = [_grid(frame)]
    parts += [_path(line, frame) for line in lines]
    parts += [_sign(mark, frame) for mark in marks]
    return _svg(frame, title, _describe_lines(lines, y.unit), parts)


def bar_chart(
    groups: Sequence[Bars],
    series: Sequence[tuple[str, int]],
    *,
    y: Axis,
    title: str,
    width: int = 720,
    height: int = 280,
) -> Markup:
    """Return an SVG bar chart: one group per entry, one bar per (name, tone) in `series`, value on top of each."""
    frame = _Frame(Axis(float(max(len(groups), 1)), ""), y, width, height)
    parts = [_grid(frame, vertical=False)]
    for index, group in enumerate(groups):
        parts.append(_bar_group(index, group, series, frame))
    return _svg(frame, title, _describe_bars(groups, series, y.unit), parts)


_ITEM = Markup('<li><svg width="26" height="10" aria-hidden="true">{}</svg> {}</li>')
_STROKE = Markup('<line class="line s{}{}" x1="1" y1="5" x2="25" y2="5"/>')
_BLOCK = Markup('<rect class="bar s{}" x="8" width="10" height="10"/>')


def line_legend(lines: Sequence[Line]) -> Markup:
    """Return an HTML legend of the lines' strokes, to stand above a chart."""
    return _legend([(_STROKE.format(line.tone, " dashed" if line.dashed else ""), line.name) for line in lines])


def bar_legend(series: Sequence[tuple[str, int]]) -> Markup:
    """Return an HTML legend of the bars' colours."""
    return _legend([(_BLOCK.format(tone), name) for name, tone in series])


def _legend(entries: Sequence[tuple[Markup, str]]) -> Markup:
    items = Markup("").join(_ITEM.format(sign, name) for sign, name in entries)
    return Markup('<ul class="legend">{}</ul>').format(items)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plot area and its two scales."""

    x: Axis
    y: Axis
    width: int
    height: int

    def px(self, value: float) -> float:
        return round(LEFT + (self.width - LEFT - RIGHT) * value / self.x.top, 1)

    def py(self, value: float) -> float:
        return round(self.height - BOTTOM - (self.height - TOP - BOTTOM) * value / self.y.top, 1)


def _svg(frame: _Frame, title: str, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(frame.width, frame.height, title, title, description, Markup("").join(parts))


def _grid(frame: _Frame, *, vertical: bool = True) -> Markup:
    parts = []
    right = frame.width - RIGHT
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    for value in ticks(frame.y.top):
        at = frame.py(value)
        parts.append(rule.format(LEFT, right, at, at))
        parts.append(_text(LEFT - 7, at + 4, f"{value:g}{frame.y.unit}", "tick end"))
    if vertical:
        low = frame.height - BOTTOM + 16
        parts += [_text(frame.px(v), low, f"{v:,.0f}{frame.x.unit}", "tick mid") for v in ticks(frame.x.top)]
        parts.append(_text((LEFT + right) / 2, frame.height - 6, frame.x.label, "axis mid"))
    return Markup("").join(parts)


def _text(x: float, y: float, words: str, css: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, x, y, words)


def _path(line: Line, frame: _Frame) -> Markup:
    known = [(frame.px(x), None if y is None else frame.py(y)) for x, y in line.points]
    steps: list[str] = []
    pen = False
    for x, y in known:
        if y is not None:
            steps.append(f"{'L' if pen else 'M'}{x} {y}")
        pen = y is not None
    dots = Markup("").join(
        Markup('<circle class="dot s{}" cx="{}" cy="{}" r="{}"><title>{}: {}</title></circle>').format(
            line.tone, x, y, 2.2, line.name, _value(raw, frame.y.unit)
        )
        for (x, y), (_, raw) in zip(known, line.points, strict=True)
        if y is not None
    )
    css = f"line s{line.tone}{' dashed' if line.dashed else ''}"
    return Markup('<path class="{}" d="{}"/>{}').format(css, " ".join(steps), dots)


def _sign(mark: Mark, frame: _Frame) -> Markup:
    x, y = frame.px(mark.x), frame.height - BOTTOM - 6
    shapes = {
        "adopt": f"M{x - 4} {y + 4}L{x} {y - 4}L{x + 4} {y + 4}Z",
        "reject": f"M{x - 3.5} {y - 3.5}L{x + 3.5} {y + 3.5}M{x - 3.5} {y + 3.5}L{x + 3.5} {y - 3.5}",
        "wait": f"M{x - 3} {y}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0",
    }
    sign = Markup('<path class="mark {}" d="{}"><title>{}</title></path>')
    return sign.format(mark.kind, shapes[mark.kind], mark.label)


_BAR = Markup('<rect class="bar s{}" x="{}" y="{}" width="{}" height="{}"><title>{}, {}: {}</title></rect>')


def _bar_group(index: int, group: Bars, series: Sequence[tuple[str, int]], frame: _Frame) -> Markup:
    slot = frame.px(1) - frame.px(0)
    width = min(46.0, slot * 0.8 / len(series))
    start = frame.px(index) + (slot - width * len(series)) / 2
    parts = [_text(frame.px(index) + slot / 2, frame.height - BOTTOM + 18, group.name, "tick mid")]
    for place, (value, (name, tone)) in enumerate(zip(group.values, series, strict=True)):
        left = round(start + place * width, 1)
        if value is None:
            parts.append(_text(left + width / 2, frame.py(0) - 5, "–", "value mid"))
            continue
        top = frame.py(value)
        size = (round(width - 2, 1), round(frame.py(0) - top, 1))
        parts.append(_BAR.format(tone, left + 1, top, *size, group.name, name, _value(value, frame.y.unit)))
        if width >= 18:
            parts.append(_text(left + width / 2, top - 4, f"{value:.0f}", "value mid"))
    return Markup("").join(parts)


def _value(value: float | None, unit: str) -> str:
    return "nothing measured" if value is None else f"{value:.1f}{unit}"


def _describe_lines(lines: Sequence[Line], unit: str) -> str:
    said = []
    for line in lines:
        known = [y for _, y in line.points if y is not None]
        if known:
            said.append(f"{line.name}: from {_value(known[0], unit)} to {_value(known[-1], unit)}")
    return "; ".join(said)


def _describe_bars(groups: Sequence[Bars], series: Sequence[tuple[str, int]], unit: str) -> str:
    def told(group: Bars) -> str:
        pairs = zip(group.values, series, strict=True)
        return f"{group.name}: " + ", ".join(f"{name} {_value(value, unit)}" for value, (name, _) in pairs)

    return "; ".join(told(group) for group in groups)
