"""Device and server together: consent, redaction, ledger, every way to fail, and the way back to the device."""

import json
import time
from pathlib import Path

import pytest

from feedback.engine import Engine
from feedback.models import check_model, embedded_model
from feedback.upstream.breaker import FAILURES, PAUSE, Breaker
from feedback.upstream.policy import UpstreamPolicy, calibrate
from feedback.upstream.redact import Redaction
from store.errors import UsageError
from store.records import TRANSPORT, Completion, Consent, Egress, Message, digest
from tests.gateway.far import GOOD, certificate, far, reply
from tests.gateway.running import Running, running

PROMPT = "turn off the kitchen light"
TIMEOUT = 1.0
SECRETS = {
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "mail": "jane.doe+x@example.co.uk",
    "phone": "+49 (0)170 1234567",
    "openai": "sk-proj-abcdefghijklmnop1234",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
    "private": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "password": "password: hunter2secret",
}


def policy(url: str, **more: object) -> UpstreamPolicy:
    """A policy for a server on this machine."""
    return UpstreamPolicy(**{"url": url, "model": "big", "timeout": TIMEOUT, **more})  # type: ignore[arg-type]


def agree(served: Running, upstream: UpstreamPolicy, *, granted: bool = True) -> None:
    """The owner's word."""
    served.store.add(Consent(purpose="upstream", granted=granted, destination=upstream.origin, time=time.time()))


def test_without_consent_nothing_leaves_not_even_a_connection(tmp_path: Path) -> None:
    """The device answers and says why; withdrawing consent closes the way again."""
    with far(reply(GOOD)) as other, running(tmp_path, upstream=policy(other.url)) as served:
        name = served.gateway.catalogue.name + "@upstream"
        answer = served.ask(PROMPT, model=name)
        assert (answer.status_code, answer.headers["x-corrigible-fallback"]) == (200, "no_consent")
        assert answer.json()["corrigible"]["source"] == "device"
        assert (other.connections, served.store.count(Egress)) == (0, 0)
        agree(served, served.gateway.upstream.policy)  # type: ignore[union-attr]
        assert served.ask(PROMPT, model=name).json()["corrigible"]["source"] == "upstream"
        agree(served, served.gateway.upstream.policy, granted=False)  # type: ignore[union-attr]
        before = other.connections
        assert served.ask(PROMPT, model=name).json()["corrigible"]["fallback"] == "no_consent"
        assert other.connections == before


def test_what_leaves_is_in_the_ledger_to_the_byte(tmp_path: Path) -> None:
    """Size and digest of what the server received are those of the entries; the answer is kept as the server's."""
    with far(reply(GOOD)) as other, running(tmp_path, upstream=policy(other.url)) as served:
        upstream = served.gateway.upstream
        assert upstream is not None
        agree(served, upstream.policy)
        for stream in (False, True):
            answer = served.ask(PROMPT, model=served.gateway.catalogue.name + "@upstream", stream=stream)
            assert "from far away" in answer.text
            assert answer.headers["x-corrigible-source"] == "upstream"
        entries = served.store.all(Egress)
        assert sum(one.size for one in entries) == len(other.received)
        assert [one.destination for one in entries] == [upstream.policy.origin] * 2
        half = len(other.received) // 2
        assert entries[0].payload == digest(bytes(other.received[:half]))
        with served.client() as client:
            name = served.ask(PROMPT, model=served.gateway.catalogue.name + "@upstream").json()["id"]
            made = client.post("/v1/corrections", json={"completion_id": name, "corrected": "light.off()"}).json()
        assert (made["request"], made["answer"]) == (PROMPT, "from far away")
        (example,) = served.store.examples()
        assert (example.answer, example.rejected) == ("light.off()", "from far away")


def test_planted_secrets_never_cross_and_come_back_in_the_answer(tmp_path: Path) -> None:
    """Of every kind, in the request and in the system message; the placeholder in the reply is the secret again."""

    def echo(body: bytes) -> bytes:
        said = json.loads(body)["messages"][-1]["content"]
        return reply(json.dumps({"choices": [{"message": {"content": f"you said {said}"}}]}))

    with far(echo) as other, running(tmp_path, upstream=policy(other.url)) as served:
        agree(served, served.gateway.upstream.policy)  # type: ignore[union-attr]
        model = served.gateway.catalogue.name + "@upstream"
        for text in SECRETS.values():
            request = f"please note {text} for me"
            turns = [{"role": "system", "content": text}, {"role": "user", "content": request}]
            answer = served.ask(PROMPT, model=model, messages=turns).json()
            assert answer["corrigible"]["source"] == "upstream"
            assert answer["choices"][0]["message"]["content"] == f"you said {request}"
        for text in SECRETS.values():
            kept = text.partition(": ")[2] or text
            assert kept.encode() not in other.received
            assert json.dumps(kept, ensure_ascii=False)[1:-1].encode() not in other.received
        kept_whole = served.gateway.journal.interaction(answer["id"])
        assert SECRETS["password"] in kept_whole.messages[-1].content


def test_ordinary_numbers_and_words_are_left_alone() -> None:
    """Checksums and forms tell a card from an order number; a redaction that eats everything is of no use."""
    plain = [
        "order 4111 1111 1111 1112", "turn the light to 30 percent at 10:45", "version 1.2.3", "the year 2026",
        "call me at 5", "room 101, floor 3", "DE00 3704 9944 0532 9130", "https://example.org/a/b/c?x=1",
        "internationalizationofeverything", "3.14159265358979323846", "1234567890123", "a@b",
    ]  # fmt: skip
    redaction = Redaction()
    assert [redaction.redact(text) for text in plain] == plain
    assert redaction.found == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"answer": reply(GOOD), "delay": 5.0}, "timeout"),
        ({"answer": b"\x00\x01 this is not HTTP\r\n\r\n"}, "garbage"),
        ({"answer": reply("<html>hello</html>")}, "garbage"),
        ({"answer": reply('{"choices": []}')}, "garbage"),
        ({"answer": reply('{"choices": [{"message": {"content": ""}}]}')}, "garbage"),
        ({"answer": reply(GOOD), "cut": 150}, "cut"),
        ({"answer": reply(GOOD), "cut": 5}, "cut"),
        ({"answer": reply("{}", "500 Oops")}, "status_500"),
        ({"answer": reply("{}", "429 Later")}, "status_429"),
        ({"answer": reply("", "302 Found")}, "status_302"),
    ],
)
def test_whatever_fails_the_device_answers(tmp_path: Path, fault: dict[str, object], reason: str) -> None:
    """Each fault six times, whole and streamed: always an answer, marked, and the breaker saves most of the waiting."""
    with far(**fault) as other, running(tmp_path, upstream=policy(other.url)) as served:  # type: ignore[arg-type]
        agree(served, served.gateway.upstream.policy)  # type: ignore[union-attr]
        reasons = []
        for number in range(6):
            answer = served.ask(PROMPT, model=served.gateway.catalogue.name + "@upstream", stream=number % 2 == 0)
            assert (answer.status_code, answer.headers["x-corrigible-source"]) == (200, "device")
            assert "light" in answer.text
            reasons.append(answer.headers["x-corrigible-fallback"])
        assert reasons == [reason] * FAILURES + ["resting"] * (6 - FAILURES)
        served.gateway.journal.close()
        completion = served.store.last(Completion)
        assert completion is not None
        assert completion.fallback == "resting"


def test_a_server_that_is_down_or_not_who_it_says_is_not_used(tmp_path: Path) -> None:
    """Refused connections, a certificate nobody vouches for, one for another name; the right one is trusted."""
    good, wrong = certificate(tmp_path / "good"), certificate(tmp_path / "wrong", "127.0.0.2")
    with far(reply(GOOD), tls=good) as other, far(reply(GOOD), tls=wrong) as alien:
        cases = [
            (policy("http://127.0.0.1:9/v1"), "unreachable"),
            (policy(other.url), "tls"),
            (policy(alien.url, authorities=wrong / "cert.pem"), "tls"),
            (policy(other.url.replace("https", "http")), "cut"),
            (policy(other.url, key_file=tmp_path / "missing"), "key_file"),
            (policy(other.url, authorities=good / "cert.pem"), None),
        ]
        for number, (upstream, reason) in enumerate(cases):
            with running(_folder(tmp_path, number), upstream=upstream) as served:
                agree(served, upstream)
                answer = served.ask(PROMPT, model=served.gateway.catalogue.name + "@upstream")
                assert answer.json()["corrigible"]["fallback"] == reason
                left = {one.purpose: one.size for one in served.store.all(Egress)}
                if reason == "tls":  # the handshake left, nothing of the request did
                    assert set(left) == {TRANSPORT}
                if reason is None:  # under TLS the stream is counted beside the request it carried
                    assert left[TRANSPORT] > left["upstream"] == len(other.received)
        assert bytes(alien.received) == b""


def test_an_unsure_answer_and_a_long_prompt_go_up_a_sure_one_stays(tmp_path: Path) -> None:
    """Under a policy that says so; the device's own confidence is kept beside the server's answer."""
    odd = "qwx zzv brrt plim"
    with Engine(check_model(embedded_model())) as engine:
        asked = [engine.generate([Message("user", text)], max_tokens=40).mean_logprob for text in (PROMPT, odd)]
    threshold = sum(asked) / 2
    assert asked[1] < threshold < asked[0]
    with far(reply(GOOD)) as other:
        upstream = policy(other.url, when=("too_long", "unsure"), threshold=threshold)
        with running(tmp_path, upstream=upstream) as served:
            agree(served, upstream)
            sure = served.ask(PROMPT).json()["corrigible"]
            assert (sure["source"], other.connections) == ("device", 0)
            unsure = served.ask(odd, stream=True)
            assert unsure.headers["x-corrigible-source"] == "upstream"
            assert served.ask("word " * 3000).json()["corrigible"]["source"] == "upstream"
            refused = served.ask(PROMPT, model=served.gateway.catalogue.name + "@upstream")
            assert refused.json()["error"]["code"] == "not_allowed"
            served.gateway.journal.close()
            kept = [one for one in served.store.all(Completion) if one.source and one.confidence is not None]
            assert len(kept) == 1
            assert kept[0].confidence is not None
            assert kept[0].confidence < threshold


def test_a_long_prompt_with_the_server_down_is_the_devices_refusal(tmp_path: Path) -> None:
    """There is nobody left who could answer it."""
    upstream = policy("http://127.0.0.1:9/v1", when=("too_long",))
    with running(tmp_path, upstream=upstream) as served:
        agree(served, upstream)
        answer = served.ask("word " * 3000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "unreachable" in answer.json()["error"]["message"]


def test_the_preview_is_what_would_be_sent(tmp_path: Path) -> None:
    """Word for word, and showing it sends nothing."""
    with far(reply(GOOD)) as other, running(tmp_path, upstream=policy(other.url)) as served:
        agree(served, served.gateway.upstream.policy)  # type: ignore[union-attr]
        body = {"messages": [{"role": "user", "content": f"mail {SECRETS['mail']} now"}], "max_tokens": 40}
        with served.admin() as admin:
            shown = admin.post("/api/upstream/preview", json=body).json()
        assert (other.connections, shown["redacted"]) == (0, {"EMAIL": 1})
        served.ask("", model=served.gateway.catalogue.name + "@upstream", **body)
        assert bytes(other.received).endswith(shown["body"].encode())
        assert len(other.received) == shown["size"]


def test_the_breaker_rests_and_lets_one_through() -> None:
    """After its pause a single caller tries; success closes it, failure opens it again."""
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES):
        assert breaker.allow()
        breaker.failed()
    assert not breaker.allow()
    now[0] += PAUSE + 1
    assert (breaker.allow(), breaker.allow()) == (True, False)
    breaker.failed()
    assert not breaker.allow()
    now[0] += PAUSE + 1
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.allow()


def test_the_threshold_separates_what_was_corrected() -> None:
    """Where confidence tells right from wrong it is found; where it does not, the AUC says so; few are refused."""
    right, wrong = [-0.01 * i for i in range(40)], [-0.3 - 0.02 * i for i in range(40)]
    found = calibrate(right, wrong)
    assert -0.45 < found.threshold <= -0.25
    assert found.caught > 0.8
    assert found.auc > 0.95
    assert calibrate(right, right).auc == pytest.approx(0.5)
    with pytest.raises(UsageError):
        calibrate(right, wrong[:19])


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "http://example.org/v1", "https://user:pass@example.org/v1", "nonsense", ""]
)
def test_an_address_that_would_leak_is_refused(url: str) -> None:
    """Plain HTTP beyond this machine, passwords in the address, other schemes."""
    with pytest.raises(UsageError):
        UpstreamPolicy(url=url, model="x")


def test_the_trigger_unsure_needs_a_threshold() -> None:
    """And a trigger must be known."""
    for more in ({"when": ("unsure",)}, {"when": ("always",)}):
        with pytest.raises(UsageError):
            policy("https://example.org/v1", **more)


def _folder(parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder
