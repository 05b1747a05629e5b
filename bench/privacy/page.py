"""The bench's outcome as numbers, as a table and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.report.charts import Axis, Line, line_chart, nice_top
from cli.report.picture_file import standalone
from federation.claim import terms

NAMES = {"none": "no privacy", "correction": "per correction", "device": "per device"}


def write(folder: Path, name: str, facts: dict[str, Any], rows: Sequence[Any]) -> None:
    """Write ``NAME.json``, ``NAME.md`` and one SVG for each unit."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [{key: None if value == math.inf else value for key, value in asdict(row).items()} for row in rows]
    stem = name.lower()
    (folder / f"{stem}.json").write_text(json.dumps({"facts": facts, "rows": plain}, indent=1))
    (folder / f"{stem}.md").write_text(table(rows))
    for unit in ("correction", "device"):
        (folder / f"privacy-{stem}-{unit}.svg").write_text(picture(name, rows, unit, facts["delta"]))


def table(rows: Sequence[Any]) -> str:
    """The rows as Markdown."""
    head = "unit", "devices", "epsilon", "noise", "signal over noise", "newcomers' errors %", "old skills, exact %"
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        epsilon = "∞" if math.isinf(row.epsilon) else f"{row.epsilon:g}"
        signal = "" if math.isinf(row.signal) or not row.noise else f"{row.signal:.2f}"
        noise = f"{row.noise:.2f}" if row.noise else ""
        name = "no learning" if not row.devices else NAMES[row.unit]
        error = f"{row.error:.1f}" + (f" ({row.low:.1f} to {row.high:.1f})" if row.noise else "")
        cells = (name, f"{row.devices:,}" if row.devices else "", epsilon if row.devices else "", noise, signal, error)
        lines.append(f"| {' | '.join(cells)} | {row.probe:.1f} |")
    return "\n".join(lines) + "\n"


def picture(name: str, rows: Sequence[Any], unit: str, delta: float) -> str:
    """Errors over fleet size (as a power of two), a line for each epsilon; no learning and no privacy are dashed."""
    own = [row for row in rows if row.unit == unit]
    widest = math.ceil(max(math.log2(row.devices) for row in own) / 4) * 4.0
    lines = []
    for row in (row for row in rows if row.unit == "none"):
        label = "no learning" if not row.devices else "no privacy, three rounds"
        lines.append(Line(label, ((0.0, row.error), (widest, row.error)), len(lines), dashed=True))
    for tone, epsilon in enumerate(sorted({row.epsilon for row in rows}, reverse=True), 1):
        points = tuple((math.log2(row.devices), row.error) for row in own if row.epsilon == epsilon)
        if points:
            lines.append(Line("no noise" if math.isinf(epsilon) else f"epsilon {epsilon:g}", points, tone))
    title = f"{name}: newcomers' errors; epsilon at delta {delta:g} per {unit} ({terms(unit)})"
    axis = Axis(widest, "devices, as a power of two")
    top = nice_top(max(row.error for row in rows))
    return standalone(line_chart(lines, x=axis, y=Axis(top, "errors", " %"), title=title), lines)
