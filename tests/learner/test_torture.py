"""A short form of the learner's torture; the long one is `python -m tools.torture learner`."""

import json
import subprocess
import sys
from pathlib import Path

WORK = """
import json, sys
from pathlib import Path
from tools.torture import learner
found = learner.run(Path(sys.argv[1]), 5, seed=int(sys.argv[2]))
print(json.dumps([found.cycles, found.bad]))
"""


def test_killing_the_learner_loses_at_most_a_checkpoint(tmp_path: Path) -> None:
    """Five kill -9, in a process of its own because it forks: the store whole, the serving adapter complete."""
    command = [sys.executable, "-c", WORK, str(tmp_path), "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [5, []]
