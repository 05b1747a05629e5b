"""A real gateway on a loopback port: the embedded or a micro model, a real store, uvicorn in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from feedback.engine import Engine
from feedback.gateway.build import build_gateway
from feedback.gateway.server import Server, bind
from feedback.gateway.settings import GatewaySettings
from feedback.gateway.state import Above, Gateway
from feedback.gateway.tokens import TokenFile
from feedback.models import check_model, embedded_model
from feedback.upstream.policy import UpstreamPolicy
from store.base import StoreBase
from store.memory import MemoryStore
from store.records import Activation, Consent

CONTROL = "control-secret-of-this-run"


@dataclass
class Running:
    """A gateway that answers, and how to speak to it."""

    gateway: Gateway
    store: StoreBase
    port: int
    tokens: Path

    @property
    def url(self) -> str:
        """Address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The default token: chat and correct."""
        return TokenFile.load(self.tokens).tokens[0].value

    def client(self, token: str | None = None, **kwargs: object) -> httpx.Client:
        """An HTTP client that sends a token."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **kwargs)  # type: ignore[arg-type]

    def admin(self) -> httpx.Client:
        """A client that may do everything."""
        return self.client(CONTROL)

    def ask(self, text: str, **more: object) -> httpx.Response:
        """One chat request."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 40, **more}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)


def above(store: StoreBase, adapters: dict[str, tuple[str, bytes]]) -> Above:
    """What the rooms above lend, on a store and a table of adapters by digest."""

    def serving() -> dict[str, tuple[str, bytes]]:
        found = {slot: store.active(slot) for slot in ("shared", "personal")}
        return {slot: adapters[digest] for slot, digest in found.items() if digest}

    def rollback(slot: str) -> dict[str, object]:
        before = store.active(slot)  # type: ignore[arg-type]
        store.activate(slot, None, "rollback")  # type: ignore[arg-type]
        return {"slot": slot, "before": before, "after": None}

    def consent(purpose: str, granted: bool) -> None:
        store.add(Consent(purpose=purpose, granted=granted, time=time.time()))  # type: ignore[arg-type]

    return Above(
        serving=serving,
        trial=lambda: None,
        asked=lambda: None,
        status=lambda: {"model": {}, "learning": {}},
        health=lambda: [{"name": "driver", "level": "ok", "text": "fine", "fix": ""}],
        learner=lambda: {"state": "off", "reason": "", "next_look": None},
        learn=lambda: {"started": True},
        rollback=rollback,  # type: ignore[arg-type]
        budget=lambda: {"unit": "correction", "epsilon_spent": 0.0, "epsilon_cap": 8.0, "delta": 1e-6},
        preview=lambda: {"text": "nothing"},
        consent=consent,  # type: ignore[arg-type]
        log=lambda error: None,
    )


@contextmanager
def running(
    folder: Path,
    *,
    store: StoreBase | None = None,
    model: Path | None = None,
    settings: GatewaySettings | None = None,
    upstream: UpstreamPolicy | None = None,
    adapters: dict[str, tuple[str, bytes]] | None = None,
) -> Iterator[Running]:
    """Serve until the block ends."""
    settings = replace(settings or GatewaySettings(), port=0)
    store = store or MemoryStore()
    listening = bind(settings)
    tokens = folder / "tokens.json"
    TokenFile.load(tokens)
    ready = threading.Event()
    with Engine(check_model(model or embedded_model()), parallel=settings.parallel) as engine:
        gateway = build_gateway(
            settings, engine, store, above(store, adapters or {}), tokens=tokens, control=CONTROL, upstream=upstream
        )
        server = Server(gateway, listening, ready.set)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield Running(gateway, store, listening.getsockname()[1], tokens)
        finally:
            server.should_exit = True
            thread.join(20)
            listening.close()


def activate(running: Running, slot: str, digest: str | None) -> None:
    """Make the store serve an adapter and the gateway notice."""
    running.store.add(Activation(slot=slot, adapter=digest, reason="test", time=time.time()))  # type: ignore[arg-type]
    running.gateway.catalogue.refresh()
