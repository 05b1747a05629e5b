"""The writer that `power` traces: `python -m tools.torture.writer HOME COMMITS SYNCHRONOUS`.

One record a commit, so that the WAL fills and is checkpointed; removals and artefacts now and then; each commit
is acknowledged on stdout. SYNCHRONOUS other than FULL is the mutant the harness must catch.
"""

import os
import sys
from pathlib import Path

from store.paths import Home
from tools.torture.common import interaction, reopen


def main(home: Home, commits: int, synchronous: str) -> None:
    """Write and acknowledge."""
    with reopen(home) as store:
        with store._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        for number in range(1000, 1000 + commits):
            id = store.add(interaction(number, size=3000))
            os.write(1, f"{id}\n".encode())
            if number % 60 == 59:
                store.remove(store.add(interaction(number * 1000)))
            if number % 90 == 89:
                store.put_artefact(os.urandom(20_000))


if __name__ == "__main__":
    main(Home.at(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
