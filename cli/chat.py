"""`corrigible chat`: a conversation in the terminal in which every answer can be corrected on the spot.

Reads lines from a person or a pipe. With ``--json`` each event is one line. A line that fails is reported
and the conversation goes on; from a pipe the exit code is then 3.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Command
from cli.conversation import Conversation
from cli.output import PARTLY, Report, clean, emit, fail, failure_of
from cli.prompt import lines
from cli.session import Session, refresh_stack
from feedback import presence
from store.base import StoreBase
from store.errors import CorrigibleError, UsageError

if TYPE_CHECKING:
    from feedback.engine import Engine
    from store.keys import Keys
    from store.records import Interaction

HELP = """\
/fix [TEXT]   say what the last answer should have been; without TEXT it opens for editing
/good  /bad   approve or reject the last answer
/learn        learn now from your corrections
/new          start afresh, without the turns before
/help         this list
/quit         leave (also Ctrl-D)"""


@click.command(
    cls=Command,
    examples=["corrigible chat", "echo 'dim the lamp in the hall' | corrigible chat --json"],
    exits=[3, 10, 11, 12, 13],
)
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Serve this GGUF.")
@click.option("--system", default="", help="A system message that opens the conversation.")
@click.pass_obj
def chat(session: Session, model: Path | None, system: str) -> Report:
    """Talk to the model; correct its answers on the spot.

    Each line is a request. /fix opens the last answer for correction, /learn learns from what you
    corrected, /help lists the rest.
    """
    with session.unlocked() as (store, keys), session.engine(store, model) as engine:
        keep = turns_kept(session, model)
        talk = Talk(session, store, keys, engine, Conversation(keep=keep, system=system))
        if session.interactive:
            click.echo("Type a request, or /help. Ctrl-D leaves.", err=True)
        for line in lines(session.interactive):
            if not talk.take(line):
                break
    data = {"event": "end", **talk.counts}
    code = PARTLY if talk.counts["failed"] and not session.interactive else 0
    return Report(data, lambda: "", code)


def turns_kept(session: Session, model: Path | None = None) -> int:
    """Return how many earlier turns accompany a request: none for the embedded model, which knows one turn only."""
    if session.config.chat.turns is not None:
        return session.config.chat.turns
    return 8 if model or session.config.model.path else 0


class Talk:
    """One conversation: the model, the store and what was said last."""

    def __init__(
        self, session: Session, store: StoreBase, keys: "Keys", engine: "Engine", conversation: Conversation
    ) -> None:
        """Start with nothing said."""
        from feedback.recorder import Recorder

        self.session, self.store, self.keys, self.engine = session, store, keys, engine
        self.recorder = Recorder(store, engine)
        self.conversation = conversation
        self.last: Interaction | None = None
        self.shown = ""  # the last answer as it stands, corrections included
        self.counts = {"answers": 0, "corrections": 0, "ratings": 0, "failed": 0}

    def take(self, line: str) -> bool:
        """Act on one line; return False when the person leaves."""
        name, _, rest = line.strip().partition(" ")
        if name == "/quit":
            return False
        try:
            if name.startswith("/"):
                self._verbs(name)(rest.strip())
            elif line.strip():
                self.ask(line.strip())
        except CorrigibleError as error:
            self.counts["failed"] += 1
            fail(failure_of(error, lambda _: None), self.session.as_json)
        except KeyboardInterrupt:
            if not self.session.interactive:
                raise
            click.echo("\nStopped.", err=True)
        return True

    def ask(self, request: str) -> None:
        """Put `request` to the model and show the answer as it comes."""
        presence.mark(self.session.home)
        refresh_stack(self.store, self.engine)
        interaction = self.recorder.answer(
            self.conversation.ask(request),
            max_tokens=self.session.config.chat.max_tokens,
            on_token=None if self.session.as_json else _stream,
        )
        self.conversation = self.conversation.answered(request, interaction.answer)
        self.last, self.shown = interaction, interaction.answer
        self.counts["answers"] += 1
        if not self.session.as_json:
            click.echo()  # the words have been streamed
        stack = list(interaction.stack)
        self._tell("answer", "", interaction=interaction.id, answer=interaction.answer, stack=stack)

    def fix(self, text: str) -> None:
        """Correct the last answer by `text`, or by what the person makes of it."""
        from cli.prompt import edit
        from feedback.recorder import correct

        interaction = self._last()
        wanted = text or edit(self.shown, self.session.interactive)
        correction = correct(self.store, interaction.id, wanted)
        self.conversation, self.shown = self.conversation.corrected(wanted), wanted
        self.counts["corrections"] += 1
        self._tell("correction", "Kept. /learn learns it.", correction=correction.id, interaction=interaction.id)

    def rate(self, value: Any) -> None:  # noqa: ANN401 - -1 or 1
        """Approve (+1) or reject (-1) the last answer."""
        from feedback.recorder import rate

        interaction = self._last()
        rate(self.store, interaction.id, value)
        self.counts["ratings"] += 1
        self._tell("rating", "Noted.", interaction=interaction.id, value=value)

    def learn(self) -> None:
        """Run one learning run and serve what it adopted."""
        from cli.learn import once, outcome

        verdict = once(self.session, self.store, self.keys, self.engine.model)
        refresh_stack(self.store, self.engine)
        report = outcome(self.store, verdict)
        emit(Report({"event": "learned", **report.data}, report.words), self.session.as_json)

    def new(self) -> None:
        """Forget the turns before."""
        self.conversation, self.last = self.conversation.fresh(), None
        self._tell("new", "A new conversation.")

    def _verbs(self, name: str) -> Callable[[str], None]:
        """Return what a slash command does with the text behind it."""
        verbs: dict[str, Callable[[str], None]] = {
            "/fix": self.fix,
            "/good": lambda _: self.rate(1),
            "/bad": lambda _: self.rate(-1),
            "/learn": lambda _: self.learn(),
            "/new": lambda _: self.new(),
            "/help": lambda _: self._tell("help", HELP, text=HELP),
        }
        if name not in verbs:
            raise UsageError("There is no such slash command.", hint="/help lists them.")
        return verbs[name]

    def _last(self) -> "Interaction":
        """Return the answer that /fix and the thumbs speak of."""
        if self.last is None:
            raise UsageError("There is no answer yet.", hint="Ask something first.")
        return self.last

    def _tell(self, event: str, words: str, **data: Any) -> None:  # noqa: ANN401 - JSON values
        """Report one event: a JSON line, or words."""
        emit(Report({"event": event, **data}, lambda: words), self.session.as_json)


def _stream(piece: str) -> bool:
    """Show a piece of the answer at once; True asks for more."""
    sys.stdout.write(clean(piece))
    sys.stdout.flush()
    return True
