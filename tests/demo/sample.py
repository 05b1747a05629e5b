"""A demo's result made by hand, in which every claim holds."""

from cli.demo.result import Arrival, DemoResult, Exam, Ledger, Life, Reception, Round, Scan
from store.records import Decision, Verdict

BAD = Exam(unseen=(False,) * 30 + (True,) * 10, old=(True,) * 50)
GOOD = Exam(unseen=(False,) * 10 + (True,) * 30, old=(True,) * 50)


def verdict(decision: Decision) -> Verdict:
    """A gate's word."""
    return Verdict(
        adapter="a", decision=decision, reason="because", gain=1.0, lower=0.5, upper=2.0, evidence=20, time=0.0
    )


def life(name: str, *, planted: bool = False) -> Life:
    """An owner who learned."""
    return Life(
        name=name,
        said=(f"{name} says a secret",),
        requests=80,
        corrections=40,
        before=BAD,
        personal=GOOD,
        verdict=verdict("adopt"),
        planted=verdict("reject") if planted else None,
        seconds=9.0,
    )


NAMES = ("<Ada>", "Ben")
RESULT = DemoResult(
    model="pocket",
    lives=(life(NAMES[0], planted=True), life(NAMES[1])),
    rounds=tuple(Round(number, 2, 2, 2000, 4.0, True) for number in (1, 2, 3)),
    release="sha256:r",
    epsilon=7.9,
    delta=1e-6,
    unit="correction",
    cap=8.0,
    update_size=1000,
    received=tuple(Reception(name, verdict("adopt"), GOOD) for name in NAMES),
    newcomer=Arrival("Iris", ("iris says",), 12, BAD, Reception("Iris", verdict("adopt"), GOOD)),
    ledgers=tuple(
        Ledger(name, 7.9, 1e-6, "correction", (1000,) * 3, tuple(f"{name}{i}" for i in range(3)), True, True)
        for name in NAMES
    ),
    scan=Scan(files=40, size=5_000_000, sentences=300, hits=0, control=True),
    seconds={"talk": 100.0, "rounds": 60.0},
)
