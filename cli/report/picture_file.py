"""A line chart as an SVG file of its own: colours and legend go along, so that it can be read alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from cli.report.charts import Line

_STYLE = Path(__file__).parent / "style.css"
_LEGEND = 26  # height added below the chart
_ENTRY = Markup('<line class="line s{}{}" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>')


def standalone(chart: Markup, lines: Sequence[Line]) -> str:
    """Return the text of an SVG file with `chart`, a legend of its `lines`, a background and the style inside."""
    head, _, rest = str(chart).partition(">")
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', head)
    width, height = (int(size[1]), int(size[2])) if size else (720, 300)
    head = head.replace(f"0 0 {width} {height}", f"0 0 {width} {height + _LEGEND}")
    style = f"<style>{_STYLE.read_text(encoding='utf-8')} svg {{ background: var(--card); }}</style>"
    space = (width - 40) / len(lines)
    entries = [_entry(line, round(40 + space * place), height + 12) for place, line in enumerate(lines)]
    body = rest.removesuffix("</svg>") + "".join(entries)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{body}</svg>\n'


def _entry(line: Line, x: int, y: int) -> Markup:
    """One stroke and its name."""
    return _ENTRY.format(line.tone, " dashed" if line.dashed else "", x, x + 20, y, y, x + 26, y + 4, line.name)
