"""The bench's outcome as numbers, as a table and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.report.charts import Axis, Line, line_chart, nice_top
from cli.report.picture_file import standalone

NAMES = {"none": "no privacy", "correction": "per correction", "device": "per device"}


def write(folder: Path, facts: dict[str, Any], rows: Sequence[Any]) -> None:
    """Write ``privacy.json``, ``privacy.md`` and one SVG for each unit."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [{key: None if value == math.inf else value for key, value in asdict(row).items()} for row in rows]
    (folder / "privacy.json").write_text(json.dumps({"facts": facts, "rows": plain}, indent=1))
    (folder / "privacy.md").write_text(table(rows))
    for unit in ("correction", "device"):
        (folder / f"privacy-{unit}.svg").write_text(picture(rows, unit))


def table(rows: Sequence[Any]) -> str:
    """The rows as Markdown."""
    lines = ["| unit | devices | epsilon | noise | signal over noise | strangers' errors % | probe exact % |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        epsilon = "∞" if math.isinf(row.epsilon) else f"{row.epsilon:g}"
        signal = "" if math.isinf(row.signal) or not row.noise else f"{row.signal:.2f}"
        noise = f"{row.noise:.2f}" if row.noise else ""
        name = "no learning" if not row.devices else NAMES[row.unit]
        cells = (name, str(row.devices or ""), epsilon if row.devices else "", noise, signal)
        lines.append(f"| {' | '.join(cells)} | {row.error:.1f} | {row.probe:.1f} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[Any], unit: str) -> str:
    """Errors over fleet size (as a power of two), a line for each epsilon, and no learning as the mark to beat."""
    own = [row for row in rows if row.unit == unit]
    widest = max(math.log2(row.devices) for row in own)
    nothing = next(row for row in rows if not row.devices)
    epsilons = sorted({row.epsilon for row in own}, reverse=True)
    lines = [Line("no learning", ((0.0, nothing.error), (widest, nothing.error)), 0, dashed=True)]
    for tone, epsilon in enumerate(epsilons, 1):
        points = tuple((math.log2(row.devices), row.error) for row in own if row.epsilon == epsilon)
        lines.append(Line("no noise" if math.isinf(epsilon) else f"epsilon {epsilon:g}", points, tone))
    top = nice_top(max(row.error for row in rows))
    words = f"Strangers' errors, {NAMES[unit]}: {', '.join(line.name for line in lines)}"
    axis = Axis(math.ceil(widest / 4) * 4, "devices, as a power of two")
    return standalone(line_chart(lines, x=axis, y=Axis(top, "errors", " %"), title=words), lines)
