"""The background learner: looks whether it may work, lets a child learn, makes room for people, and says how it went.

Holds no model. Whether to work is decided by `conditions.decide`; what the machine tells comes from `probes`; the
child is `worker`'s. While one runs, signs of a person are looked for twice a second and everything else every few
seconds; a pause stops the child in the middle of a step. A child that stands still for long, or whose memory others
need, is ended: its journal lets the next one go on there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from learner import state
from learner.conditions import Backlog, Budget, Manners, Start, Wait, burst, decide, hold, threads
from learner.live import review, running_trial
from learner.policy import LearnPolicy
from learner.probes import Probes
from learner.receipts import minutes_today, record
from learner.usage import Usage, pointer
from learner.worker import Limits, Told, Worker
from store.base import StoreBase
from store.errors import CorrigibleError, Locked, NotEligible
from store.keys import Keys
from store.paths import Home
from store.records import Consent, Correction, Interaction, LiveVerdict, Receipt, Verdict
from store.retention import Keeper, RetentionPolicy

TICK = 0.5  # seconds between two looks for a person while a child runs
LOOK = 5.0  # seconds between two looks at everything else meanwhile
PATIENCE = 600.0  # seconds a child may stand still before it is ended
LONGEST = 600.0  # seconds: no wait is longer, because a machine that sleeps does not count them
ATTEMPTS = 3
RETRY = 3600.0  # seconds after a run that was given up; doubled each time, to a day

News = Verdict | LiveVerdict | Wait | CorrigibleError


@dataclass(frozen=True, slots=True)
class Duty:
    """What one daemon looks after."""

    store: StoreBase
    home: Home
    keys: Keys
    model: Path
    policy: LearnPolicy
    manners: Manners
    root: Path = Path("/")  # of the system whose files tell about the machine
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)  # how long each kind of record is kept


@dataclass
class Memory:
    """What the daemon remembers between two looks."""

    day: int = 0  # ordinal of the day that `minutes` counts
    minutes: float = 0.0
    failures: int = 0
    rounds: int = 0  # runs given up one after the other
    retry_at: float = 0.0
    failure: str = ""
    refused: Wait | None = None  # the run itself said no: consent, another learner
    told: str = ""  # code of the wait last told
    seen: tuple[int, int] = (0, 0)  # requests and corrections when the live test last looked


def run(duty: Duty, *, stop: threading.Event, tell: Callable[[News], None]) -> None:
    """Learn whenever it is due and decent, until `stop` is set.

    Args:
        tell: given every verdict, every failure, and every wait for a reason other than the one before.
    Raises:
        Locked: another daemon looks after this store.
    """
    probes, memory, keeper = Probes(duty.home, duty.root), Memory(), Keeper(duty.retention)
    with duty.store.lock("daemon"):
        try:
            while not stop.is_set():
                _tidy(duty, keeper, memory, tell)
                ruling = _look(duty, probes, memory)
                if isinstance(ruling, Start):
                    memory.told = ""
                    _work(duty, probes, memory, ruling, stop, tell)
                    continue
                state.publish(duty.home, state.State("waiting", ruling.code, ruling.reason, ruling.next_look))
                if ruling.code != memory.told:
                    memory.told = ruling.code
                    tell(ruling)
                stop.wait(min(LONGEST, max(0.05, ruling.next_look - time.time())))
        finally:
            state.withdraw(duty.home)


def backlog(store: StoreBase, home: Home) -> Backlog:
    """Return what waits to be learned: corrections after the last run, and a run that was cut off."""
    last = store.last(Verdict)
    times = [one.time for one in store.corrections() if last is None or one.time > last.time]
    return Backlog(
        new=len(times), unfinished=pointer(home).exists(), trial=running_trial(store) is not None, burst=burst(times)
    )


def _tidy(duty: Duty, keeper: Keeper, memory: Memory, tell: Callable[[News], None]) -> None:
    """Remove what has been kept long enough; look at the adapter in use, when anything was said since the last time."""
    try:
        keeper.look(duty.store, time.time())
    except NotEligible as error:  # the clock is wrong
        memory.refused = Wait("failed", error.message.rstrip("."), time.time() + LONGEST)
    seen = (duty.store.count(Interaction), duty.store.count(Correction))
    if seen != memory.seen:
        memory.seen = seen
        verdict = review(duty.store, time.time())
        if verdict is not None:
            tell(verdict)


def _look(duty: Duty, probes: Probes, memory: Memory) -> Start | Wait:
    """Decide once."""
    now = datetime.now().astimezone()
    word = duty.store.last(Consent, purpose="learn")
    if word is not None and not word.granted:
        return Wait("consent", "you withdrew consent to learning", now.timestamp() + LONGEST)
    if duty.store.damage:
        return Wait("failed", "the store is damaged; see `corrigible doctor`", now.timestamp() + LONGEST)
    if memory.refused is not None and memory.refused.next_look > now.timestamp():
        return memory.refused
    work = replace(backlog(duty.store, duty.home), retry_at=memory.retry_at, failure=memory.failure)
    return decide(now, probes.look(), work, _budget(duty, memory, now), duty.manners)


def _budget(duty: Duty, memory: Memory, now: datetime) -> Budget:
    """The minutes of today: what the receipts say when the day or the daemon begins, then what is counted here."""
    if memory.day != now.toordinal():
        memory.day = now.toordinal()
        memory.minutes = minutes_today(duty.store.all(Receipt, since=now.timestamp() - 86_400), now)
    return Budget(memory.minutes)


def _work(
    duty: Duty, probes: Probes, memory: Memory, start: Start, stop: threading.Event, tell: Callable[[News], None]
) -> None:
    """Let a child learn once, and deal with how it ends."""
    policy = duty.policy
    for _ in range(max(0, memory.failures - 1)):
        policy = smaller(policy)
    flags = replace(policy.flags, threads=start.threads)
    policy = replace(policy, flags=flags, trial_share=duty.manners.trial_share, protect_base=duty.manners.protect_base)
    watch, starved = _Watch(duty, probes, memory), probes.starved()
    try:
        verdict = watch.run(policy, stop)
    except Locked as error:
        memory.refused = Wait("busy", error.message.rstrip("."), time.time() + duty.manners.look_every)
    except CorrigibleError as error:
        _failed(duty, memory, watch, error, probes.starved() > starved, tell)
    else:
        if verdict is not None:
            memory.failures, memory.rounds, memory.retry_at = 0, 0, 0.0
            tell(verdict)


def smaller(policy: LearnPolicy) -> LearnPolicy:
    """The same run with less than half the memory: fewer, shorter examples, little kept, the base left in its file."""
    recipe, flags = policy.recipe, policy.flags
    return replace(
        policy,
        recipe=replace(recipe, batch=max(2, recipe.batch // 2), max_tokens=max(64, recipe.max_tokens // 2)),
        flags=replace(flags, micro_batch=max(1, flags.micro_batch // 2), hold="blocks", recompute=True),
    )


def _failed(
    duty: Duty, memory: Memory, watch: "_Watch", error: CorrigibleError, starved: bool, tell: Callable[[News], None]
) -> None:
    """Try again: as it was after a first crash, smaller after a second or where memory ran out; then give up."""
    memory.failures += 2 if starved or error.code == "out_of_memory" else 1
    if error.code == "worker_died":
        record(duty.store, watch.usage, None, "out_of_memory" if starved else error.code)
    if memory.failures > ATTEMPTS or error.code not in ("worker_died", "out_of_memory"):
        memory.failures, memory.failure = 0, error.message.rstrip(".")
        memory.retry_at = time.time() + RETRY * min(24, 2**memory.rounds)
        memory.rounds += 1
        tell(error)


@dataclass
class _Watch:
    """One child and what is seen of it."""

    duty: Duty
    probes: Probes
    memory: Memory
    began: float = field(default_factory=time.time)
    usage: Usage = field(default_factory=lambda: Usage(attempts=1))
    told: Told = field(default_factory=lambda: Told("", 0, 0, 0.0))
    waiting: Wait | None = None  # why the child stands still
    since: float = 0.0  # when it was told to
    looked: float = 0.0
    felt: float = 0.0
    stood: float = 0.0  # seconds the child stood still
    started: float = field(default_factory=time.monotonic)

    def run(self, policy: LearnPolicy, stop: threading.Event) -> Verdict | None:
        """Return the verdict; None when the child was ended and is to go on another time.

        Raises:
            CorrigibleError: as `Worker.next`.
        """
        duty, manners = self.duty, self.duty.manners
        limits = Limits(manners.nice, manners.memory_cap, checkpoint=manners.checkpoint)
        with Worker(duty.home, duty.keys, duty.model, policy, limits) as worker, self._timed(worker):
            self._publish(policy.flags.threads)
            while not stop.is_set():
                said = worker.next(TICK)
                if isinstance(said, Verdict):
                    return said
                if said is not None:
                    self.told = said
                if self._look(worker) == "end":
                    return None
        return None

    def _look(self, worker: Worker) -> str:
        """Pause, let go on, hurry or end the child."""
        now = time.monotonic()
        if now - self.looked >= LOOK:
            self.looked = now
            return self._look_at_everything(worker, now)
        if self.waiting is None and now - self.felt >= TICK / 2:
            self.felt = now
            idle, wanted = self.probes.idle(), self.duty.manners.idle
            if idle is not None and idle < wanted:
                self._pause(worker, Wait("activity", "you are here", time.time() + wanted - idle))
        return ""

    def _look_at_everything(self, worker: Worker, now: float) -> str:
        device, manners = self.probes.look(self._spent(worker)), self.duty.manners
        used = self.memory.minutes + self._active() / 60
        reason = hold(datetime.now().astimezone(), device, Budget(used), manners)
        if reason is not None and (reason.code == "memory" or (self.waiting and now - self.since > PATIENCE)):
            return "end"
        if reason is not None:
            self._pause(worker, reason)
            return ""
        if self.waiting is not None or worker.paused:
            self._resume(worker)
        number = threads(device, manners)
        worker.threads(number)
        self._publish(number)
        return ""

    def _pause(self, worker: Worker, reason: Wait) -> None:
        if self.waiting is None:
            worker.pause()
            self.since = time.monotonic()
        self.waiting = reason
        self._publish(0)

    def _resume(self, worker: Worker) -> None:
        if self.waiting is not None:
            self.stood += time.monotonic() - self.since
        self.waiting = None
        worker.resume()

    def _active(self) -> float:
        """Seconds the child has worked."""
        now = time.monotonic()
        return now - self.started - self.stood - (now - self.since if self.waiting else 0.0)

    def _publish(self, number: int) -> None:
        told, wait = self.told, self.waiting
        state.publish(
            self.duty.home,
            state.State(
                "paused" if wait else "running", wait.code if wait else "", wait.reason if wait else "",
                wait.next_look if wait else None, self.began, told.phase, told.step, told.steps, number,
            ),
        )  # fmt: skip

    def _spent(self, worker: Worker) -> float:
        """Processor seconds of the child since the last time."""
        cpu, resident = worker.spent()
        used, self.usage.cpu = max(0.0, cpu - self.usage.cpu), max(cpu, self.usage.cpu)
        self.usage.peak = max(self.usage.peak, resident)
        return used

    @contextmanager
    def _timed(self, worker: Worker) -> Iterator[None]:
        """Count what the child takes of today's minutes, without the time it stood still."""
        try:
            yield
        finally:
            self._spent(worker)
            self.usage.wall = time.monotonic() - self.started
            self.memory.minutes += self._active() / 60
