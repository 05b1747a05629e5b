"""`corrigible correct`: say what a logged answer should have been."""

import sys
from collections.abc import Sequence

import click

from cli.base import Command
from cli.output import Report, short
from cli.prompt import read
from cli.session import Session
from store.errors import UsageError


@click.command(
    cls=Command,
    examples=[
        "corrigible correct 9f86d081 'light.on(room=kitchen)'",
        "corrigible correct --last 'light.on(room=kitchen)'",
        "corrigible correct --last --stdin < answer.txt",
    ],
    exits=[10, 11, 12, 13],
)
@click.argument("words", nargs=-1, metavar="[ID] [TEXT]")
@click.option("--last", is_flag=True, help="The newest logged answer; leave ID out.")
@click.option("--stdin", is_flag=True, help="Read the text from stdin; leave TEXT out.")
@click.option("--reason", default="", help="Why, for your own memory.")
@click.option("--private", is_flag=True, help="Never use this correction for sharing, not even privately.")
@click.pass_obj
def correct(session: Session, words: tuple[str, ...], last: bool, stdin: bool, reason: str, private: bool) -> Report:
    """Say what an answer should have been.

    ID is what `corrigible log list` shows; its first 8 digits are enough.
    """
    from feedback.recorder import correct as record
    from store.records import Interaction

    target, text = arguments(words, last, stdin)
    with session.store() as store:
        newest = store.last(Interaction)
        if target is None and newest is None:
            raise UsageError("Nothing has been logged yet.", hint="Ask something with `corrigible chat`.")
        interaction = newest if target is None else store.get(Interaction, target)
        assert interaction is not None
        correction = record(store, interaction.id, text, reason=reason, share=not private)
    data = {"correction": correction.id, "interaction": interaction.id, "share": correction.share}
    return Report(data, lambda: f"Kept correction {short(correction.id)} of {short(interaction.id)}.")


def arguments(words: Sequence[str], last: bool, stdin: bool) -> tuple[str | None, str]:
    """Return (id or None for the newest, text) from what was given.

    Raises:
        UsageError: too few or too many words for the flags.
    """
    wanted = (not last) + (not stdin)
    if len(words) != wanted:
        names = " and ".join(["ID"] * (not last) + ["TEXT"] * (not stdin)) or "neither ID nor TEXT"
        raise UsageError(f"This needs {names}; {len(words)} given.", hint="See `corrigible correct --help`.")
    rest = list(words)
    target = None if last else rest.pop(0)
    return target, read(sys.stdin.read).rstrip("\n") if stdin else rest[0]
