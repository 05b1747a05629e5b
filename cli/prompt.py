"""Lines from a person or a pipe; a line prefilled for editing where the terminal can do that."""

import sys
from collections.abc import Callable, Iterator

import click

from store.errors import UsageError


def lines(interactive: bool) -> Iterator[str]:
    """Yield lines until the end of input; Ctrl-C on an empty prompt ends too."""
    if not interactive:
        while line := read(sys.stdin.readline):
            yield line.rstrip("\n")
        return
    while True:
        try:
            yield _ask("> ")
        except EOFError:
            click.echo(err=True)
            return


def edit(text: str, interactive: bool) -> str:
    """Return `text` as the person changed it; from a pipe, the next line.

    A text of several lines opens in the person's editor ($EDITOR).
    """
    if not interactive:
        return read(sys.stdin.readline).rstrip("\n")
    if "\n" in text:
        changed = click.edit(text)
        return text if changed is None else changed.rstrip("\n")
    return _ask("fix> ", text)


def read(source: Callable[[], str]) -> str:
    """Return what `source` reads from stdin.

    Raises:
        UsageError: it is not text.
    """
    try:
        return source()
    except UnicodeDecodeError as error:
        raise UsageError("The input is not UTF-8 text.", hint="Convert it first.", code="bad_text") from error


def _ask(prompt: str, prefill: str = "") -> str:
    """Ask for one line, with `prefill` already typed where readline is at hand."""
    try:
        import readline
    except ImportError:  # a platform without line editing
        return input(prompt)
    readline.set_startup_hook(lambda: readline.insert_text(prefill))
    try:
        return input(prompt)
    finally:
        readline.set_startup_hook(None)
