"""Decrypts a SQLCipher database page by page, free pages included, to see what is really on disk.

SQLCipher 4: page 1 begins with the salt; each page ends with 16 bytes of IV and 64 bytes of HMAC-SHA512; the
page is AES-256-CBC under the raw key.
"""

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PAGE = 4096
SALT = 16
RESERVE = 80
IV = 16


def decrypted_pages(path: Path, key: bytes) -> Iterator[bytes]:
    """The plain content of each page of the file, in order; all-zero pages come out as noise."""
    with path.open("rb") as file:
        number = 0
        while page := file.read(PAGE):
            start = SALT if number == 0 else 0
            iv = page[PAGE - RESERVE : PAGE - RESERVE + IV]
            decryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor()
            yield decryptor.update(page[start : PAGE - RESERVE]) + decryptor.finalize()
            number += 1
