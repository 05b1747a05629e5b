"""What is left on disk and in the ledgers after the demo: a search for sentences, and what left each device."""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cli.demo.result import Ledger, Scan
from store.base import StoreBase
from store.records import Egress, Spend

CONTROL = "a sentence planted in the open, for the search to find"
SHORTEST = 6  # characters; shorter words occur in random bytes by chance


def scan(folder: Path, sentences: Collection[str]) -> Scan:
    """Search every file under `folder` for the sentences, as UTF-8 and as UTF-16, as `strings` would.

    Sentences under `SHORTEST` characters are left out. The control shows that the search finds what is there.
    """
    wanted = frozenset(one for one in sentences if len(one) >= SHORTEST)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    sizes, hits = 0, 0
    for path in files:
        data = path.read_bytes()
        sizes += len(data)
        hits += count_hits(data, wanted)
    planted = [f"xx{CONTROL}yy".encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")]
    control = all(count_hits(b"\0\xff" + data + b"\xff", {CONTROL}) for data in planted)
    return Scan(files=len(files), size=sizes, sentences=len(wanted), hits=hits, control=control)


def count_hits(data: bytes, sentences: Collection[str]) -> int:
    """Return how many of the sentences occur in `data`, in any of the three encodings."""
    printable = "\n".join(_runs(data))
    return sum(one in printable if one.isascii() else _encoded(one, data) for one in sentences)


_PRINTABLE = {
    "utf-8": re.compile(rb"[\x20-\x7e]{%d,}" % SHORTEST),
    "utf-16-le": re.compile(rb"(?:[\x20-\x7e]\x00){%d,}" % SHORTEST),
    "utf-16-be": re.compile(rb"(?:\x00[\x20-\x7e]){%d,}" % SHORTEST),
}


def _runs(data: bytes) -> Iterator[str]:
    """The printable ASCII stretches of `data`; in random bytes they are few and short."""
    for encoding, pattern in _PRINTABLE.items():
        for found in pattern.finditer(data):
            yield found.group().decode(encoding)


def _encoded(sentence: str, data: bytes) -> bool:
    """Whether a sentence with letters beyond ASCII occurs in `data`."""
    return any(sentence.encode(encoding) in data for encoding in _PRINTABLE)


def read_ledger(name: str, store: StoreBase) -> Ledger:
    """Return what a device has on file about everything that left it."""
    spends, sent = store.all(Spend), [one for one in store.all(Egress) if one.purpose == "share"]
    paid = {spend.payload for spend in spends}
    return Ledger(
        name=name,
        epsilon=spends[-1].total if spends else 0.0,
        delta=spends[-1].delta if spends else 0.0,
        unit=spends[-1].unit if spends else "",
        sizes=tuple(egress.size for egress in sent),
        digests=tuple(egress.payload for egress in sent),
        spent_first=all(egress.payload in paid for egress in sent),
        whole=store.verify().ok,
    )


def all_said(groups: Iterable[Iterable[str]]) -> frozenset[str]:
    """Everything anybody said, once."""
    return frozenset(sentence for group in groups for sentence in group)
