"""Charts are drawn to scale, say in words what they show, and cannot be broken by a name."""

import re
from xml.etree import ElementTree as ET

import pytest

from cli.report.charts import Axis, Bars, Line, Mark, bar_chart, line_chart, line_legend, nice_top, ticks

EVIL = '<script>alert("x")</script>'


def _tree(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def _line() -> ET.Element:
    lines = [Line("with", ((0.0, 100.0), (50.0, None), (75.0, 50.0), (100.0, 0.0)), 1), Line(EVIL, ((0.0, 1.0),))]
    marks = [Mark(50, kind, kind) for kind in ("adopt", "reject", "wait")]
    return _tree(line_chart(lines, x=Axis(100, "x"), y=Axis(100, "y", " %"), title=EVIL, marks=marks))


def test_a_value_at_the_top_of_the_axis_is_drawn_at_the_top_and_zero_at_the_bottom() -> None:
    """Heights are proportional to values and the axis starts at zero."""
    heights = [float(dot.get("cy", "")) for dot in _line().iter("circle")][:3]
    rules = [float(rule.get("y1", "")) for rule in _line().iter("line")]
    assert (heights[0], heights[2]) == (min(rules), max(rules))
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1)


def test_a_missing_value_breaks_the_line() -> None:
    """No stroke is drawn across a stretch where nothing was measured."""
    path = next(path.get("d", "") for path in _line().iter("path"))
    assert re.sub(r"[\d. ]", "", path) == "MML"


def test_a_chart_tells_its_content_in_words() -> None:
    """The description holds first and last value of each line."""
    description = _line().findtext("desc") or ""
    assert "with: from 100.0 % to 0.0 %" in description


def test_names_are_escaped_everywhere() -> None:
    """A name that looks like markup stays a name."""
    bars = bar_chart([Bars(EVIL, (1.0, None))], [(EVIL, 0), ("b", 1)], y=Axis(10, "y"), title=EVIL)
    for markup in (line_chart([Line(EVIL, ((0, 1),))], x=Axis(1, EVIL), y=Axis(1, EVIL), title=EVIL), bars):
        assert "<script" not in markup
        assert _tree(markup).findtext("title") == EVIL
    assert "<script" not in line_legend([Line(EVIL, ())])


def test_bars_are_as_high_as_their_values_and_a_missing_one_is_a_dash() -> None:
    """Twice the value is twice the height; None draws no bar."""
    tree = _tree(
        bar_chart([Bars("a", (20.0, 10.0)), Bars("b", (None, 5.0))], [("x", 0), ("y", 1)], y=Axis(20, "y"), title="t")
    )
    heights = [float(bar.get("height", "")) for bar in tree.iter("rect")]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert len(heights) == 3
    assert "–" in [text.text for text in tree.iter("text")]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (19, 20), (21, 25), (26, 50), (99, 100), (101, 200)]
)
def test_the_top_of_an_axis_is_a_round_number_at_or_above_the_value(value: float, top: float) -> None:
    """Axes end at 1, 2, 2.5 or 5 times a power of ten."""
    assert nice_top(value) == pytest.approx(top)
    assert ticks(top)[-1] == top
