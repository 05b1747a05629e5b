"""The exam: requests the owner has never said, and the base's own old skills, asked through the served path."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cli.demo.owners import Owner, requests
from cli.demo.result import Exam
from feedback.engine import Engine
from feedback.models import probe_pairs
from learner.gate import GatePolicy
from learner.material import divided
from learner.skills import known_skills
from store.records import Example, Message

QUESTIONS = 80  # unseen requests of an owner
NEWCOMERS_QUESTIONS = 200  # one person instead of eight: more of them, to tell a small gain from none
DRAWN = 800  # requests drawn to find enough unseen ones

Item = tuple[tuple[Message, ...], str]


@dataclass(frozen=True, slots=True)
class Paper:
    """The questions of one owner's exams: the same before and after, none of them ever learned from."""

    unseen: tuple[Item, ...]
    old: tuple[Example, ...]

    @classmethod
    def of(cls, owner: Owner, said: Collection[str], seed: int, model: Path, questions: int = QUESTIONS) -> "Paper":
        """Draw unseen requests of `owner` and old ones that no training run may replay."""
        drawn = {one.prompt: one.answer for one in requests(owner, DRAWN, seed + 1) if one.prompt not in said}
        unseen = [_item(prompt, answer) for prompt, answer in drawn.items()][:questions]
        return cls(tuple(unseen), divided(probe_pairs(model), GatePolicy())[1])

    def sit(self, engine: Engine) -> Exam:
        """Ask everything of what the engine serves now; right is only the exact answer."""
        old = known_skills(engine, self.old)
        unseen = tuple(score.exact for score in engine.score_many(self.unseen))
        return Exam(unseen, tuple(old[one.id].exact for one in self.old))


def _item(prompt: str, answer: str) -> Item:
    return (Message("user", prompt),), answer
