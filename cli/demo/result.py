"""What the demo measured, stage by stage. Values only; holds no request and no answer but in `said`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from store.records import Verdict


@dataclass(frozen=True, slots=True)
class Exam:
    """Right or wrong on requests never said before, one entry each, in a fixed order; and the base's old skills."""

    unseen: tuple[bool, ...]
    old: tuple[bool, ...]

    @property
    def error(self) -> float:
        """Wrong answers on unseen requests, percent."""
        return wrong_percent(self.unseen)

    @property
    def skills(self) -> float:
        """Right answers on the base's own held-out requests, percent."""
        return 100.0 - wrong_percent(self.old)


@dataclass(frozen=True, slots=True)
class Life:
    """One owner with a store of their own: what was said, and the exams before and after learning."""

    name: str
    said: tuple[str, ...] = field(repr=False)  # every sentence that went into the store, for the scan
    requests: int
    corrections: int
    before: Exam
    personal: Exam
    verdict: Verdict
    planted: Verdict | None  # the gate's word on the planted bad adapter, for the owner who got it
    seconds: float


@dataclass(frozen=True, slots=True)
class Reception:
    """How one device took the shared release: the gate's word and the exam afterwards."""

    name: str
    verdict: Verdict
    exam: Exam


@dataclass(frozen=True, slots=True)
class Arrival:
    """A device that never took part: its first days on the base, then the shared adapter alone."""

    name: str
    said: tuple[str, ...] = field(repr=False)
    corrections: int
    before: Exam
    reception: Reception


@dataclass(frozen=True, slots=True)
class Round:
    """One federated round as the server reported it."""

    number: int
    asked: int
    accepted: int
    bytes_in: int
    seconds: float
    released: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one device wrote down about what left it."""

    name: str
    epsilon: float  # spent in all, at `delta`
    delta: float
    unit: str
    sizes: tuple[int, ...]  # bytes of each message that left
    digests: tuple[str, ...]
    spent_first: bool  # each message's cost was on file with it
    whole: bool  # the store's chain verifies


@dataclass(frozen=True, slots=True)
class Scan:
    """The search for logged sentences in everything the demo left on disk."""

    files: int
    size: int  # bytes
    sentences: int
    hits: int
    control: bool  # the same search finds a sentence planted in the open


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything the demo measured."""

    model: str
    lives: tuple[Life, ...]
    rounds: tuple[Round, ...]
    release: str  # id of the newest release
    epsilon: float  # of all rounds together, as the release states it
    delta: float
    unit: str
    cap: float  # the most the plan may spend
    update_size: int  # bytes of every update, known before any data
    received: tuple[Reception, ...]
    newcomer: Arrival
    ledgers: tuple[Ledger, ...]
    scan: Scan
    seconds: dict[str, float]


def wrong_percent(right: Sequence[bool]) -> float:
    """Share of wrong answers in percent; 0 for none asked."""
    return 100.0 * sum(not one for one in right) / len(right) if right else 0.0
