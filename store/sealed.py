"""Authenticated encryption of byte streams in chunks, for artefacts, exports and backups.

AES-256-GCM in chunks of 64 KiB, in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015): the
nonce is a counter and a last-chunk flag, so chunks cannot be dropped, swapped or appended. Every stream has
its own key, derived from a random salt; name and version are bound as associated data.
"""

import os
from collections.abc import Iterable, Iterator
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from store.errors import IntegrityError
from store.secret import Secret, derive

MAGIC = b"CORRSEAL"
VERSION = 1
CHUNK = 64 * 1024
TAG = 16
SALT = 16
HEADER = len(MAGIC) + 2 + SALT


def seal(data: Iterable[bytes], key: Secret, name: str) -> Iterator[bytes]:
    """Encrypt the concatenation of `data` under `key`, bound to `name`; yields the header, then chunks."""
    header = MAGIC + VERSION.to_bytes(2, "big") + os.urandom(SALT)
    cipher = AESGCM(derive(key, "corrigible sealed", header[-SALT:]))
    bound = _bound(header, name)
    yield header
    number, held = 0, b""
    for piece in _pieces(data):
        if held:
            yield cipher.encrypt(_nonce(number, False), held, bound)
            number += 1
        held = piece
    yield cipher.encrypt(_nonce(number, True), held, bound)


def unseal(file: IO[bytes], key: Secret, name: str) -> Iterator[bytes]:
    """Decrypt what `seal` wrote; each chunk is authenticated before it is yielded.

    The stream is whole only when the iterator ends without an error.

    Raises:
        IntegrityError: it was cut, changed, renamed, is not ours or is from a newer program.
    """
    header = file.read(HEADER)
    if len(header) != HEADER or not header.startswith(MAGIC):
        raise _damaged()
    if int.from_bytes(header[len(MAGIC) : len(MAGIC) + 2], "big") > VERSION:
        raise IntegrityError("A sealed file is from a newer version of the program.", code="newer_schema")
    cipher = AESGCM(derive(key, "corrigible sealed", header[-SALT:]))
    bound = _bound(header, name)
    number, chunk = 0, file.read(CHUNK + TAG)
    while True:
        following = file.read(CHUNK + TAG)
        try:
            yield cipher.decrypt(_nonce(number, not following), chunk, bound)
        except (InvalidTag, ValueError):
            raise _damaged() from None
        if not following:
            return
        number, chunk = number + 1, following


def _damaged() -> IntegrityError:
    return IntegrityError("A sealed file is damaged or was changed.", hint="Restore it from a backup.", code="sealed")


def _bound(header: bytes, name: str) -> bytes:
    return header + name.encode()


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _pieces(data: Iterable[bytes]) -> Iterator[bytes]:
    """`data` regrouped into pieces of CHUNK bytes; the last one may be shorter, and nothing yields nothing."""
    buffer = bytearray()
    for part in data:
        buffer += part
        while len(buffer) >= CHUNK:
            yield bytes(buffer[:CHUNK])
            del buffer[:CHUNK]
    if buffer:
        yield bytes(buffer)
