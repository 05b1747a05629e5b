"""Filling a page template and writing it to a folder; the page is one file and asks nobody for anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from store.errors import UsageError

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number with what it means."""

    value: str
    label: str
    note: str = ""
    good: bool | None = None  # None: neither good nor bad


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart with its heading, legend and a sentence on how to read it."""

    heading: str
    chart: Markup
    caption: str
    legend: Markup = field(default_factory=Markup)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column heads; the first column names the row. `strong` rows are set apart (totals)."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


def render(template: str, **values: object) -> str:
    """Return the page made from `template` (a file beside this one); an unknown name in it is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(style=style, made=made, **values)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write the named texts into `folder` (made if missing) and return the first file's path.

    Raises:
        UsageError: the folder cannot be made or written (`unwritable`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report: {error.strerror}", code="unwritable") from error
    return folder / next(iter(files))
