"""The repository polices its own shape: lengths, import direction, and one home for each heavy library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["store", "feedback", "learner", "federation", "cli"]
LONGEST_FILE = 500  # lines
HOMES = {
    "sqlcipher3": {"store/engine.py"},
    "llama_cpp": {"feedback/llama.py", "feedback/trace.py"},
    "peft": {"learner/lora.py"},
    "opacus": {"learner/private.py", "learner/accountant.py"},
    "flwr": {
        "federation/client_app.py",
        "federation/control.py",
        "federation/envelope.py",
        "federation/intake.py",
        "federation/server_app.py",
        "federation/strategy.py",
        "federation/runner.py",
        "federation/simulation.py",
    },
    "tuf": {"federation/repository.py", "federation/mirror.py", "federation/enrolment.py"},
    "prometheus_client": {"federation/metrics.py"},
}


def sources() -> list[Path]:
    """Return every source file of the five rooms."""
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level name of everything the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_no_source_file_is_longer_than_the_limit() -> None:
    """A file that outgrows one screenful of ideas is split."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_is_imported_only_in_its_home(library: str) -> None:
    """Replacing a library means changing one file."""
    users = {str(path.relative_to(ROOT)) for path in sources() if library in imported(path)}
    assert users <= HOMES[library]


def test_every_module_says_what_it_is() -> None:
    """Each source file opens with a docstring."""
    silent = [str(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_imports_run_one_way() -> None:
    """cli -> federation -> learner -> feedback -> store, as import-linter reads it."""
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_importing_the_records_loads_nothing_heavy() -> None:
    """Every room speaks in records, so they must cost nothing."""
    code = "import sys, store.records, store.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "sqlcipher3", "torch", "llama_cpp", "numpy"} & set(loaded.stdout.split())
