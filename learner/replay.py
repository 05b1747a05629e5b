"""The whole loop on a recorded log: answer, compare, correct or approve, learn, answer better.

Each user lives in an own store on the same base. Two arms answer every request: the base for ever, and the model
that learns through the gate. With `retrieve` above 0 two more answer with the most similar past requests and their
right answers in the prompt, without learning and with it. Nothing is learned from a request, and none is shown, before
all arms have answered it. What comes out holds hashes and numbers, no text.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from feedback.engine import Answer, Engine
from feedback.models import ModelFile, probe_pairs
from learner.base import Base, load_base
from learner.cycle import learn
from learner.policy import LearnPolicy
from learner.replay_log import Event, Pair
from learner.replay_metrics import Check, Outcome, Run, UserReplay
from learner.retrieval import PastAnswers, conversation
from store.base import StoreBase
from store.errors import UsageError
from store.records import Correction, Interaction, Message, Rating, digest

Tick = Callable[[str], None]  # told what is being done: "answer" once for each event, "learn" before each run


@dataclass(frozen=True, slots=True)
class ReplaySpec:
    """How a log is replayed."""

    learn_every: int = 50  # corrections between two learning runs
    learning: bool = True
    seed: int = 0  # of training and gate
    max_tokens: int = 256  # longest answer generated
    retrieve: int = 0  # past requests in the prompt of the two arms that are shown some; 0: no such arms
    policy: LearnPolicy = field(default_factory=LearnPolicy)


SEED_STRIDE = 10_000  # a run's own seed is the policy's plus its number; strides keep replays apart


def seeded(policy: LearnPolicy, seed: int) -> LearnPolicy:
    """Return `policy` with every random choice derived from `seed`."""
    start = SEED_STRIDE * seed
    return replace(policy, recipe=replace(policy.recipe, seed=start), gate=replace(policy.gate, seed=start))


class Answers:
    """Greedy answers of one engine, each computed once for a stack of adapters and a request."""

    def __init__(self, engine: Engine, max_tokens: int) -> None:
        self.engine = engine
        self._max_tokens = max_tokens
        self._known: dict[str, Answer | None] = {}
        self._stack = engine.stack

    def ask(self, prompt: str) -> Answer | None:
        """Return the answer, or None when the request is longer than the model's context."""
        if self.engine.stack != self._stack:
            self._known.clear()
            self._stack = self.engine.stack
        if prompt not in self._known:
            self._known[prompt] = self._generate(conversation([], prompt))
        return self._known[prompt]

    def shown(self, past: PastAnswers, prompt: str, count: int) -> Answer | None:
        """Return the answer with up to `count` past answers in the prompt, as many of them as fit the context."""
        pairs = past.nearest(prompt, count)
        fitting = (self._generate(conversation(pairs[first:], prompt)) for first in range(len(pairs)))
        return next((answer for answer in fitting if answer is not None), None) or self.ask(prompt)

    def _generate(self, messages: Sequence[Message]) -> Answer | None:
        try:
            return self.engine.generate(messages, max_tokens=self._max_tokens)
        except UsageError as error:
            if error.code != "context_length":
                raise
            return None


@dataclass
class _Course:
    """What has been measured so far on one user."""

    outcomes: list[Outcome] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    past: PastAnswers = field(default_factory=PastAnswers)
    pending: int = 0  # corrections since the last learning run
    rejects: int = 0
    skipped: int = 0
    serving: float = 0.0
    learning: float = 0.0


class Replayer:
    """Replays users one after another on one loaded model; the base's answers are kept between users.

    Args:
        model: the checked base.
        spec: how to replay.
        regression: requests with answers that must not be forgotten; may be empty.
    """

    def __init__(self, model: ModelFile, spec: ReplaySpec, regression: Sequence[Pair] = ()) -> None:
        self._model, self._spec = model, spec
        self._regression = [((Message("user", pair.prompt),), pair.answer) for pair in regression]
        self._policy = seeded(spec.policy, spec.seed)
        self._off = Answers(Engine(model), spec.max_tokens)
        self._on = Answers(Engine(model), spec.max_tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._off.engine.close()
        self._on.engine.close()

    def user(self, name: str, events: Sequence[Event], store: StoreBase, tick: Tick) -> UserReplay:
        """Replay one user's events, in order, in an empty `store`; see `UserReplay` for what is measured."""
        course = _Course()
        self._serve(store)
        self._check(course)
        for event in events:
            self._event(event, store, course)
            tick("answer")
            if self._spec.learning and course.pending >= self._spec.learn_every:
                tick("learn")
                self._learn(store, course)
        return UserReplay(
            user=name,
            outcomes=tuple(course.outcomes),
            runs=tuple(course.runs),
            checks=tuple(course.checks),
            rejects=course.rejects,
            skipped=course.skipped,
            serving=course.serving,
            learning=course.learning,
        )

    def _event(self, event: Event, store: StoreBase, course: _Course) -> None:
        """Answer one request in both arms, compare with the log, and record what the owner says."""
        off = self._off.ask(event.prompt)
        began = time.perf_counter()
        on = self._on.ask(event.prompt) if self._on.engine.stack else off
        if off is None or on is None:
            course.skipped += 1
            return
        right = on.text == event.answer
        if self._spec.learning:
            _record(event, on, right, self._model, store)
        course.serving += time.perf_counter() - began
        request = digest(event.prompt.encode())
        first = request not in course.seen
        course.seen.add(request)
        if event.answer is None:
            course.rejects += 1
            return
        retrieval, both = self._shown(event, course)
        course.outcomes.append(
            Outcome(request, off=off.text == event.answer, on=right, first=first, retrieval=retrieval, both=both)
        )
        course.past.add(event.prompt, event.answer)
        course.pending += not right

    def _shown(self, event: Event, course: _Course) -> tuple[bool | None, bool | None]:
        """Whether base and learner are right with past answers in the prompt; None where no such arm is asked for."""
        if not self._spec.retrieve:
            return None, None
        base = self._off.shown(course.past, event.prompt, self._spec.retrieve)
        learner = self._on.shown(course.past, event.prompt, self._spec.retrieve) if self._on.engine.stack else base
        return base is not None and base.text == event.answer, learner is not None and learner.text == event.answer

    @cached_property
    def _base(self) -> Base:
        """The training base, loaded at the first learning run."""
        return load_base(self._model, hold="fast")

    def _learn(self, store: StoreBase, course: _Course) -> None:
        """One learning run through the gate; a new adapter is served and the regression set checked."""
        began = time.perf_counter()
        stack = self._on.engine.stack
        verdict = learn(store, self._on.engine, self._base, probe_pairs(self._model.path), self._policy)
        self._serve(store)
        seconds = time.perf_counter() - began
        course.learning += seconds
        course.pending = 0
        course.runs.append(
            Run(
                at=len(course.outcomes),
                decision=verdict.decision,
                reason=verdict.reason,
                gain=verdict.gain,
                lower=verdict.lower,
                upper=verdict.upper,
                evidence=verdict.evidence,
                seconds=seconds,
            )
        )
        if self._on.engine.stack != stack:
            self._check(course)

    def _serve(self, store: StoreBase) -> None:
        """Make the learning arm serve what the store says."""
        active = [name for slot in ("shared", "personal") if (name := store.active(slot)) is not None]
        self._on.engine.set_stack([(name, store.artefact(name)) for name in active])

    def _check(self, course: _Course) -> None:
        """Measure exact answers on the regression set with what the learning arm serves now."""
        if self._regression:
            scores = self._on.engine.score_many(self._regression)
            exact = 100.0 * sum(score.exact for score in scores) / len(scores)
            course.checks.append(Check(len(course.outcomes), exact))


def _record(event: Event, answer: Answer, right: bool, model: ModelFile, store: StoreBase) -> None:
    """Log the interaction, and the owner's correction or rating of it, on the log's own clock."""
    interaction = Interaction(
        messages=(Message("user", event.prompt),),
        answer=answer.text,
        model=model.digest,
        stack=answer.stack,
        time=event.time,
    )
    said: Correction | Rating
    if event.answer is None:
        said = Rating(interaction=interaction.id, value=-1, time=event.time)
    elif right:
        said = Rating(interaction=interaction.id, value=1, time=event.time)
    else:
        said = Correction(interaction=interaction.id, corrected=event.answer, time=event.time)
    store.add_all([interaction, said])
