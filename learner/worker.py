"""A learning run in a process of its own: polite, and free to die without harm.

The parent starts ``python -m learner.worker``, writes one line with the job and the store's key into its stdin, and
reads progress and the verdict from its stdout. The key is never an argument or an environment variable. The child
lowers its priority and ends when its parent does (stdin closes). What it makes is adopted in one transaction, so
killing it at any moment leaves the store and the served adapter as they were.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from learner.gate import GatePolicy
from learner.policy import LearnPolicy, Progress
from learner.recipe import PerformanceFlags, Recipe
from store.codec import build
from store.errors import CorrigibleError
from store.keys import Keys
from store.paths import Home
from store.records import Verdict
from store.store import Store

NICENESS = 10
LOCK = "learn"
_FOLDERS = ("root", "config", "data", "state", "runtime")


def run_in_child(
    home: Home, keys: Keys, model: Path, policy: LearnPolicy, *, progress: Progress | None = None
) -> Verdict:
    """Learn once in a child process and return the verdict, which is in the store then.

    Ctrl-C or any error here ends the child.
    Raises:
        Locked: another process is learning.
        CorrigibleError: what `learner.cycle.learn` raises, or code ``worker_died`` when the child was killed.
    """
    command = [sys.executable, "-m", "learner.worker"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        try:
            return _converse(child, _job(home, keys, model, policy), progress)
        finally:
            child.kill()


def main() -> int:
    """The child's side: read the job, learn, report."""
    report = _own_stdout()
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    try:
        verdict = _learn(job, report)
    except CorrigibleError as error:
        said = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        _say(report, {"error": said})
        return error.exit_code
    _say(report, {"verdict": asdict(verdict)})
    return 0


def _job(home: Home, keys: Keys, model: Path, policy: LearnPolicy) -> bytes:
    """One line of JSON."""
    job = {
        "home": {name: str(getattr(home, name)) for name in _FOLDERS},
        "key": base64.b64encode(keys.export()).decode(),
        "model": str(model),
        "policy": asdict(policy),
    }
    return json.dumps(job).encode() + b"\n"


def _converse(child: "subprocess.Popen[bytes]", job: bytes, progress: Progress | None) -> Verdict:
    """Hand over the job, pass progress on, return the verdict."""
    if child.stdin is None or child.stdout is None:
        raise _died(None)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(job)
        child.stdin.flush()
    for said in _lines(child.stdout):
        if "verdict" in said:
            return build(Verdict, said["verdict"])
        if "error" in said:
            raise _error(said["error"])
        if progress is not None:
            progress(said["phase"], said["step"], said["steps"], said["loss"])
    raise _died(child.wait())


def _lines(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Whole lines as objects; a line cut off by a killed child is dropped."""
    for line in stream:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _learn(job: dict[str, Any], report: IO[str]) -> Verdict:
    """Open everything, learn once, close."""
    from feedback.engine import Engine
    from feedback.models import check_model, probe_pairs
    from learner.cycle import learn

    home = Home(**{name: Path(job["home"][name]) for name in _FOLDERS})
    policy = _policy(job["policy"])
    model = check_model(Path(job["model"]))

    def tell(phase: str, step: int, steps: int, loss: float) -> None:
        _say(report, {"phase": phase, "step": step, "steps": steps, "loss": loss})

    keys = Keys.from_bytes(base64.b64decode(job.pop("key")))
    with Store.open(home, keys) as store, store.lock(LOCK), Engine(model, threads=policy.flags.threads) as engine:
        return learn(store, engine, None, probe_pairs(model.path), policy, progress=tell)


def _policy(values: dict[str, Any]) -> LearnPolicy:
    """Rebuild the policy from its JSON."""
    recipe, gate, flags = (values.pop(name) for name in ("recipe", "gate", "flags"))
    return LearnPolicy(Recipe(**recipe), GatePolicy(**gate), PerformanceFlags(**flags), **values)


def _own_stdout() -> IO[str]:
    """Keep stdout for the report alone; whatever a library prints goes to stderr."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return report


def _say(report: IO[str], message: dict[str, Any]) -> None:
    """One line, at once."""
    report.write(json.dumps(message) + "\n")
    report.flush()


def _end_with_parent() -> None:
    """Leave when stdin closes: nobody waits for the result any more."""
    sys.stdin.read()
    os._exit(1)


def _error(said: dict[str, Any]) -> CorrigibleError:
    """The child's error as an error of the same family."""
    families = {kind.exit_code: kind for kind in CorrigibleError.__subclasses__()}
    kind = families.get(said["exit_code"], CorrigibleError)
    return kind(said["message"], hint=said["hint"], code=said["code"])


def _died(status: int | None) -> CorrigibleError:
    """The error for a child that ended without a word."""
    hint = "Nothing was changed; run it again."
    return CorrigibleError(f"The learning process ended early (status {status}).", hint=hint, code="worker_died")


if __name__ == "__main__":
    sys.exit(main())
