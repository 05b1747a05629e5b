"""Key material in memory that can be overwritten."""

import ctypes
import sys

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
