"""What leaves a command: one report as words or as one line of JSON, and every failure as a documented exit code.

Data goes to stdout, words about it to stderr. With ``--json`` each report is one line
``{"schema":1,"ok":true,"data":{}}`` and each failure ``{"ok":false,"error":{"code","message","hint"}}``,
both on stdout. No traceback ever reaches the screen: an unexpected error leaves its frames, without
messages or values, in a log file.
"""

import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.errors import CorrigibleError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SCHEMA = 1

INTERNAL, USAGE, PARTLY, INTERRUPTED = 1, 2, 3, 130

EXIT_CODES: dict[int, str] = {
    0: "done",
    INTERNAL: "internal error, or the disk is full",
    USAGE: "wrong use: an argument, file or input line cannot be used as given",
    PARTLY: "partly done: some items failed, the rest went through",
    10: "not initialised: there is no store here yet",
    11: "locked by a passphrase, or busy with another process",
    12: "wrong key or passphrase",
    13: "integrity failure: store, model or adapter is damaged or was changed",
    14: "the privacy budget does not allow this",
    15: "not eligible now: too little evidence, or consent is missing",
    16: "the background process does not answer",
    17: "network: no connection, TLS refused or port taken",
    18: "a release's signature or content was refused",
    INTERRUPTED: "interrupted",
}

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Report:
    """The outcome of a command.

    Args:
        data: what a program reads; JSON values only.
        words: what a person reads, made only when needed.
        exit_code: 0, or a documented code for an outcome that is not an error.
    """

    data: Mapping[str, Any]
    words: Callable[[], "RenderableType"]
    exit_code: int = 0


@dataclass(frozen=True)
class Failure:
    """An error as it is shown: a stable word, one sentence, one hint and the exit code."""

    code: str
    message: str
    hint: str
    exit_code: int


def emit(report: Report, as_json: bool) -> None:
    """Write `report` to stdout, as one JSON line or as words."""
    if as_json:
        write_json({"schema": SCHEMA, "ok": True, "data": report.data})
    else:
        show(report.words())


def write_json(value: Mapping[str, Any]) -> None:
    """Write one line of JSON (ASCII only, so that any terminal encoding holds it) to stdout."""
    sys.stdout.write(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")
    sys.stdout.flush()


def show(words: "RenderableType") -> None:
    """Write words to stdout; plain where stdout is no terminal or NO_COLOR is set."""
    if isinstance(words, str):
        click.echo(clean(words), nl=bool(words))
    else:
        from rich.console import Console

        width = None if sys.stdout.isatty() else 160
        console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
        with console.capture() as captured:
            console.print(words)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n"))


def hush() -> None:
    """Send the rest of stdout nowhere: its reader is gone, and the flush at exit must not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say(words: str) -> None:
    """Write one sentence about the work to stderr."""
    click.echo(clean(words), err=True)


def fail(failure: Failure, as_json: bool) -> int:
    """Write `failure` (JSON on stdout, words on stderr) and return its exit code."""
    if as_json:
        error = {"code": failure.code, "message": failure.message, "hint": failure.hint}
        write_json({"schema": SCHEMA, "ok": False, "error": error})
    else:
        say(f"corrigible: {failure.message}")
        if failure.hint:
            say(f"  {failure.hint}")
    return failure.exit_code


def failure_of(error: BaseException, log: Callable[[BaseException], Path | None]) -> Failure:
    """Map any exception to what is shown.

    Args:
        error: what reached the top of the command.
        log: keeps the frames of an unexpected error and says where (None: could not).
    """
    match error:
        case CorrigibleError():
            return Failure(error.code, error.message, error.hint, error.exit_code)
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "corrigible"
            return Failure("usage", error.format_message(), f"See `{where} --help`.", USAGE)
        case click.ClickException():
            return Failure("usage", error.format_message(), "", USAGE)
        case KeyboardInterrupt() | click.Abort():
            return Failure("interrupted", "Interrupted.", "Everything acknowledged before is kept.", INTERRUPTED)
        case OSError() if error.errno in _FULL:
            hint = "Free some space and run the command again; everything acknowledged before is kept."
            return Failure("disk_full", "The disk is full.", hint, INTERNAL)
        case OSError() if error.errno in _REFUSED:
            name = error.filename or "a file of the program"
            return Failure("permission", f"No permission for {name}.", "Check its owner and mode.", USAGE)
        case _:
            return _unexpected(error, log(error))


def _unexpected(error: BaseException, kept: Path | None) -> Failure:
    """Name the type only: the message of a foreign exception may quote the owner's words."""
    hint = f"Its frames, without any text of yours, are in {kept}." if kept else "Run `corrigible doctor`."
    return Failure("internal", f"Internal error ({type(error).__name__}).", hint, INTERNAL)


def log_frames(error: BaseException, folder: Path) -> Path | None:
    """Append the frames of `error` and its causes to ``errors.log`` in `folder`; None when that fails too."""
    path = folder / "errors.log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write("\n".join([time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), *frames(error), ""]))
    except OSError:
        return None
    return path


def frames(error: BaseException | None) -> list[str]:
    """Return type and frames of `error` and of what caused it; no messages, no source lines, no values."""
    lines: list[str] = []
    while error is not None:
        lines.append(type(error).__name__)
        for frame in traceback.extract_tb(error.__traceback__):
            lines.append(f"  {frame.filename}:{frame.lineno} {frame.name}")
        error = error.__cause__ or error.__context__
    return lines


def clean(text: str) -> str:
    """Make control characters visible, so that stored or generated text cannot drive the terminal."""
    return "".join(char if char in "\n\t\u200c\u200d" or char.isprintable() else _visible(char) for char in text)


def _visible(char: str) -> str:
    """Return a harmless stand-in for one unprintable character."""
    return chr(0x2400 + ord(char)) if ord(char) < 0x20 else "\N{REPLACEMENT CHARACTER}" if ord(char) > 0x2FF else " "


def table(*columns: str, rows: Sequence[Sequence[str]], title: str = "") -> "Table":
    """Return a plain table; cells are shown as they are, never read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    return grid


def facts(rows: Mapping[str, str]) -> "Table":
    """Return two columns of name and value without rules."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(name, style="dim"), Text(clean(value)))
    return grid


def one_line(text: str, width: int = 60) -> str:
    """Return `text` on one line, shortened to `width` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def short(record_id: str) -> str:
    """Return the first 12 hex digits of a tagged hash: enough to name a record by hand."""
    return record_id.removeprefix("sha256:")[:12]


def when(seconds: float) -> str:
    """Return a time since the epoch as local date and minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
