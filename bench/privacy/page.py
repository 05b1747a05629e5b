"""The bench's outcome as numbers, as a table and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.privacy.fleet import Score
from cli.report.charts import Axis, Line, line_chart
from cli.report.picture_file import standalone
from federation.claim import terms

STEP, HEIGHT = 20.0, 420  # per cent between two lines of a picture's grid; its height
Setting = tuple[str, int, float]  # unit, devices, epsilon
NAMES = {"none": "", "public": "public pairs alone", "correction": "per correction", "device": "per device"}


@dataclass(frozen=True)
class Row:
    """One setting's outcome; means over the draws of noise."""

    unit: str  # "correction" or "device"; "none" without privacy, "public" for the server's public pairs alone
    devices: int
    epsilon: float
    noise: float  # multiplier
    signal: float  # norm of the mean change over that of its noise
    error: float  # per cent of newcomers' requests answered wrongly
    low: float  # of the draws
    high: float
    loss: float  # of newcomers' answers, nats a token
    probe: float  # per cent of the public judging set answered exactly

    @property
    def name(self) -> str:
        """What the row is about, apart from devices and epsilon."""
        if self.unit == "none":
            return "no privacy, three rounds" if self.devices else "no learning"
        return NAMES[self.unit]

    @classmethod
    def of(
        cls, setting: Setting, noise: float, signal: float, found: Sequence[Score], probes: Sequence[float]
    ) -> "Row":
        """The row of all draws: how newcomers were answered, and the judging set."""
        errors = [100.0 - one.exact for one in found]
        loss = fmean(one.loss for one in found)
        return cls(*setting, noise, signal, fmean(errors), min(errors), max(errors), loss, fmean(probes))


def read(folder: Path, name: str, facts: dict[str, Any]) -> tuple[list[Row], float]:
    """Return the rows that an earlier call wrote about the same facts, and the CPU seconds it took; none otherwise."""
    path = folder / f"{name.lower()}.json"
    if not path.exists():
        return [], 0.0
    found = json.loads(path.read_text())
    spent = found["facts"].pop("cpu_seconds")
    if found["facts"] != facts:
        return [], 0.0
    rows = ({key: math.inf if value is None else value for key, value in row.items()} for row in found["rows"])
    return [Row(**row) for row in rows], spent


def write(folder: Path, name: str, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write ``NAME.json``, ``NAME.md`` and one SVG for each unit."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(rows, key=lambda row: (list(NAMES).index(row.unit), -row.epsilon, row.devices))
    plain = [{key: None if value == math.inf else value for key, value in asdict(row).items()} for row in rows]
    stem = name.lower()
    (folder / f"{stem}.json").write_text(json.dumps({"facts": facts, "rows": plain}, indent=1))
    (folder / f"{stem}.md").write_text(table(rows))
    for unit in {"correction", "device"} & {row.unit for row in rows}:
        (folder / f"privacy-{stem}-{unit}.svg").write_text(picture(name, rows, unit, facts["delta"]))


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = (
        "unit",
        "devices",
        "epsilon",
        "noise",
        "signal over noise",
        "newcomers' errors %",
        "nats a token",
        "old skills %",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        epsilon = "∞" if math.isinf(row.epsilon) else f"{row.epsilon:g}"
        signal = "" if math.isinf(row.signal) or not row.noise else f"{row.signal:.2f}"
        noise = f"{row.noise:.2f}" if row.noise else ""
        error = f"{row.error:.1f}" + (f" ({row.low:.1f} to {row.high:.1f})" if row.noise else "")
        cells = (
            row.name,
            f"{row.devices:,}" if row.devices else "",
            epsilon if row.devices else "",
            noise,
            signal,
            error,
        )
        lines.append(f"| {' | '.join(cells)} | {row.loss:.3f} | {row.probe:.1f} |")
    return "\n".join(lines) + "\n"


def picture(name: str, rows: Sequence[Row], unit: str, delta: float) -> str:
    """Errors over fleet size (as a power of two), a line for each epsilon; no learning and no privacy are dashed."""
    own = [row for row in rows if row.unit == unit]
    widest = math.ceil(max(math.log2(row.devices) for row in own) / 4) * 4.0
    lines = []
    for row in (row for row in rows if row.unit in ("none", "public")):
        lines.append(Line(row.name, ((0.0, row.error), (widest, row.error)), len(lines), dashed=True))
    for tone, epsilon in enumerate(sorted({row.epsilon for row in rows}, reverse=True), 1):
        points = tuple((math.log2(row.devices), row.error) for row in own if row.epsilon == epsilon)
        if points:
            lines.append(Line("no noise" if math.isinf(epsilon) else f"epsilon {epsilon:g}", points, tone))
    title = f"{name}: newcomers' errors; epsilon at delta {delta:g} per {unit} ({terms(unit)})"
    axis = Axis(widest, "devices, as a power of two")
    top = STEP * math.ceil(max(row.error for row in rows) / STEP)
    return standalone(line_chart(lines, x=axis, y=Axis(top, "errors", " %"), title=title, height=HEIGHT), lines)
