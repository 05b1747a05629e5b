"""`corrigible completion`: print or install the shell's completion script (made by click)."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cli.base import Group
from cli.output import Report
from store.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_CORRIGIBLE_COMPLETE"


@click.group(cls=Group, examples=["corrigible completion install"])
def completion() -> None:
    """Shell completion for bash, zsh and fish."""


@completion.command(examples=["corrigible completion show zsh > ~/.zfunc/_corrigible"])
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def show(ctx: click.Context, shell: str) -> Report:
    """Print the completion script for SHELL."""
    text = script(ctx.find_root().command, shell)
    return Report({"shell": shell, "script": text}, lambda: text)


@completion.command(examples=["corrigible completion install", "corrigible completion install fish"])
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def install(ctx: click.Context, shell: str | None) -> Report:
    """Install the completion script for SHELL (default: the one you are in)."""
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    if chosen not in SHELLS:
        raise UsageError("Your shell is not known.", hint=f"Name one of: {', '.join(SHELLS)}.")
    path = place(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(ctx.find_root().command, chosen), encoding="utf-8")
    words = f"Wrote {path}; open a new shell to use it."
    if chosen == "zsh":
        words += f"\nIf nothing completes, put this before compinit in ~/.zshrc: fpath+=({path.parent})"
    return Report({"shell": chosen, "path": str(path)}, lambda: words)


def script(root: click.Command, shell: str) -> str:
    """Return the script that makes `shell` complete the command `root`."""
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - SHELLS are click's own
        raise UsageError("This shell is not known.")
    complete = kind(root, {}, "corrigible", _VARIABLE)
    return complete.source_template % complete.source_vars()


def place(shell: str) -> Path:
    """Return where `shell` looks for a user's own completion scripts."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "bash": data / "bash-completion/completions/corrigible",
        "zsh": home / ".zfunc/_corrigible",
        "fish": settings / "fish/completions/corrigible.fish",
    }[shell]
