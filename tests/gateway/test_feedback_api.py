"""Corrections, their states, ratings and signals over HTTP, and what learning makes of each."""

from pathlib import Path

import pytest

from feedback.gateway.tokens import TokenFile
from store.records import Consent, Correction, Interaction, Rating, Signal
from tests.gateway.running import Running, running

PROMPT = "turn off the kitchen light"


def completion(served: Running, prompt: str = PROMPT) -> str:
    """Ask, and return the handle for corrections."""
    return str(served.ask(prompt).json()["id"])


def test_a_correction_goes_round(served: Running) -> None:
    """Made, listed, searched, shown, kept from sharing, discarded, undone, removed: each as learning sees it."""
    with served.client() as client:
        made = client.post(
            "/v1/corrections", json={"completion_id": completion(served), "corrected": "zanzibar()", "reason": "r"}
        )
        assert made.status_code == 201
        view = made.json()
        path = f"/v1/corrections/{view['id']}"
        assert (view["request"], view["state"], view["share"], view["learned"]) == (PROMPT, "accepted", True, False)
        assert [one["id"] for one in client.get("/v1/corrections", params={"q": "zanzibar"}).json()["data"]] == [
            view["id"]
        ]
        assert client.get(path).json() == view
        assert _taught(served)["zanzibar()"] is True
        assert client.patch(path, json={"share": False}).json()["share"] is False
        assert _taught(served)["zanzibar()"] is False
        assert client.patch(path, json={"state": "discarded"}).json()["state"] == "discarded"
        assert "zanzibar()" not in _taught(served)
        assert client.get("/v1/corrections", params={"state": "discarded"}).json()["data"][0]["id"] == view["id"]
        undone = client.patch(path, json={"undo": True}).json()
        assert (undone["state"], undone["share"]) == ("accepted", False)
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404
    assert "zanzibar()" not in _taught(served)


def test_a_streamed_answer_is_corrected_by_the_id_of_its_chunks(served: Running) -> None:
    """At once after the last one, though logging happens behind the stream."""
    import json

    text = served.ask(PROMPT, stream=True).text
    name = json.loads(text.partition("\n")[0].removeprefix("data: "))["id"]
    with served.client() as client:
        made = client.post("/v1/corrections", json={"completion_id": name, "corrected": "streamed()"})
        assert made.json()["completion_id"] == name


@pytest.mark.parametrize(
    ("corrected", "status", "code"),
    [("", 400, "empty"), (" \n ", 400, "empty"), ("x" * 70_000, 413, "too_long"), ("a\0b", 400, "bad_text"),
     ("x" * (1 << 20), 413, "request_too_large"), (None, 400, "invalid_value"), (7, 400, "invalid_value")],
)  # fmt: skip
def test_a_correction_that_teaches_nothing_is_refused(
    served: Running, corrected: object, status: int, code: str
) -> None:
    """Empty, too large, not text."""
    with served.client() as client:
        body = {"completion_id": completion(served), "corrected": corrected}
        answer = client.post("/v1/corrections", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_correction_of_nothing_or_to_the_same_is_refused(served: Running) -> None:
    """Unknown, deleted, unlogged, equal to the answer."""
    asked = served.ask(PROMPT).json()
    with served.client() as client, served.admin() as admin:
        same = {"completion_id": asked["id"], "corrected": asked["choices"][0]["message"]["content"]}
        assert client.post("/v1/corrections", json=same).json()["error"]["code"] == "unchanged"
        assert admin.delete(f"/api/interactions/{asked['id']}").json() == {"deleted": True}
        plain = client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2}).json()["id"]
        for name in (asked["id"], plain, "chatcmpl-unknown", "sha256:" + "0" * 64, "sha256:zz"):
            answer = client.post("/v1/corrections", json={"completion_id": name, "corrected": "y"})
            assert (answer.status_code, answer.json()["error"]["code"]) in ((404, "not_found"), (404, "bad_id"))


def test_corrections_of_a_reviewed_token_wait_for_the_owner(served: Running) -> None:
    """They teach only once the owner accepts them, and the token cannot do that itself."""
    tokens = TokenFile.load(served.tokens).added("guest", ["chat", "correct"], review=True)
    tokens.save()
    with served.client(tokens.tokens[-1].value) as guest, served.client() as owner:
        view = guest.post("/v1/corrections", json={"completion_id": completion(served), "corrected": "guest()"}).json()
        assert view["state"] == "pending"
        assert "guest()" not in _taught(served)
        assert guest.patch(f"/v1/corrections/{view['id']}", json={"state": "accepted"}).status_code == 403
        assert owner.patch(f"/v1/corrections/{view['id']}", json={"state": "accepted"}).json()["state"] == "accepted"
    assert "guest()" in _taught(served)


def test_ratings_and_signals_are_kept_apart_from_corrections(served: Running) -> None:
    """Thumbs are ratings; regenerate, edit and copy are weak evidence that teaches nothing."""
    name, before = completion(served), served.store.count(Correction)
    taught = _taught(served)
    with served.client() as client:
        assert client.post("/v1/ratings", json={"completion_id": name, "rating": "down"}).status_code == 201
        for kind in ("regenerate", "edit_resend", "copy_after_edit"):
            body = {"completion_id": name, "kind": kind, "text": "words"}
            assert client.post("/v1/signals", json=body).json()["kind"] == kind
        assert client.post("/v1/signals", json={"completion_id": name, "kind": "other"}).status_code == 400
    rating = served.store.last(Rating)
    assert rating is not None
    assert (rating.value, served.store.count(Signal), served.store.count(Correction)) == (-1, 3, before)
    assert _taught(served) == taught


def test_pages_of_corrections_do_not_overlap(served: Running) -> None:
    """Newest first, each once, until there are no more."""
    with served.client() as client:
        for number in range(5):
            client.post("/v1/corrections", json={"completion_id": completion(served), "corrected": f"page({number})"})
        seen: list[str] = []
        before = None
        while True:
            page = client.get("/v1/corrections", params={"limit": 2, **({"before": before} if before else {})}).json()
            seen += [one["id"] for one in page["data"]]
            if not page["has_more"]:
                break
            before = seen[-1]
    assert len(seen) == len(set(seen)) == served.store.count(Correction)


def test_the_answers_page_shows_what_was_said_of_each(served: Running) -> None:
    """What the chat shows after a reload."""
    name = completion(served)
    with served.client() as client, served.admin() as admin:
        client.post("/v1/corrections", json={"completion_id": name, "corrected": "shown()"})
        client.post("/v1/ratings", json={"completion_id": name, "rating": "up"})
        newest = admin.get("/api/interactions", params={"limit": 1}).json()
    (one,) = newest["data"]
    assert (one["completion_id"], one["corrected"], one["rating"], newest["has_more"]) == (name, "shown()", "up", True)


def test_without_consent_to_log_answers_go_on_and_say_so(tmp_path: Path) -> None:
    """Nothing is stored, the answer says that it was not, and correcting it is refused with the reason."""
    with running(tmp_path) as served:
        served.store.add(Consent(purpose="log", granted=False, time=1.0))
        answer = served.ask(PROMPT)
        assert (answer.status_code, answer.headers["x-corrigible-logged"]) == (200, "no")
        assert answer.json()["corrigible"]["logged"] is False
        with served.client() as client, served.admin() as admin:
            body = {"completion_id": answer.json()["id"], "corrected": "y"}
            assert client.post("/v1/corrections", json=body).status_code == 404
            assert admin.get("/api/status").json()["logging"]["on"] is False
        assert served.store.count(Interaction) == 0


def _taught(served: Running) -> dict[str, bool]:
    """The corrected answers that learning would see, and whether each may be shared."""
    return {one.answer: one.share for one in served.store.examples() if one.rejected is not None}
