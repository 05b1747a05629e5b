"""The two kinds of command: one that returns a `Report` and has ``--json``, and a noun that groups such verbs.

Help opens with an example and ends with the exit codes.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from cli.output import EXIT_CODES, Report, emit, hush


class _Help:
    """Help that opens with an example and ends with the exit codes."""

    examples: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, usage, text, options and exit codes."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))
            formatter.write_paragraph()
        super().format_help(ctx, formatter)  # type: ignore[misc]
        if self.exits:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(code), EXIT_CODES[code]) for code in sorted({0, 2, *self.exits})])


class Command(_Help, click.Command):
    """A command that returns a `Report` and has ``--json``."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        examples: Sequence[str],
        exits: Sequence[int] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Add ``--json`` to the options; `exits` are the exit codes besides 0 and 2."""
        super().__init__(*args, **kwargs)
        self.examples, self.exits = tuple(examples), tuple(exits)
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Machine-readable output."))

    def invoke(self, ctx: click.Context) -> int:
        """Run the command, write what it returns, and return the exit code."""
        ctx.obj = replace(ctx.obj, as_json=ctx.params.pop("as_json"))
        try:
            report: Report = super().invoke(ctx)
            emit(report, ctx.obj.as_json)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has seen enough
            hush()
            return 0
        return report.exit_code


class Group(_Help, click.Group):
    """A noun: a group whose verbs are `Command`s; says what was probably meant."""

    command_class = Command

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - click's own
        examples: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """`examples` open the help."""
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command or raise a usage error with the nearest names."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=2)
            meant = f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)
