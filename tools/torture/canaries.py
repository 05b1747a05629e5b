"""Plants canaries, brings the store into twelve states, and searches everything readable for them.

All canaries share a marker that nothing else contains, so one search per encoding finds any of them: UTF-8,
UTF-16 in both orders, base64 in its three alignments, JSON escapes, and all of these inside gzip streams.
A control that plants the marker in the open must be found in every encoding, or the search itself is blind.
Deleted rows are looked for in the pages themselves, decrypted with the key.
"""

import base64
import contextlib
import gzip
import json
import os
import secrets
import signal
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from click.testing import CliRunner

from cli.main import run as command
from store.backup import create_backup
from store.errors import CorrigibleError
from store.exchange import export_plain, export_sealed, import_file
from store.keychange import rotate
from store.keys import unlock
from store.paths import Home
from store.protectors import Argon2Cost, KeyFile, Passphrase
from store.records import Interaction
from store.store import Store
from tools.torture.common import Outcome, correction, in_child, interaction, new_home, reopen
from tools.torture.pages import decrypted_pages

_GZIP = b"\x1f\x8b\x08"
_HEADER_BITS = 31  # zlib: expect a gzip header
RESIDUE = 1.25  # rows deleted for the search in decrypted pages, for each canary


class Search:
    """Looks for one marker in every encoding."""

    def __init__(self, marker: str) -> None:
        self.patterns = dict(_encodings(marker))

    def hits(self, data: bytes) -> list[str]:
        """Encodings in which the marker occurs in `data`, or in a gzip stream inside it."""
        found = [name for name, pattern in self.patterns.items() if pattern in data]
        return found + [f"gzip {name}" for plain in _gunzipped(data) for name in self.hits(plain)]

    def under(self, *folders: Path) -> list[str]:
        """Hits in all files below `folders`, names included."""
        found = []
        for path in (path for folder in folders for path in [folder, *folder.rglob("*")]):
            data = path.name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
            found += [f"{path.name}: {name}" for name in self.hits(data)]
        return found


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:  # noqa: ARG001 - canaries are random by nature
    """Plant `cycles` canaries and search the twelve states."""
    outcome = Outcome("canaries", cycles)
    marker = "é" + secrets.token_hex(6) + "ß"
    search = Search(marker)
    temporary = folder / "tmp"
    temporary.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    os.environ["TMPDIR"] = str(temporary)
    try:
        for state, hits in _states(folder, temporary, marker, cycles, search):
            outcome.facts["states"] = int(outcome.facts.get("states", 0)) + 1
            outcome.bad += [f"{state}: {hit}" for hit in hits]
        outcome.facts["hits"] = len(outcome.bad)
        outcome.bad += _control(folder, marker, search)
        deleted = int(cycles * RESIDUE) // 2 * 2  # requests and their corrections
        outcome.facts["deleted rows"], outcome.facts["left in pages"] = deleted, _residue(folder, deleted)
        outcome.bad += ["deleted rows in pages"] if outcome.facts["left in pages"] else []
    finally:
        tempfile.tempdir = before
        del os.environ["TMPDIR"]
    return outcome


def _states(folder: Path, temporary: Path, marker: str, number: int, search: Search) -> Iterator[tuple[str, list[str]]]:
    """Each state by name, with what was found in it."""
    home = new_home(folder / "home")
    keys = unlock(home)
    with reopen(home) as store:
        said = [interaction(index, f'say "{marker}{index}" \\ twice') for index in range(number // 2)]
        store.add_all([*said, *(correction(one, 0, f"{marker}-{index}") for index, one in enumerate(said))])
        store.put_artefact(f"{marker} in an adapter".encode() * 1000)
        store.search(marker, limit=50)
        store.examples()
        yield "open", search.under(home.root)
        yield "argv and environ", [name for data in _process() for name in search.hits(data)]
        yield "export", _export(store, folder, search, marker)
        yield "backup", search.under(create_backup(store, keys, folder / "backups").folder, home.root)
        errors = _errors(store, marker, search)
    yield "logs", errors + _commands(home, folder, marker, search)
    yield "support bundle", _bundle(home, folder, search)
    yield "closed", search.under(home.root)
    yield "mid-write", _while_writing(home, marker, search, signal.SIGSTOP)
    yield "after crash", _while_writing(home, marker, search, signal.SIGKILL)
    with reopen(home) as store:
        store.remove_all([one.id for one in said[: number // 4]])
        yield "after delete", search.under(home.root)
    rotate(home, keys, KeyFile())
    yield "after rotation", search.under(home.root)
    yield "temporary folders", search.under(temporary)


def _process(id: int | str = "self") -> list[bytes]:
    """A process's arguments and environment, where the system shows them."""
    found = []
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):  # not shown to this user: not readable, which is the point
            found.append(Path(f"/proc/{id}/{name}").read_bytes())
    return found


def _export(store: Store, folder: Path, search: Search, marker: str) -> list[str]:
    """Sealed exports of every shape, under the key and a passphrase, and what is left after an import of one."""
    (folder / "exports").mkdir()
    keys = unlock(store.home)
    for shape in ("records", "sft", "preferences"):
        export_sealed(store, folder / "exports" / shape, shape, keys)  # type: ignore[arg-type]
    export_sealed(store, folder / "exports" / "moved", "records", Passphrase(marker, Argon2Cost.small()))
    import_file(store, folder / "exports" / "records", keys=keys)
    return search.under(folder / "exports", store.home.root)


def _errors(store: Store, marker: str, search: Search) -> list[str]:
    """Everything that errors say, with their causes and contexts, written as a log would."""
    log = []
    for attempt in _attempts(store, marker):
        try:
            attempt()
        except CorrigibleError as error:
            seen: BaseException | None = error
            while seen is not None:
                log.append(f"{seen!r} {seen.args} {getattr(seen, 'hint', '')}")
                seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        else:
            log.append("no error where one was planted")
    hits = search.hits("\n".join(log).encode())
    return hits + [line for line in log if line.startswith("no error")]


def _commands(home: Home, folder: Path, marker: str, search: Search) -> list[str]:
    """What commands that fail with the marker in hand write: their JSON, and the error log of their home."""
    poisoned = folder / "poisoned"
    poisoned.mkdir()
    lines = [f'{{"kind":"Interaction","record":{{"{marker}":1}}}}', marker, f'{{"a":"{marker}"}}', f'["{marker}"]']
    (poisoned / "lines.jsonl").write_text("\n".join(lines))
    (poisoned / "list.json").write_text(json.dumps([{"data": marker, "snapshot": {"chat": marker}}, marker]))
    (poisoned / "text").write_text(marker)
    (poisoned / "logs.db").write_bytes(b"SQLite format 3\0" + marker.encode())
    files = [["log", "import", str(path)] for path in sorted(poisoned.iterdir())]
    texts = [
        ["correct", "00000000", marker],
        ["correct", "--last", marker * 8000],
        ["correct", "--last", f"{marker}\ud800"],
    ]
    words = [["log", "search", f"{marker}\ud800"], ["log", "show", marker], ["log", "rm", marker, "--yes"]]
    moves = [["backup", "verify", str(poisoned)], ["backup", "restore", str(poisoned)], ["adapter", "show", marker]]
    said = b"".join(_said([*command, "--json"], home) for command in [*files, *texts, *words, *moves])
    log = home.state / "logs" / "errors.log"
    return search.hits(said) + search.hits(log.read_bytes() if log.is_file() else b"")


def _said(words: list[str], home: Home) -> bytes:
    """What one command line writes to stdout and stderr."""
    with CliRunner().isolation() as (out, err, _):
        command(["--home", str(home.root), *words])
        return out.getvalue() + err.getvalue()


def _bundle(home: Home, folder: Path, search: Search) -> list[str]:
    """The support archive, packed and unpacked, after an error whose message quoted the owner."""
    target = folder / "bundle.zip"
    _said(["doctor", "--bundle", str(target), "--yes"], home)
    with zipfile.ZipFile(target) as archive:
        unpacked = b"\n".join(archive.read(name) for name in archive.namelist())
    return search.hits(target.read_bytes()) + search.hits(unpacked)


def _attempts(store: Store, marker: str) -> list[Callable[[], object]]:
    """Calls that fail while they have the marker in hand."""
    bad = [f"{marker}\0", f"{marker}\ud800", marker * 900_000]
    return [
        *(lambda text=text: store.add(interaction(1, text)) for text in bad),  # type: ignore[misc]
        lambda: store.get(Interaction, marker),
        lambda: store.remove(marker),
        lambda: store.search("\ud800" + marker),
        lambda: store.last(Interaction, **{marker: 1}),
        lambda: import_file(store, store.home.root / marker),
        lambda: unlock(Home.at(store.home.root / marker)),
        lambda: store.artefact(marker),
    ]


def _while_writing(home: Home, marker: str, search: Search, how: signal.Signals) -> list[str]:
    """What lies there while a writer is stopped in the middle, or after it was killed."""

    def write(out: int) -> None:
        store = reopen(home)
        for number in range(10_000):
            store.add(interaction(number, f"{marker} {how} {number}"))
            os.write(out, b".")

    child, descriptor = in_child(write)
    os.read(descriptor, 20)
    os.kill(child, how)
    hits = search.under(home.root)
    hits += [name for data in _process(child) for name in search.hits(data)]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(descriptor)
    return hits


def _residue(folder: Path, number: int) -> int:
    """Of `number` deleted rows among others that stay, how many left the end of their text in a decrypted page.

    Returns -1 when not even the kept rows are seen.
    """
    home = new_home(folder / "residue")
    words = [secrets.token_hex(12) for _ in range(2 * number)]
    with reopen(home) as store:
        said = [interaction(index, f"say {word} now") for index, word in enumerate(words)]
        store.add_all(said[::2])
        store.add_all([correction(one, 0, words[2 * index + 1]) for index, one in enumerate(said[::2])])
        store.remove_all([one.id for one in said[:number:2]])
        key = unlock(home).sub("database")
        pages = b"".join(decrypted_pages(home.generation(1) / "store.db", key))
    left = [word[-12:].encode() in pages for word in words]
    return sum(left[:number]) if all(left[number:]) else -1


def _control(folder: Path, marker: str, search: Search) -> list[str]:
    """Encodings in which the search fails to see the marker lying open."""
    blind = [name for name, pattern in search.patterns.items() if name not in search.hits(b"xx" + pattern + b"yy")]
    blind += ["gzip"] if not search.hits(b"junk" + gzip.compress(f"a {marker} b".encode())) else []
    with reopen(new_home(folder / "control")) as store:
        store.add(interaction(1, marker))
        export_plain(store, folder / "plain", "records")
    blind += ["a plain export"] if not search.under(folder / "plain") else []
    return [f"the search is blind to {name}" for name in blind]


def _encodings(marker: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every encoding searched for."""
    yield "utf-8", marker.encode()
    yield "utf-16-le", marker.encode("utf-16-le")
    yield "utf-16-be", marker.encode("utf-16-be")
    yield "json", json.dumps(marker)[1:-1].encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + marker.encode())
        yield f"base64+{shift}", encoded[4 if shift else 0 : len(encoded) - 4]


def _gunzipped(data: bytes) -> Iterator[bytes]:
    """Whatever inflates from each gzip header in `data`."""
    start = data.find(_GZIP)
    while start >= 0:
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(_HEADER_BITS).decompress(data[start:], 2**24)
        start = data.find(_GZIP, start + 1)
