"""The door: the one way from a device to its fleet's server, where every byte that goes out is counted.

Flower's SuperNode and our own calls (`federation.caller`) are told to use an HTTP proxy on loopback: this one.
It lets through one address only, only while the owner's consent stands, and notes in the egress ledger what went out on
every connection: size and hash of the encrypted stream, handshakes, polls and heartbeats included. What the owner's
corrections have to do with (updates) has entries of its own, written before it leaves; these here are written when a
connection ends, and after a minute on one that lasts.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from federation.membership import Membership
from store.base import StoreBase
from store.errors import CorrigibleError
from store.records import HASH_TAG, TRANSPORT, Consent, Egress

ROLL = 60.0  # seconds after which a connection's entry is written and a new one begun
REQUEST_LIMIT = 8192  # bytes of a CONNECT request
CHUNK = 65536


class Door:
    """A proxy for one device.

    Args:
        store: where the ledger and the consent are.
        target: ``host:port`` of the fleet's server; nothing else is let through.
        consent: the consent that stands now, or None; asked for every piece of data.
    """

    def __init__(self, store: StoreBase, target: str, consent: Callable[[], Consent | None]) -> None:
        self._store, self._target, self._consent = store, target, consent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._start(self._accept)

    @classmethod
    def of(cls, store: StoreBase, place: Membership) -> Self:
        """Open the door to the fleet that this device is in, for as long as its owner agrees to share with it."""
        return cls(store, address(place.url), lambda: store.consent("share", place.fleet))

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What a client is told to use as its proxy."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End all connections and write down what went out on them."""
        self.close()

    def close(self) -> None:
        """End all connections and write down what went out on them."""
        self._closing = True
        for each in (self._listener, *self._open):
            _end(each)
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()
        return thread

    def _accept(self) -> None:
        """Take connections until closed."""
        while not self._closing:
            with suppress(OSError):
                inside, _ = self._listener.accept()
                self._start(self._serve, inside)

    def _serve(self, inside: socket.socket) -> None:
        """One connection: whom to, may it, then both ways until one end is done."""
        self._open.add(inside)
        outside: socket.socket | None = None
        try:
            wanted = _wanted(inside)
            if wanted != self._target or self._consent() is None:
                inside.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            host, _, port = wanted.rpartition(":")
            outside = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
            outside.settimeout(None)
            self._open.add(outside)
            if self._closing:
                return
            inside.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = self._start(_copy, outside, inside)
            self._out(inside, outside)
            back.join()
        except (OSError, ValueError, CorrigibleError):
            return
        finally:
            for each in (inside, outside):
                if each is not None:
                    _end(each)
                    self._open.discard(each)

    def _out(self, inside: socket.socket, outside: socket.socket) -> None:
        """Copy outwards, counting; stop when consent is withdrawn."""
        seal, size, begun = hashlib.sha256(), 0, time.monotonic()
        standing: Consent | None = None
        try:
            while data := inside.recv(CHUNK):
                consent = self._consent()
                if consent is None:
                    return _end(outside)
                standing = consent
                seal.update(data)  # before it goes: an entry may say too much, never too little
                size += len(data)
                outside.sendall(data)
                if time.monotonic() - begun > ROLL:
                    self._note(standing, size, seal.hexdigest())
                    seal, size, begun = hashlib.sha256(), 0, time.monotonic()
            outside.shutdown(socket.SHUT_WR)
        finally:
            if size and standing is not None:
                self._note(standing, size, seal.hexdigest())

    def _note(self, consent: Consent, size: int, seal: str) -> None:
        """Write one stretch of a connection into the ledger."""
        self._store.add(
            Egress(
                purpose=TRANSPORT,
                destination=self._target,
                consent=consent.id,
                size=size,
                payload=HASH_TAG + seal,
                time=time.time(),
            )
        )


def address(url: str) -> str:
    """Return the ``host:port`` that a client of an https `url` asks a proxy for."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or 443}"


def _wanted(inside: socket.socket) -> str:
    """Read a CONNECT request; return the ``host:port`` it names, empty for anything else."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) < REQUEST_LIMIT and (data := inside.recv(1)):
        request += data
    words = request.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
    return words[1] if len(words) == 3 and words[0] == "CONNECT" else ""


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy inwards until the source ends."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    _end(target)


def _end(each: socket.socket) -> None:
    """Shut down and close."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        each.close()
