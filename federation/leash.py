"""Run one of Flower's commands so that it dies with the process that started it.

``python -m federation.leash PARENT COMMAND ARGUMENTS…`` asks the kernel (Linux only) for SIGTERM when the parent ends,
even by kill -9, then runs the installed console command in this very process. It does not restart anything.
"""

import ctypes
import os
import signal
import sys
from importlib.metadata import entry_points

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask for SIGTERM when process `parent` ends; leave at once when it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit(1)


def main() -> None:
    """Run the console command named by the second argument, on behalf of the parent named by the first."""
    parent, command, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    sys.argv = [command, *arguments]
    (entry,) = entry_points(group="console_scripts", name=command)
    entry.load()()


if __name__ == "__main__":
    main()
