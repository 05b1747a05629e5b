"""Say in plain words what a fresh machine lacks, before a long build fails in the middle."""

import shutil
import sys

WANTED_PYTHON = (3, 11)


def missing() -> list[str]:
    """Return one sentence for each thing this machine lacks."""
    lacks = []
    if sys.version_info < WANTED_PYTHON:
        lacks.append(f"Python {WANTED_PYTHON[0]}.{WANTED_PYTHON[1]} or newer (this is {sys.version.split()[0]})")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        lacks.append("a C++ compiler (Debian and Ubuntu: apt install g++; macOS: xcode-select --install)")
    if not shutil.which("cmake"):
        lacks.append("cmake (Debian and Ubuntu: apt install cmake; macOS: brew install cmake)")
    return lacks


if __name__ == "__main__":
    if lacks := missing():
        print("Corrigible cannot be set up on this machine yet. It needs:", file=sys.stderr)
        print("\n".join(f"  - {lack}" for lack in lacks), file=sys.stderr)
        sys.exit(1)
