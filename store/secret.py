"""Key material in memory that can be overwritten, and keys derived from it."""

import ctypes
import sys

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32

Secret = bytes | bytearray


def wipe(*secrets: bytearray) -> None:
    """Overwrite each with zeros, in place."""
    for secret in secrets:
        secret[:] = bytes(len(secret))


def wipe_text(text: str) -> None:
    """Overwrite ASCII text that held a key, where the interpreter lets one; nothing else may still use it.

    CPython keeps the characters of ASCII text behind the object's header, one byte each, ending with a zero.
    """
    if sys.implementation.name == "cpython" and text.isascii() and len(text) > 1:
        ctypes.memset(id(text) + sys.getsizeof(text) - len(text) - 1, 0, len(text))


def derive(secret: Secret, purpose: str, salt: bytes = b"") -> bytes:
    """32 bytes derived from `secret` for `purpose` by HKDF-SHA256."""
    return HKDF(SHA256(), KEY_BYTES, salt or None, purpose.encode()).derive(secret)
