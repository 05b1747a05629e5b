"""The door: bytes on the wire are bytes in the ledger, one address only, and none without consent."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from federation.door import Door
from store.base import StoreBase
from store.memory import MemoryStore
from store.records import Consent, Egress


class Wire:
    """A server that keeps every byte it is sent, answers each piece with four, and knows nothing of the ledger."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                each, _ = self._listener.accept()
                kept = bytearray()
                self.received.append(kept)
                threading.Thread(target=self._keep, args=(each, kept), daemon=True).start()

    def _keep(self, each: socket.socket, kept: bytearray) -> None:
        with each, suppress(OSError):
            while data := each.recv(65536):
                kept += data
                each.sendall(b"pong")


@pytest.fixture
def wire() -> Iterator[Wire]:
    """What the network delivered."""
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def store() -> StoreBase:
    """A store with consent to a fleet."""
    store = MemoryStore()
    store.add(Consent(purpose="share", granted=True, destination="fleet", time=1.0))
    return store


def consent(store: StoreBase) -> Callable[[], Consent | None]:
    """The consent that stands."""
    return lambda: store.consent("share", "fleet")


def through(door: Door, address: str) -> tuple[socket.socket, bytes]:
    """Ask the door for a connection; return it and the first line of its answer."""
    host, port = door.url.removeprefix("http://").split(":")
    each = socket.create_connection((host, int(port)), timeout=10)
    each.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    return each, each.recv(4096).split(b"\r\n")[0]


def settled(door: Door, wire: Wire, size: int) -> None:
    """Wait until the network has delivered `size` bytes, then close."""
    end = time.monotonic() + 20
    while sum(map(len, wire.received)) < size and time.monotonic() < end:
        time.sleep(0.01)
    door.close()


def test_every_byte_that_arrives_is_in_the_ledger(store: StoreBase, wire: Wire) -> None:
    """Three connections of different sizes: totals and hashes of the captured bytes equal the ledger's."""
    sizes = (1, 70_000, 333)
    with Door(store, wire.address, consent(store)) as door:
        for size in sizes:
            each, line = through(door, wire.address)
            assert b"200" in line
            each.sendall(bytes(size))
            assert each.recv(4) == b"pong"
            each.close()
        settled(door, wire, sum(sizes))
    sent = store.all(Egress)
    assert sum(one.size for one in sent) == sum(map(len, wire.received)) == sum(sizes)
    assert {one.payload for one in sent} == {f"sha256:{hashlib.sha256(kept).hexdigest()}" for kept in wire.received}
    assert {(one.purpose, one.destination) for one in sent} == {("transport", wire.address)}


def test_before_consent_nothing_leaves(wire: Wire) -> None:
    """No consent: refused, no connection is made, no byte arrives, the ledger stays empty."""
    store = MemoryStore()
    with Door(store, wire.address, consent(store)) as door:
        each, line = through(door, wire.address)
        each.close()
        assert b"403" in line
    assert (wire.received, store.all(Egress)) == ([], [])


def test_withdrawn_consent_cuts_the_connection(store: StoreBase, wire: Wire) -> None:
    """What was said before counts; the first piece after the withdrawal does not go."""
    with Door(store, wire.address, consent(store)) as door:
        each, _ = through(door, wire.address)
        each.sendall(b"before")
        assert each.recv(4) == b"pong"
        store.add(Consent(purpose="share", granted=False, destination="fleet", time=2.0))
        each.sendall(b"after")
        assert each.recv(4) == b""
        each.close()
        settled(door, wire, 6)
    assert [bytes(kept) for kept in wire.received] == [b"before"]
    assert [one.size for one in store.all(Egress)] == [6]


@pytest.mark.parametrize("request_line", ["CONNECT 127.0.0.1:9", "GET http://127.0.0.1:9/", "nonsense", ""])
def test_nobody_else_is_reached(store: StoreBase, wire: Wire, request_line: str) -> None:
    """Another address (a redirect, say), another verb and garbage are refused."""
    with Door(store, wire.address, consent(store)) as door:
        host, port = door.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as each:
            each.sendall(f"{request_line} HTTP/1.1\r\n\r\n".encode())
            assert b"403" in each.recv(4096)
    assert (wire.received, store.all(Egress)) == ([], [])
