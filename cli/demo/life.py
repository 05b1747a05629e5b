"""Owners' days with the model: ask, correct what is wrong, approve what is right, learn, receive a shared adapter.

Runs in worker processes, several owners in each. Uses what the product uses: encrypted store, recorder, gate.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cli.demo.exam import NEWCOMERS_QUESTIONS, Paper
from cli.demo.owners import Owner, Request, requests
from cli.demo.result import Arrival, Exam, Life, Reception
from federation import membership
from feedback.engine import Engine
from feedback.models import ModelFile, probe_pairs
from feedback.recorder import Recorder, correct, rate
from learner.base import Base, load_base
from learner.cycle import judge_adapter, judge_release, learn
from learner.export import to_gguf
from learner.policy import LearnPolicy
from learner.replay import seeded
from learner.spread import Tell
from learner.train import train
from store.base import StoreBase
from store.keys import Keys
from store.paths import Home
from store.protectors import Argon2Cost, Passphrase
from store.records import Consent, Correction, Example, Interaction, Message, Verdict
from store.store import Store

TALK = 300  # requests before learning
FIRST_DAYS = 40  # requests of the newcomer before the shared adapter is judged

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Seat:
    """One simulated owner: who, where their things lie, and the secret that opens the store."""

    owner: Owner
    home: Home
    passphrase: str = field(repr=False)
    planted: bool = False  # gets the bad adapter

    @property
    def protector(self) -> Passphrase:
        """What guards the store's key."""
        return Passphrase(self.passphrase, Argon2Cost.small())

    @property
    def membership(self) -> Path:
        """Where the device keeps what it knows of the fleet."""
        return self.home.data / "fleet"


@dataclass(frozen=True, slots=True)
class Shift:
    """The owners one process looks after."""

    model: ModelFile
    seed: int
    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A release on its way to the devices of a shift; `keys` open their stores, in the seats' order.

    `exams` are what the devices' owners know without it, in the same order.
    """

    shift: Shift
    fleet_key: bytes  # the fleet's public key
    envelope: bytes  # the signed manifest
    adapter: bytes = field(repr=False)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    exams: tuple[Exam, ...] = ()


def live(shift: Shift, tell: Tell) -> list[Life]:
    """Let every owner of the shift talk, correct and learn; tells (name, "asked" | "learning" | "done")."""
    base = load_base(shift.model, hold="fast")
    lives = []
    with Engine(shift.model) as engine:
        for seat in shift.seats:
            engine.set_stack(())
            with Store.create(seat.home, seat.protector) as store:
                lives.append(_life(store, engine, base, seat, shift.seed, partial(tell, seat.owner.name)))
    return lives


def receive(delivery: Delivery, tell: Tell) -> list[Reception]:
    """Let the gate of every device of the shift judge the release; tells (name, "done")."""
    shift, found = delivery.shift, []
    with Engine(shift.model) as engine:
        for seat, key, before in zip(shift.seats, delivery.keys, delivery.exams, strict=True):
            with Store.open(seat.home, Keys.from_bytes(key)) as store:
                said = {one.prompt for one in requests(seat.owner, TALK, shift.seed)}
                paper = Paper.of(seat.owner, said, shift.seed, shift.model.path)
                found.append(_reception(store, engine, seat, paper, before, delivery))
            tell(seat.owner.name, "done")
    return found


def arrive(delivery: Delivery, tell: Tell) -> list[Arrival]:
    """Let devices that never took part use the base for a while, then judge the release and nothing else."""
    shift, found = delivery.shift, []
    with Engine(shift.model) as engine:
        for seat in shift.seats:
            with Store.create(seat.home, seat.protector) as store:
                found.append(_arrival(store, engine, seat, delivery, partial(tell, seat.owner.name)))
    return found


def _life(store: StoreBase, engine: Engine, base: Base, seat: Seat, seed: int, say: Say) -> Life:
    """One owner: talk, learn, with an exam before and after; then the planted adapter where there is one."""
    began = time.monotonic()
    spoken = requests(seat.owner, TALK, seed)
    paper = Paper.of(seat.owner, {one.prompt for one in spoken}, seed, engine.model.path)
    before = paper.sit(engine)
    said = _talk(store, engine, spoken, say)
    say("learning")
    verdict = learn(store, engine, base, probe_pairs(engine.model.path), seeded(LearnPolicy(), seed))
    _serve(store, engine)
    personal = paper.sit(engine)
    planted = _judge_planted(store, engine, base, seed) if seat.planted else None
    say("done")
    return Life(
        name=seat.owner.name,
        said=said,
        requests=len(spoken),
        corrections=store.count(Correction),
        before=before,
        personal=personal,
        verdict=verdict,
        planted=planted,
        seconds=time.monotonic() - began,
    )


def _reception(
    store: StoreBase, engine: Engine, seat: Seat, paper: Paper, before: Exam, delivery: Delivery
) -> Reception:
    """Verify and judge the release on one device; where it serves then, sit the exam again."""
    release = membership.read(seat.membership).accept(delivery.envelope, delivery.adapter)
    _serve(store, engine)
    probe = probe_pairs(engine.model.path)
    policy = seeded(LearnPolicy(), delivery.shift.seed)
    verdict = judge_release(store, engine, release.adapter, release.manifest.id, probe=probe, policy=policy)
    adopted = verdict.decision == "adopt"
    return Reception(seat.owner.name, verdict, paper.sit(engine) if adopted else before)


def _arrival(store: StoreBase, engine: Engine, seat: Seat, delivery: Delivery, say: Say) -> Arrival:
    """A newcomer's first days, and what the shared adapter makes of them."""
    seed = delivery.shift.seed
    spoken = requests(seat.owner, FIRST_DAYS, seed)
    said = {one.prompt for one in spoken}
    paper = Paper.of(seat.owner, said, seed, engine.model.path, NEWCOMERS_QUESTIONS)
    engine.set_stack(())
    before = paper.sit(engine)
    talked = _talk(store, engine, spoken, say)
    membership.join(seat.membership, release_key=delivery.fleet_key, base=engine.model.digest)
    reception = _reception(store, engine, seat, paper, before, delivery)
    say("done")
    return Arrival(seat.owner.name, talked, store.count(Correction), before, reception)


def _talk(store: StoreBase, engine: Engine, spoken: Sequence[Request], say: Say) -> tuple[str, ...]:
    """Ask everything; a wrong answer is corrected, a right one approved. Returns every sentence now in the store."""
    now = time.time()
    store.add_all([Consent(purpose=purpose, granted=True, time=now) for purpose in ("log", "learn")])
    recorder = Recorder(store, engine)
    said: set[str] = set()
    for request in spoken:
        asked = recorder.answer((Message("user", request.prompt),))
        _react(store, asked, request)
        said |= {request.prompt, request.answer, asked.answer}
        say("asked")
    return tuple(sorted(said))


def _react(store: StoreBase, asked: Interaction, request: Request) -> None:
    """What the owner says to an answer."""
    if asked.answer == request.answer:
        rate(store, asked.id, 1)
    else:
        correct(store, asked.id, request.answer)


def _serve(store: StoreBase, engine: Engine) -> None:
    """Make the engine serve what the store says."""
    active = [name for slot in ("shared", "personal") if (name := store.active(slot)) is not None]
    engine.set_stack([(name, store.artefact(name)) for name in active])


def _judge_planted(store: StoreBase, engine: Engine, base: Base, seed: int) -> Verdict:
    """Train an adapter on the owner's corrections with the answers of other requests, and ask the gate."""
    policy = seeded(LearnPolicy(), seed)
    corrections = [example for example in store.examples() if example.rejected is not None]
    steps = policy.recipe.max_steps // 2  # enough to do harm
    weights = train(base, shuffled(corrections), (), replace(policy.recipe, min_steps=steps, max_steps=steps))
    data = to_gguf(weights, base.geometry, base.digest)
    probe = probe_pairs(engine.model.path)
    verdict, _ = judge_adapter(store, engine, data, slot="personal", probe=probe, policy=policy)
    return verdict


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """Give each request the answer of another: the answers moved on by half the list."""
    half = len(examples) // 2
    answers = [example.answer for example in examples]
    moved = answers[half:] + answers[:half]
    return [replace(example, answer=answer) for example, answer in zip(examples, moved, strict=True)]
