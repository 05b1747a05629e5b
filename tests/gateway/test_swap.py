"""Adapters change under running answers: nobody waits, nobody fails, every answer names the stack it came from."""

import json
import threading
import time
from pathlib import Path

from feedback.engine import ADAPTERS, Engine
from feedback.models import check_model, embedded_model
from store.memory import MemoryStore
from store.records import Message, digest
from tests.feedback.micro import adapter
from tests.gateway.running import Running, activate, running

SWAPS = 100
STREAMS = 4
LOADED = ADAPTERS + 5  # stacks in turn: more than are kept, so that swaps load and free beside the streams


def test_a_hundred_swaps_under_four_streams(tmp_path: Path) -> None:
    """No request fails, and each answer is exactly its own stack's."""
    data = [adapter(embedded_model(), rank=2, scale=0.3, seed=seed) for seed in range(1, LOADED)]
    table = {digest(raw): (digest(raw), raw) for raw in data}
    with running(tmp_path, store=MemoryStore(), adapters=table) as served:
        answers: list[tuple[str, str]] = []
        failures: list[str] = []
        stop = threading.Event()
        threads = [
            threading.Thread(target=_ask, args=(served, number, stop, answers, failures)) for number in range(STREAMS)
        ]
        for thread in threads:
            thread.start()
        for number in range(SWAPS):
            name = [None, *table][number % LOADED]
            activate(served, "personal", name)
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert len({stack for stack, _ in answers}) > ADAPTERS
    with Engine(check_model(embedded_model())) as alone:
        for stack, text in set(answers):
            alone.set_stack([table[stack]] if stack != "none" else [])
            assert alone.generate([Message("user", "turn off the kitchen light")], max_tokens=24).text == text


def test_an_answer_in_flight_keeps_its_stack(tmp_path: Path) -> None:
    """Begun before the swap, it ends as if there had been none; the next one is the new stack's."""
    raw = adapter(embedded_model(), rank=2, scale=0.5, seed=9)
    name = digest(raw)
    with running(tmp_path, adapters={name: (name, raw)}) as served:
        calm = served.ask("turn off the kitchen light").json()
        with (
            served.client() as client,
            client.stream("POST", "/v1/chat/completions", json=_body(stream=True)) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            activate(served, "personal", name)
            text = "".join(_delta(line) for line in lines)
            assert answer.headers["x-corrigible-adapter"] == "none"
        assert text == calm["choices"][0]["message"]["content"]
        after = served.ask("turn off the kitchen light")
        assert after.headers["x-corrigible-adapter"] == name
        compare = {id: served.ask("turn off the kitchen light", model=id).json()["corrigible"]["adapters"]
                   for id in served.gateway.catalogue.ids}  # fmt: skip
        assert list(compare.values()) == [[name], [], [], [name]]


def _ask(
    served: Running, number: int, stop: threading.Event, answers: list[tuple[str, str]], failures: list[str]
) -> None:
    """Ask again and again."""
    with served.client() as client:
        while not stop.is_set():
            answer = client.post("/v1/chat/completions", json=_body(stream=number % 2 == 0))
            if answer.status_code != 200:
                failures.append(answer.text)
                continue
            if number % 2 == 0:
                text = "".join(_delta(line) for line in answer.text.splitlines())
            else:
                text = answer.json()["choices"][0]["message"]["content"]
            answers.append((answer.headers["x-corrigible-adapter"], text))


def _body(*, stream: bool) -> dict[str, object]:
    turns = [{"role": "user", "content": "turn off the kitchen light"}]
    return {"messages": turns, "max_tokens": 24, "stream": stream}


def _delta(line: str) -> str:
    """The text that one line of a stream adds."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return str(choices[0]["delta"].get("content", "")) if choices else ""
