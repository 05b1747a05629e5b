"""The command: `python -m tools.torture NAME|all [--cycles N]`; NAME is one of LONG."""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

LONG = {
    "kill": 1000,
    "power": 2000,
    "control": 200,
    "rekey": 200,
    "ioerror": 50,
    "flips": 2000,
    "rollback": 200,
    "canaries": 1000,
    "memory": 20,
    "release": 500,
    "learner": 200,
    "rounds": 50,
    "fleet": 16,
    "strangers": 1000,
    "adapters": 500,
    "bundles": 20,
}


def main() -> int:
    """Run what was asked for; 1 when anything was lost, unreported or readable."""
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=__doc__)
    parser.add_argument("which", choices=[*LONG, "all"])
    parser.add_argument("--cycles", type=int, help="default: the long form")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    green = True
    for name in LONG if arguments.which == "all" else [arguments.which]:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            module = importlib.import_module(f"tools.torture.{name}")
            outcome = module.run(Path(folder), arguments.cycles or LONG[name], arguments.seed)
        print(f"{outcome.words()} [{time.monotonic() - started:.0f} s]", flush=True)
        green &= not outcome.bad
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
