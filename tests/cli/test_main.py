"""The command as a whole: help, names, exit codes and a start that loads nothing heavy."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from cli.base import Command
from cli.main import COMMANDS
from cli.output import EXIT_CODES
from tests.cli.helpers import Call

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "llama_cpp", "peft", "opacus", "flwr", "numpy", "rich", "sqlalchemy"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def verbs(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below `command` with its words."""
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from verbs(found, (*path, name))


ALL = {
    path: found
    for name, (module, _) in COMMANDS.items()
    for path, found in verbs(getattr(import_module(module), name), (name,))
}

LEAVES = [path for path, found in ALL.items() if not isinstance(found, click.Group)]


def loaded_by(*words: str) -> set[str]:
    """Return the top-level modules that a command line loads, in a process of its own."""
    code = "import sys; from cli.main import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["lern"], ["completion", "show", "bash"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """The start stays below a third of a second on a slow machine."""
    assert not HEAVY & loaded_by(*words)


def test_status_loads_no_model_library(ready: Call) -> None:
    """Looking at the store needs SQLAlchemy, not torch and not llama.cpp."""
    assert not (HEAVY - {"rich", "sqlalchemy"}) & loaded_by("status")
    assert ready("status").code == 0


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_opens_with_an_example_of_this_command(call: Call, path: tuple[str, ...]) -> None:
    """Both spellings of help show how the command is used before anything else."""
    for flag in ("-h", "--help"):
        result = call(*path, flag)
        assert result.code == 0
        assert result.out.startswith("Examples:\n")
        assert f"corrigible {' '.join(path)}" in result.out.replace(" | ", " ")


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_json_and_documented_exit_codes(call: Call, path: tuple[str, ...]) -> None:
    """The help of a command names every exit code it can end with."""
    command = ALL[path]
    assert isinstance(command, Command)
    assert set(command.exits) <= set(EXIT_CODES)
    out = call(*path, "--help").out
    assert "--json" in out
    assert not command.exits or "Exit codes:" in out


def test_the_root_help_lists_every_command_with_its_own_words(call: Call) -> None:
    """The table of names agrees with the commands it names."""
    out = call("--help").out
    for name, (_, text) in COMMANDS.items():
        assert f"{name} " in out
        first = (ALL[(name,)].help or "").splitlines()[0]
        assert text == first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lern"], "Did you mean 'learn' or 'learner'?"),
        (["log", "serch", "x"], "Did you mean 'search'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["status", "--jsn"], "--json"),
        (["log", "list", "--limit", "none"], "--limit"),
    ],
)
def test_wrong_use_is_exit_2_and_names_what_was_meant(call: Call, words: list[str], says: str) -> None:
    """A slip of the fingers costs one look."""
    result = call(*words)
    assert result.code == 2
    assert says in result.err
    assert result.out == ""


def test_wrong_use_with_json_is_json(call: Call) -> None:
    """A script never has to parse words."""
    result = call("log", "list", "--nope", "--json")
    assert result.code == 2
    assert result.error["code"] == "usage"
    assert "corrigible log list --help" in result.error["hint"]


def test_no_command_shows_the_help(call: Call) -> None:
    """Typing the bare name is a question."""
    result = call()
    assert result.code == 2
    assert "Usage: corrigible" in result.out


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    """`corrigible … | head` ends quietly."""
    code = "from cli.main import run\nimport sys\nsys.exit(run(['completion', 'show', 'bash']))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_an_unexpected_error_is_one_line_and_a_log_file(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback on the screen; frames without text in a file."""
    monkeypatch.setattr("cli.completion.script", lambda *_: {}["a secret word"])
    result = call("completion", "show", "bash", "--json")
    assert result.code == 1
    assert result.error["code"] == "internal"
    log = home / "state" / "logs" / "errors.log"
    assert str(log) in result.error["hint"]
    assert "KeyError" in log.read_text()
    assert "a secret word" not in log.read_text() + result.out + result.err


def test_the_readme_lists_every_command_and_exit_code() -> None:
    """The README's tables are the program's."""
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE))
    assert {int(code): text for code, text in rows.items()} == EXIT_CODES
    table = README[README.index("## Commands") : README.index("### In a script")]
    for path in ALL:
        assert f"`{path[0]}" in table
        assert len(path) == 1 or re.search(rf"`{path[0]}[^|]*`?{path[1]}\b", table), path


def test_the_installed_command_runs() -> None:
    """The entry point starts and prints its version."""
    program = Path(sys.executable).with_name("corrigible")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("corrigible ")


def test_completion_scripts_are_installed_where_the_shell_looks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`completion install` writes the script that `completion show` prints."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for shell in ("bash", "zsh", "fish"):
        path = Path(call("completion", "install", shell, "--json").data["path"])
        assert tmp_path in path.parents
        assert path.read_text() == call("completion", "show", shell, "--json").data["script"]
    monkeypatch.setenv("SHELL", "/bin/fish")
    assert "config.fish" not in call("completion", "install").out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert call("completion", "install").code == 2


def test_completion_offers_names_without_importing_them() -> None:
    """Pressing TAB is quick and knows commands, verbs and options."""
    environment = {"_CORRIGIBLE_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "corrigible st"}
    command = [sys.executable, "-c", "from cli.main import main; main()"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,status"]
