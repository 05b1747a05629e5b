"""A learning run in a process of its own, from the inside: polite, steerable, and free to die without harm.

Reads its job from stdin, then orders: pause, threads. It lowers its priority, lets the kernel take it first when
memory runs out, and ends when its parent does. A pause stops the whole process in the middle of a step, but never in
the middle of a write to the store, where others would have to wait for it.
"""

import base64
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import psutil

from learner.conditions import MIB, room, starved
from learner.gate import GatePolicy
from learner.policy import LearnPolicy
from learner.recipe import PerformanceFlags, Recipe
from learner.worker import FOLDERS, LOCK, Limits
from store.errors import CorrigibleError, IntegrityError, NotEligible
from store.keys import Keys
from store.paths import Home
from store.records import Verdict
from store.store import Store

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read the job, learn, report."""
    report = _own_stdout()
    job = json.loads(sys.stdin.readline())
    limits = Limits(**job["limits"])
    _be_polite(limits)
    steering = Steering()
    threading.Thread(target=steering.listen, daemon=True).start()
    try:
        verdict = _learn(job, limits, steering, report)
    except CorrigibleError as error:
        said = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        _say(report, {"error": said})
        return error.exit_code
    _say(report, {"verdict": asdict(verdict)})
    return 0


class Steering:
    """The parent's orders."""

    def __init__(self) -> None:
        self.quiet = threading.Lock()  # held during every write
        self.threads = 0  # 0: as begun

    def listen(self) -> None:
        """Obey until stdin closes: then nobody waits for the result any more."""
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "threads":
                self.threads = int(order["number"])
            elif order["do"] == "pause":
                with self.quiet:
                    os.kill(os.getpid(), signal.SIGSTOP)  # goes on here when the parent sends SIGCONT
        os._exit(1)


def _learn(job: dict[str, Any], limits: Limits, steering: Steering, report: IO[str]) -> Verdict:
    """Open everything, learn once, keep the receipt, close."""
    try:
        return _learn_once(job, limits, steering, report)
    except MemoryError:
        raise _starved() from None
    except RuntimeError as error:
        if starved(error):
            raise _starved() from None
        raise


def _learn_once(job: dict[str, Any], limits: Limits, steering: Steering, report: IO[str]) -> Verdict:
    home = Home(**{name: Path(job["home"][name]) for name in FOLDERS})
    keys = Keys.from_bytes(base64.b64decode(job.pop("key")))
    with Store.open(home, keys) as store, store.lock(LOCK):  # before anything heavy is loaded
        return _run(store, home, job, limits, steering, report)


def _run(
    store: Store, home: Home, job: dict[str, Any], limits: Limits, steering: Steering, report: IO[str]
) -> Verdict:
    import torch

    from feedback.engine import Engine
    from feedback.models import check_model, probe_pairs
    from learner.cycle import learn
    from learner.journal import Checkpoint, Journal
    from learner.probes import Probes
    from learner.receipts import Meter, record

    model, probes = check_model(Path(job["model"])), Probes(home)
    policy = _policy(job["policy"])
    if not room(model.weights, probes.memory(), limits.memory):
        policy = replace(policy, flags=replace(policy.flags, hold="blocks"))
    meter = Meter(probes)

    def tell(phase: str, step: int, steps: int, loss: float) -> None:
        if steering.threads and steering.threads != torch.get_num_threads():
            torch.set_num_threads(steering.threads)
        _say(report, {"phase": phase, "step": step, "steps": steps, "loss": loss})

    journal = Journal(Checkpoint(store, home), limits.checkpoint, steering.quiet, meter.read)
    with Engine(model, threads=policy.flags.threads) as engine:
        try:
            verdict = learn(store, engine, None, probe_pairs(model.path), policy, progress=tell, journal=journal)
        except CorrigibleError as error:
            if isinstance(error, IntegrityError | NotEligible):  # would end in the same way again
                journal.close()
            with steering.quiet:
                record(store, journal.usage, None, error.code)
            raise
    with steering.quiet:
        record(store, journal.usage, verdict)
    return verdict


def _be_polite(limits: Limits) -> None:
    """Last in line for processor and disk, first to go when memory runs out, and gone when the parent is."""
    os.nice(limits.niceness)
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # also reaches a child that stands still
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    if limits.memory:
        cap = int(limits.memory * MIB)
        with contextlib.suppress(ValueError, OSError):  # the parent's own limit may be lower already
            resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))


def _policy(values: dict[str, Any]) -> LearnPolicy:
    """Rebuild the policy from its JSON."""
    recipe, gate, flags = (values.pop(name) for name in ("recipe", "gate", "flags"))
    values["restraints"] = tuple(values["restraints"])
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


def _starved() -> CorrigibleError:
    hint = "Give it more (`memory_cap` under [learner]), close other programs, or choose a smaller model."
    return CorrigibleError("There was not enough memory for learning.", hint=hint, code="out_of_memory")


if __name__ == "__main__":
    sys.exit(main())
