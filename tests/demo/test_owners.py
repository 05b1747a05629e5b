"""The simulated owners: reproducible, different from each other, and in the embedded model's own language."""

import json
import re

from cli.demo.exam import Paper
from cli.demo.life import shuffled
from cli.demo.owners import FLEET_HABITS, NEWCOMER, ORDINARY, OWNERS, requests
from feedback.models import embedded_model
from store.records import Example, Message

ACTION = re.compile(r'\w+\.\w+\((\w+=("[^"]*"|\d+)(, )?)+\)')


def test_the_same_seed_gives_the_same_requests() -> None:
    """Requests depend on owner and seed alone."""
    assert requests(OWNERS[0], 50, 1) == requests(OWNERS[0], 50, 1)
    assert requests(OWNERS[0], 50, 1) != requests(OWNERS[0], 50, 2)
    assert requests(OWNERS[0], 50, 1) != requests(OWNERS[1], 50, 1)


def test_there_are_eight_owners_with_private_habits_and_a_newcomer_with_none() -> None:
    """No private habit occurs twice."""
    phrases = [phrase for owner in OWNERS for habit in owner.habits for phrase in habit.phrases]
    assert len(OWNERS) == 8
    assert len(phrases) == len(set(phrases))
    assert NEWCOMER.habits == ()


def test_the_newcomer_says_only_what_the_fleet_shares_and_ordinary_things() -> None:
    """What a shared adapter cannot know is not asked of it."""
    known = {habit.action.split("(")[0] for habit in (*FLEET_HABITS, *ORDINARY)}
    assert {one.answer.split("(")[0] for one in requests(NEWCOMER, 300, 0)} <= known


def test_every_answer_is_one_action_that_the_model_knows() -> None:
    """Action names and argument names all occur in the embedded model's own probe set."""
    probe = embedded_model().with_name("probe.jsonl").read_text(encoding="utf-8").splitlines()
    names = set(re.findall(r"\w+\.\w+", " ".join(json.loads(line)["answer"] for line in probe)))
    for owner in (*OWNERS, NEWCOMER):
        for request in requests(owner, 100, 0):
            assert ACTION.fullmatch(request.answer), request.answer
            assert request.answer.split("(")[0] in names


def test_an_exam_asks_nothing_that_was_said_before() -> None:
    """Questions are unseen, the same each time, and eighty."""
    said = {one.prompt for one in requests(OWNERS[0], 120, 0)}
    paper = Paper.of(OWNERS[0], said, 0, embedded_model())
    assert not said & {messages[0].content for messages, _ in paper.unseen}
    assert paper == Paper.of(OWNERS[0], said, 0, embedded_model())
    assert len(paper.unseen) == 80
    assert len(paper.old) >= 60


def test_the_planted_adapter_learns_the_answers_of_other_requests() -> None:
    """Same requests, same answers, none of them together."""
    examples = [Example(messages=(Message("user", f"p{i}"),), answer=f"a{i}", rejected="x") for i in range(7)]
    moved = shuffled(examples)
    assert [one.messages for one in moved] == [one.messages for one in examples]
    assert sorted(one.answer for one in moved) == sorted(one.answer for one in examples)
    assert all(a.answer != b.answer for a, b in zip(examples, moved, strict=True))
