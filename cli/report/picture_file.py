"""A line chart as an SVG file of its own: title, colours and legend go along, so that it can be read alone."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from cli.report.charts import Line

_STYLE = Path(__file__).parent / "style.css"
_LEGEND = 26  # height added below the chart for each row of the legend
_HEADING = 18  # height added above it for each row of the title
_LETTER, _STROKE, _MARGIN = 6.6, 26, 40  # widths: of a letter, of an entry's stroke, left of all entries
_ENTRY = Markup('<line class="line s{}{}" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>')
_WORDS = Markup('<text class="axis" x="{}" y="{}">{}</text>')
_HEAD = re.compile(r'^(<svg [^>]*viewBox="0 0 )(\d+) (\d+)("[^>]*)><title>(.*?)</title>')


def standalone(chart: Markup, lines: Sequence[Line]) -> str:
    """Return the text of an SVG file with `chart` under its title, a legend of its `lines`, and the style inside."""
    head = _HEAD.match(chart)
    if head is None:
        raise ValueError("not one of our charts")
    width, height = int(head[2]), int(head[3])
    words = textwrap.wrap(str(Markup(head[5]).unescape()), int((width - 2 * _MARGIN) / _LETTER))
    top = _HEADING * len(words) + 8
    title = "".join(_WORDS.format(_MARGIN, _HEADING * row, line) for row, line in enumerate(words, 1))
    rows = list(_rows(lines, width))
    legend = "".join(
        _entry(line, x, top + height + 12 + _LEGEND * row) for row, entries in enumerate(rows) for line, x in entries
    )
    style = f"<style>{_STYLE.read_text(encoding='utf-8')} svg {{ background: var(--card); }}</style>"
    body = str(chart)[head.end() :].removesuffix("</svg>")
    begun = f'{head[1]}{width} {top + height + _LEGEND * len(rows)}{head[4]} xmlns="http://www.w3.org/2000/svg">'
    return f'{begun}<title>{head[5]}</title>{style}{title}<g transform="translate(0 {top})">{body}</g>{legend}</svg>\n'


def _rows(lines: Sequence[Line], width: int) -> Iterator[list[tuple[Line, int]]]:
    """The legend's entries with their places, as many in a row as have room."""
    row: list[tuple[Line, int]] = []
    x = float(_MARGIN)
    for line in lines:
        needed = _STROKE + _LETTER * len(line.name) + 16
        if row and x + needed > width:
            yield row
            row, x = [], float(_MARGIN)
        row.append((line, round(x)))
        x += needed
    yield row


def _entry(line: Line, x: int, y: int) -> Markup:
    """One stroke and its name."""
    return _ENTRY.format(line.tone, " dashed" if line.dashed else "", x, x + 20, y, y, x + _STROKE, y + 4, line.name)
