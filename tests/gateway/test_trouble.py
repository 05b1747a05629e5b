"""The store fails while the gateway serves: answers go on, it is said that they are not kept, and none is lost."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import store.engine
from store.engine import open_engine, writing
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Interaction
from store.store import Store
from tests.disk import full, small_disk
from tests.gateway.running import Running, running

__all__ = ["small_disk"]
PATIENCE = 60.0  # seconds, on a machine that others load


def test_a_locked_store_stops_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the write lock: answers say that they are not kept, corrections are refused with 503."""
    monkeypatch.setattr(store.engine, "BUSY_SECONDS", 1)
    home = Home.locate(tmp_path / "home")
    with Store.create(home, KeyFile()) as kept, running(tmp_path, store=kept) as served:
        good = served.ask("turn on the light")
        _until(lambda: kept.count(Interaction) == 1)
        other = open_engine(home.generation(1) / "store.db", unlock(home).secret("database"))
        with writing(other):
            _until(lambda: served.ask("turn off the light").headers["x-corrigible-logged"] == "no")
            assert "busy" in _reason(served)
            assert _correct(served, good.json()["id"]) == (503, "busy")
        other.dispose()
        _until(lambda: served.ask("dim the light").headers["x-corrigible-logged"] == "yes")
        assert _correct(served, good.json()["id"]) == (201, None)
        _until(lambda: {"turn off the light", "dim the light"} <= {one.messages[-1].content for one in _all(kept)})


def test_a_full_disk_stops_no_answer(small_disk: Path, tmp_path: Path) -> None:
    """As a locked store; with room again, what waited is written."""
    with Store.create(Home.locate(small_disk / "home"), KeyFile()) as kept, running(tmp_path, store=kept) as served:
        good = served.ask("turn on the light")
        _until(lambda: kept.count(Interaction) == 1)
        with full(small_disk):
            _until(lambda: served.ask("turn off the light").headers["x-corrigible-logged"] == "no")
            assert "full" in _reason(served)
            assert _correct(served, good.json()["id"]) == (503, "disk_full")
        _until(lambda: served.ask("dim the light").headers["x-corrigible-logged"] == "yes")
        assert _correct(served, good.json()["id"]) == (201, None)
        _until(lambda: {"turn off the light", "dim the light"} <= {one.messages[-1].content for one in _all(kept)})


def _reason(served: Running) -> str:
    """Why answers are not kept, as the page is told."""
    with served.admin() as client:
        return str(client.get("/api/status").json()["logging"]["reason"])


def _correct(served: Running, completion: str) -> tuple[int, str | None]:
    """Status and code of a correction."""
    with served.client() as client:
        body = {"completion_id": completion, "corrected": f"light.on() at {time.time()}"}
        answer = client.post("/v1/corrections", json=body)
        return answer.status_code, answer.json().get("error", {}).get("code")


def _all(kept: Store) -> list[Interaction]:
    return kept.all(Interaction)


def _until(true: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
