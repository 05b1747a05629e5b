"""The `corrigible` command: names, help and exit codes. A command's own file is imported when it is used.

Nothing here imports torch, llama.cpp, SQLAlchemy or rich, so `corrigible --help` answers at once.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from cli.base import Group
from cli.output import USAGE, fail, failure_of, log_frames
from cli.session import Session

# name -> (module, one line of help); the attribute in the module has the command's name
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("cli.init", "Make the encrypted store and choose its key and model."),
    "chat": ("cli.chat", "Talk to the model; correct its answers on the spot."),
    "correct": ("cli.correct", "Say what an answer should have been."),
    "log": ("cli.log", "List, search, show, export and remove what was logged."),
    "up": ("cli.up", "Start the model for other programs and for the page."),
    "down": ("cli.up", "Stop it."),
    "open": ("cli.up", "Open the page in the browser."),
    "gateway": ("cli.gateway", "Tokens for the programs that talk to the model, and what may leave."),
    "service": ("cli.service", "Have it started when you log in."),
    "model": ("cli.model", "Add, list, check and choose model files."),
    "learn": ("cli.learn", "Learn from the corrections once, now."),
    "learner": ("cli.learner", "Learn in the background; what was learned and what it cost."),
    "forget": ("cli.forget", "Forget answers with their corrections, and everything that learned from them."),
    "adapter": ("cli.adapter", "List, show, choose and roll back adapters."),
    "privacy": ("cli.privacy", "Consents, budget, and everything that ever left."),
    "fleet": ("cli.fleet", "Share privately with other devices, or serve them."),
    "key": ("cli.key", "Who guards the key of the store; change, rotate, lock."),
    "backup": ("cli.backup", "Copy the store, encrypted, to any folder; check and restore copies."),
    "wipe": ("cli.wipe", "Remove the store for good, its keys first."),
    "status": ("cli.status", "What is stored, served and waiting."),
    "doctor": ("cli.doctor", "Check everything; one line and one remedy for each."),
    "report": ("cli.report_command", "Write a page on what was learned, spent and sent; numbers only."),
    "replay": ("cli.replay", "Run the loop on somebody's log and measure what it brings."),
    "demo": ("cli.demo", "Show the whole loop in minutes, on the embedded model, with nothing of yours."),
    "completion": ("cli.completion", "Shell completion for bash, zsh and fish."),
}


class LazyGroup(Group):
    """The root: knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the path a correction takes."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return the command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names from the table, importing none of them."""
        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=["corrigible init", "corrigible chat", "corrigible learn"],
)
@click.option("--home", type=click.Path(path_type=Path), help="Folder for everything (else CORRIGIBLE_HOME).")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CORRIGIBLE_PASSPHRASE_FILE",
    help="Read the passphrase from this file (else CORRIGIBLE_PASSPHRASE_FILE, else a prompt).",
)
@click.version_option(package_name="corrigible", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, home: Path | None, passphrase_file: Path | None) -> None:
    """A local language model that learns privately from your corrections."""
    ctx.obj = Session(place=home, passphrase_file=passphrase_file)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; writes failures, never raises."""
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        code = cli.main(list(arguments), prog_name="corrigible", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except (Exception, KeyboardInterrupt) as error:
        return fail(failure_of(error, lambda unknown: _keep_frames(unknown, words)), "--json" in words)
    return code if isinstance(code, int) else 0


def _keep_frames(error: BaseException, words: list[str]) -> Path | None:
    """Log the frames of an unexpected error in the state folder of the home that `words` name."""
    try:
        place = Path(words[words.index("--home") + 1]) if "--home" in words else None
        return log_frames(error, Session(place=place).home.state / "logs")
    except Exception:  # the place itself may be what failed
        return None


def main() -> None:
    """Entry point of the `corrigible` script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
