"""Measures commits, bulk inserts, acknowledgement, search, opening and three writers at once; by turns with a peer.

`python -m bench.store [commits] [acknowledging] [searching] [together]`; all four without arguments.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.store.plain import Plain, Row
from store.codec import encode
from store.errors import CorrigibleError
from store.keys import Keys, unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Correction, Interaction, Message
from store.store import Store

ROUNDS, COMMITS, BULK = 5, 200, 4000
CORRECTIONS = 2000
SEARCHED = 100_000
WRITERS, EACH = 3, 500
WORDS = [f"w{number * 7919 % 5003:04d}" for number in range(5003)]


def interaction(number: int, size: int = 2000) -> Interaction:
    """An interaction of about `size` bytes, with words that vary."""
    words = [WORDS[(number * 31 + index * index) % len(WORDS)] for index in range(size // 6)]
    return Interaction(
        messages=(Message("user", " ".join(words[:20])),), answer=" ".join(words[20:]), model="m" * 71, time=number
    )


def row(number: int, record: Interaction) -> Row:
    """The same record as the plain database takes it."""
    entry = encode(record)
    return number, entry.id, entry.kind, entry.time, "", entry.body.decode(), b"c" * 32, b"h" * 32


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def commits(folder: Path) -> None:
    """Single-record commits and bulk inserts."""
    store, plain = Store.create(Home.at(folder / "store"), KeyFile()), Plain(folder / "plain.db")
    ours: list[float] = []
    theirs: list[float] = []
    bulk: list[tuple[float, float]] = []
    number = 0
    for _ in range(ROUNDS):
        records = [interaction(number + index) for index in range(COMMITS)]
        rows = [row(number + index + 1, record) for index, record in enumerate(records)]
        for record, its in zip(records, rows, strict=True):
            ours.append(milliseconds(lambda record=record: store.add(record)))  # type: ignore[misc]
            theirs.append(milliseconds(lambda its=its: plain.add_all([its])))  # type: ignore[misc]
        number += COMMITS
        records = [interaction(number + index) for index in range(BULK)]
        rows = [row(number + index + 1, record) for index, record in enumerate(records)]
        bulk.append((milliseconds(lambda: store.add_all(records)), milliseconds(lambda: plain.add_all(rows))))  # noqa: B023
        number += BULK
    store.close()
    plain.close()
    ours.sort()
    theirs.sort()
    p50, p99 = len(ours) // 2, int(len(ours) * 0.99)
    print(f"commit p50: ours {ours[p50]:.3f} ms, plain {theirs[p50]:.3f} ms, ratio {ours[p50] / theirs[p50]:.2f}")
    print(f"commit p99: ours {ours[p99]:.2f} ms, plain {theirs[p99]:.2f} ms, ratio {ours[p99] / theirs[p99]:.2f}")
    own, plains = (statistics.median(BULK / value[side] * 1000 for value in bulk) for side in (0, 1))
    print(f"bulk rows/s: ours {own:,.0f}, plain {plains:,.0f}, ratio {own / plains:.2f}")


def acknowledging(folder: Path) -> None:
    """How long one correction waits, in a store of 20,000 interactions, each of them given its own."""
    with Store.create(Home.at(folder / "acknowledged"), KeyFile()) as store:
        ids = store.add_all([interaction(number, 300) for number in range(20_000)])
        times = []
        for number, id in enumerate(ids[:CORRECTIONS]):
            correction = Correction(interaction=id, corrected=" ".join(WORDS[number : number + 12]), time=number)
            times.append(milliseconds(lambda correction=correction: store.add(correction)))  # type: ignore[misc]
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"{CORRECTIONS:,} corrections acknowledged: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {times[-1]:.1f} ms")


def searching(folder: Path) -> None:
    """Search over many interactions, and opening that store."""
    home = Home.at(folder / "search")
    with Store.create(home, KeyFile()) as store:
        for start in range(0, SEARCHED, 10_000):
            store.add_all([interaction(number, 300) for number in range(start, start + 10_000)])
        for what, text in [("rare", "w0001 w4242"), ("common", WORDS[3]), ("beginning", "w10"), ("absent", "zebra")]:
            times = sorted(milliseconds(lambda text=text: store.search(text)) for _ in range(20))  # type: ignore[misc]
            print(f"search {SEARCHED:,} for a {what} word: median {times[10]:.1f} ms, worst {times[-1]:.1f} ms")
        size = sum(path.stat().st_size for path in home.data.rglob("*") if path.is_file())
        print(f"verify {SEARCHED:,}: {milliseconds(store.verify):,.0f} ms, {size / 2**20:.0f} MiB")
    keys = unlock(home)
    opened = []
    for _ in range(30):
        started = time.perf_counter()
        store = Store.open(home, keys)
        opened.append((time.perf_counter() - started) * 1000)
        store.close()
    opened.sort()
    print(f"open with a raw key: median {opened[15]:.2f} ms, best {opened[0]:.2f} ms, worst {opened[-1]:.2f} ms")


def together(folder: Path) -> None:
    """Several processes write at once."""
    home = Home.at(folder / "together")
    Store.create(home, KeyFile()).close()
    raw = unlock(home).export()
    context = multiprocessing.get_context("fork")
    with context.Pool(WRITERS) as pool:
        results = pool.starmap(_write, [(home, raw, number) for number in range(WRITERS)])
    with Store.open(home, unlock(home)) as store:
        kept, sound = store.count(Interaction), store.verify().ok
    times = sorted(value for _, values in results for value in values)
    print(
        f"{WRITERS} writers x {EACH}: {sum(busy for busy, _ in results)} busy errors, {kept} kept, "
        f"p99 {times[int(len(times) * 0.99)]:.1f} ms, worst {times[-1]:.0f} ms, chain {'whole' if sound else 'BROKEN'}"
    )


def _write(home: Home, raw: bytes, writer: int) -> tuple[int, list[float]]:
    busy, times = 0, []
    with Store.open(home, Keys.from_bytes(raw)) as store:
        for number in range(EACH):
            record = interaction(writer * EACH + number)
            try:
                times.append(milliseconds(lambda record=record: store.add(record)))  # type: ignore[misc]
            except CorrigibleError:
                busy += 1
    return busy, times


PARTS = {"commits": commits, "acknowledging": acknowledging, "searching": searching, "together": together}

if __name__ == "__main__":
    print(f"load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for part in sys.argv[1:] or PARTS:
            PARTS[part](Path(name))
