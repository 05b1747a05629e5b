"""The OpenAI-compatible routes, spoken to over a real socket."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.gateway.settings import GatewaySettings
from feedback.models import probe_pairs
from store.records import Message
from tests.gateway.running import Running, running

PROMPT = "turn off the kitchen light"


def chunks(text: str) -> list[dict[str, Any]]:
    """The JSON of each event of a stream; it must end with [DONE]."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_an_answer_is_what_the_engine_gives(served: Running) -> None:
    """The HTTP path adds nothing to and takes nothing from the words, and counts the true tokens."""
    for prompt, _ in probe_pairs(served.gateway.engine.model.path)[:5]:
        body = served.ask(prompt).json()
        turns = [served.gateway.engine.generate([_user(prompt)], max_tokens=40)]
        assert body["choices"][0]["message"] == {"role": "assistant", "content": turns[0].text, "refusal": None}
        assert body["usage"] == {
            "prompt_tokens": turns[0].tokens_in,
            "completion_tokens": turns[0].tokens_out,
            "total_tokens": turns[0].tokens_in + turns[0].tokens_out,
        }
        assert body["choices"][0]["finish_reason"] == "stop"


def test_a_stream_is_the_same_answer_in_pieces(served: Running) -> None:
    """First chunk the role, one id throughout, a reason at the end, then usage with no choices, then [DONE]."""
    whole = served.ask(PROMPT).json()
    found = chunks(served.ask(PROMPT, stream=True, stream_options={"include_usage": True}).text)
    *pieces, last, usage = found
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in pieces)
    assert text == whole["choices"][0]["message"]["content"]
    assert len({one["id"] for one in found}) == len({one["created"] for one in found}) == 1
    assert all(one["usage"] is None for one in (*pieces, last))
    assert (last["choices"][0]["finish_reason"], usage["choices"], usage["usage"]) == ("stop", [], whole["usage"])


def test_a_stream_without_usage_says_nothing_of_it(served: Running) -> None:
    """Old clients stumble over chunks without choices."""
    found = chunks(served.ask(PROMPT, stream=True).text)
    assert all(one["choices"] and "usage" not in one for one in found)


def test_stop_ends_the_answer_before_the_word(served: Running) -> None:
    """As a string and in a list, streamed and whole."""
    whole = served.ask(PROMPT).json()["choices"][0]["message"]["content"]
    word = whole[5:9]
    for stop in (word, ["never there", word]):
        body = served.ask(PROMPT, stop=stop).json()
        assert body["choices"][0]["message"]["content"] == whole[: whole.index(word)]
        pieces = chunks(served.ask(PROMPT, stop=stop, stream=True).text)
        streamed = "".join(one["choices"][0]["delta"].get("content", "") for one in pieces)
        assert streamed == whole[: whole.index(word)]


def test_an_answer_cut_by_its_limit_says_so(served: Running) -> None:
    """Under both names of the parameter."""
    for name in ("max_tokens", "max_completion_tokens"):
        body = served.ask(PROMPT, **{"max_tokens": None, name: 3}).json()
        assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 3)


def test_seeds_repeat_and_differ(served: Running) -> None:
    """At a high temperature."""

    def drawn(seed: int) -> str:
        body = served.ask(PROMPT, temperature=2, seed=seed).json()
        return str(body["choices"][0]["message"]["content"])

    assert drawn(1) == drawn(1) != drawn(2)


def test_probabilities_are_those_of_the_tokens_shown(served: Running) -> None:
    """They add up to the confidence of the answer (its end token aside), and the likeliest comes first."""
    body = served.ask(PROMPT, logprobs=True, top_logprobs=3).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in content) == body["choices"][0]["message"]["content"]
    for one in content:
        assert one["top_logprobs"][0]["token"] == one["token"]
        assert one["top_logprobs"][0]["logprob"] == pytest.approx(one["logprob"], abs=1e-3)
        assert len(one["top_logprobs"]) == 3
    streamed = chunks(served.ask(PROMPT, logprobs=True, stream=True).text)
    parts = [one["choices"][0]["logprobs"] for one in streamed]
    tokens = [token["token"] for part in parts if part for token in part["content"]]
    assert tokens == [one["token"] for one in content]


def test_a_json_schema_binds_the_answer(served: Running) -> None:
    """A model that never saw JSON answers in it, with the keys and kinds asked for."""
    schema = {
        "type": "object",
        "properties": {"room": {"type": "string", "maxLength": 12}, "level": {"type": "integer"}},
        "required": ["room", "level"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "light", "schema": schema, "strict": True}}
    body = served.ask(PROMPT, response_format=form, max_tokens=200).json()
    value = json.loads(body["choices"][0]["message"]["content"])
    assert {name: type(one) for name, one in value.items()} == {"room": str, "level": int}


def test_every_model_id_answers_and_names_its_stack(served: Running) -> None:
    """Without adapters all are the base; the header and the body say so."""
    with served.client() as client:
        ids = [one["id"] for one in client.get("/v1/models").json()["data"]]
        assert client.get(f"/v1/models/{ids[1]}").json()["id"] == ids[1]
    assert [id.partition("@")[2] for id in ids] == ["", "base", "shared", "personal"]
    for id in ids:
        answer = served.ask(PROMPT, model=id)
        assert answer.json()["model"] == id
        assert answer.headers["x-corrigible-adapter"] == "none"
        assert answer.json()["corrigible"]["adapters"] == []


def test_plain_text_is_continued(served: Running) -> None:
    """Without the chat template, whole and streamed, with probabilities in the older form."""
    with served.client() as client:
        body = client.post("/v1/completions", json={"prompt": "light.", "max_tokens": 6, "logprobs": 2}).json()
        streamed = client.post("/v1/completions", json={"prompt": "light.", "max_tokens": 6, "stream": True}).text
    choice = body["choices"][0]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert "".join(one["choices"][0]["text"] for one in chunks(streamed)) == choice["text"]
    assert body["corrigible"]["logged"] is False


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"temperature": 9}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://x/y"}}}},
         "response_format.json_schema.schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(served: Running, change: dict[str, object], param: str) -> None:
    """Never dropped silently."""
    answer = served.ask(PROMPT, **change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], set(error)) == (param, {"message", "type", "param", "code"})


def test_a_prompt_longer_than_the_context_is_an_error_of_its_own(served: Running) -> None:
    """With the code that clients look for, streamed or not."""
    for stream in (False, True):
        answer = served.ask("word " * 3000, stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{not json", 400, "invalid_value"),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400, "invalid_value"),
        ("POST", "/v1/chat/completions", b'{"messages": "x"}', 400, "invalid_value"),
        ("POST", "/v1/completions", b'{"model": "gpt-5", "prompt": "x"}', 404, "model_not_found"),
        ("POST", "/v1/embeddings", b'{"input": "x"}', 400, "unsupported_model"),
        ("GET", "/v1/models/nothing", None, 404, "model_not_found"),
        ("GET", "/chat/completions", None, 404, "not_found"),
        ("GET", "/v1/chat/completions", None, 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", b" " * (1 << 21), 413, "request_too_large"),
    ],
)  # fmt: skip
def test_malformed_requests_get_an_error_object(
    served: Running, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    """A 4xx with OpenAI's error object, whatever was sent."""
    with served.client() as client:
        answer = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_body_that_is_not_declared_as_json_is_refused(served: Running) -> None:
    """What a form or a plain-text request of another site could send."""
    with served.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = client.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": kind})
            assert answer.status_code == 415


def test_a_client_that_hangs_up_stops_the_work(served: Running) -> None:
    """The turn is free again at once, streamed or not, long before the answer would have ended."""
    turns = [{"role": "user", "content": PROMPT}]
    body = {"messages": turns, "max_tokens": 1000, "response_format": _endless()}
    with served.client() as client:
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            next(answer.iter_bytes())
            assert served.gateway.desk.load[0] == 1
        _idle(served)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body, timeout=0.5)
        _idle(served)


def test_more_requests_than_may_wait_are_told_when_to_come_back(tmp_path: Path) -> None:
    """All others are answered."""
    settings = GatewaySettings(parallel=1, waiting=2)
    with running(tmp_path, settings=settings) as served, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(served.ask, PROMPT, max_tokens=150, response_format=_endless()) for _ in range(8)]
        answers = [one.result() for one in asked]
    refused = [one for one in answers if one.status_code == 429]
    assert {one.status_code for one in answers} == {200, 429}
    assert len(answers) - len(refused) >= 3
    assert {one.json()["error"]["code"] for one in refused} == {"queue_full"}
    assert all(int(one.headers["retry-after"]) >= 1 for one in refused)


def _idle(served: Running) -> None:
    """Wait until nothing grows; it must not take long."""
    end = time.monotonic() + 2
    while served.gateway.desk.load[0] and time.monotonic() < end:
        time.sleep(0.02)
    assert served.gateway.desk.load == (0, 0)


def _endless() -> dict[str, object]:
    """A format that keeps the model writing: a list of many integers."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
    return {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}


def _user(text: str) -> Message:

    return Message("user", text)
