"""Clients that people use, against a running gateway: each row of the table is a client, each column a behaviour."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.running import Running

PROMPT = "turn off the kitchen light"
TURNS: list[Any] = [{"role": "user", "content": PROMPT}]
SCHEMA = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "light", "schema": SCHEMA}}
NODE = Path(__file__).parents[1] / "node"

pytestmark = pytest.mark.filterwarnings("ignore")  # the clients' own


def expected(served: Running) -> str:
    """The answer that each client must show."""
    return str(served.ask(PROMPT).json()["choices"][0]["message"]["content"])


def test_openai_python(served: Running) -> None:
    """Chat, stream with usage, stop, JSON schema, error, cancel, models, correction."""
    openai = pytest.importorskip("openai", reason="the openai client is not installed (extra dev)")
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0)
    text, model = expected(served), served.gateway.catalogue.name
    assert next(one.id for one in client.models.list()) == model
    answer = client.chat.completions.create(model=model, messages=TURNS)
    assert answer.choices[0].message.content == text
    chunks = list(
        client.chat.completions.create(
            model=model, messages=TURNS, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == text
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
    stopped = client.chat.completions.create(model=model, messages=TURNS, stop=[text[5:9]])
    assert stopped.choices[0].message.content == text[: text.index(text[5:9])]
    formed = client.chat.completions.create(model=model, messages=TURNS, response_format=FORM, max_tokens=60)
    assert isinstance(json.loads(formed.choices[0].message.content)["level"], int)
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nothing", messages=TURNS)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0).models.list()
    with client.chat.completions.create(model=model, messages=TURNS, stream=True, max_tokens=500) as stream:
        next(iter(stream))
    made = client.post(
        "/corrections", body={"completion_id": answer.id, "corrected": "light.openai()"}, cast_to=dict[str, Any]
    )
    assert made["answer"] == text


def test_langchain(served: Running) -> None:
    """Chat, stream, stop, structured output, error, correction by the id in the message."""
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed (extra dev)")
    make: Callable[..., Any] = lambda **more: langchain.ChatOpenAI(  # noqa: E731
        base_url=f"{served.url}/v1", api_key=served.token, max_retries=0,
        **{"model": served.gateway.catalogue.name, "stream_usage": True, **more},
    )  # fmt: skip
    text, chat = expected(served), make()
    said = chat.invoke(PROMPT)
    assert said.content == text
    assert said.usage_metadata["output_tokens"] > 0
    pieces = list(chat.stream(PROMPT))
    assert "".join(one.content for one in pieces) == text
    assert any(one.usage_metadata for one in pieces)
    assert chat.invoke(PROMPT, stop=[text[5:9]]).content == text[: text.index(text[5:9])]
    formed = make(max_tokens=60).with_structured_output({"title": "light", **SCHEMA}, method="json_schema")
    assert isinstance(formed.invoke(PROMPT)["level"], int)
    with pytest.raises(Exception, match="no such model"):
        make(model="nothing").invoke(PROMPT)
    with served.client() as client:
        body = {"completion_id": said.response_metadata["id"], "corrected": "light.langchain()"}
        assert client.post("/v1/corrections", json=body).status_code == 201


def test_litellm(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chat, stream with usage, stop, JSON schema, error."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm", reason="litellm is not installed (extra dev)")
    text = expected(served)
    common = {
        "model": f"openai/{served.gateway.catalogue.name}",
        "api_base": f"{served.url}/v1",
        "api_key": served.token,
        "messages": TURNS,
    }
    answer = litellm.completion(**common)
    assert answer.choices[0].message.content == text
    chunks = list(litellm.completion(**common, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == text
    stopped = litellm.completion(**common, stop=[text[5:9]])
    assert stopped.choices[0].message.content == text[: text.index(text[5:9])]
    formed = litellm.completion(**common, response_format=FORM, max_tokens=60)
    assert isinstance(json.loads(formed.choices[0].message.content)["level"], int)
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(**{**common, "model": "openai/nothing"})
    with served.client() as client:
        body = {"completion_id": answer.id, "corrected": "light.litellm()"}
        assert client.post("/v1/corrections", json=body).status_code == 201


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(not (NODE / "node_modules" / "openai").is_dir(), reason="npm install --prefix tests/node brings it")
def test_openai_npm(served: Running) -> None:
    """The official JavaScript client: the same behaviours, checked in its own program."""
    names = {"BASE": f"{served.url}/v1", "KEY": served.token, "MODEL": served.gateway.catalogue.name}
    done = subprocess.run(
        ["node", "openai_client.mjs"], cwd=NODE, env={"PATH": "/usr/bin:/bin:/usr/local/bin", **names},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found == dict.fromkeys(
        ["chat", "stream", "usage", "stop", "schema", "error", "cancel", "models", "correction"], True
    )
