"""Taking data out and bringing data in.

Out: our own JSONL of records, SFT pairs, or preference pairs, sealed unless the owner wants plain text.
In: our export, sealed or plain; Open WebUI's feedback export; the `llm` tool's logs.db.
Importing twice adds nothing: records are named by their content.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from store.base import StoreBase
from store.codec import build, encode
from store.errors import Locked, UsageError, WrongKey
from store.files import unwritable, write_atomic
from store.imported import Imported
from store.keys import Keys
from store.llm_logs import from_llm_logs
from store.open_webui import from_feedback
from store.protectors import Passphrase
from store.records import RECORD_TYPES, Correction, Example, Interaction, Rating, Record, canonical
from store.sealed import seal, unseal
from store.secret import derive

Shape = Literal["records", "sft", "preferences"]
EXPORTED: tuple[type[Record], ...] = (Interaction, Correction, Rating)  # in this order: what is spoken of comes first
MAGIC = b"CORREXPT"
MAX_HEADER = 4096
SQLITE = b"SQLite format 3\0"
BATCH = 500


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did."""

    format: str
    added: int
    known: int  # were there already
    skipped: tuple[tuple[int, str], ...]  # line or entry number and the reason


def export_lines(store: StoreBase, shape: Shape) -> Iterator[bytes]:
    """The lines of an export, each with its newline.

    ``records``: {"kind", "record"}; ``sft``: {"messages"} ending with the wanted answer; ``preferences``:
    {"prompt", "chosen", "rejected"}.
    """
    if shape == "records":
        for kind in EXPORTED:
            for record in store.all(kind):
                yield canonical({"kind": kind.__name__, "record": asdict(record)}) + b"\n"
        return
    for example in store.examples():
        if shape == "sft":
            yield canonical({"messages": [*_messages(example), _answer(example.answer)]}) + b"\n"
        elif example.rejected is not None:
            pair = {"chosen": [_answer(example.answer)], "rejected": [_answer(example.rejected)]}
            yield canonical({"prompt": _messages(example), **pair}) + b"\n"


def export_plain(store: StoreBase, target: Path, shape: Shape) -> None:
    """Write an export that anybody can read."""
    write_atomic(target, export_lines(store, shape))


def export_sealed(store: StoreBase, target: Path, shape: Shape, secret: Keys | Passphrase) -> None:
    """Write an export sealed for this store's own key, or for a passphrase (to move to another device).

    Raises:
        CorrigibleError: the disk refused; `target` is as before.
        UsageError: the passphrase is empty.
    """
    if isinstance(secret, Keys):
        key, params = secret.sub("exports"), {"for": "store", "check": secret.check()}
    else:
        key, params = secret.stretch()
        params = {"for": "passphrase", "check": derive(key, "corrigible check").hex()[:32], **params}
    header = canonical(params)
    sealed = seal(export_lines(store, shape), key, base64.b64encode(header).decode())
    write_atomic(target, chain([MAGIC + len(header).to_bytes(2, "big") + header], sealed))


def import_file(
    store: StoreBase, source: Path, *, keys: Keys | None = None, passphrase: Callable[[], str] | None = None
) -> ImportReport:
    """Add what `source` holds; its format is recognised by its content.

    Raises:
        UsageError: the file is missing or of no known format (``unknown_format``).
        WrongKey, Locked: it is sealed and the key or passphrase does not fit or is missing.
        IntegrityError: it is sealed and was cut or changed; the whole batches before that are in.
    """
    try:
        with source.open("rb") as file:
            start = file.read(len(SQLITE))
            file.seek(0)
            if start == SQLITE:
                return _add(store, "llm logs.db", from_llm_logs(source))
            if start.startswith(MAGIC):
                return _add(store, "sealed export", _from_lines(_split(_unsealed(file, keys, passphrase))))
            if start.lstrip()[:1] == b"[":
                return _add(store, "Open WebUI feedback", from_feedback(file.read()))
            if start.lstrip()[:1] == b"{":
                return _add(store, "export", _from_lines(file))
    except FileNotFoundError:
        raise UsageError("There is no such file.", code="no_file") from None
    except OSError as error:
        raise unwritable(error) from None
    raise UsageError(
        "This file is of no known format.",
        hint="Known: our JSONL, Open WebUI's feedback export, the llm tool's logs.db.",
        code="unknown_format",
    )


def _add(store: StoreBase, format: str, items: Iterable[Imported]) -> ImportReport:
    """Add in batches and count; a record that cannot be stored is skipped with its reason."""
    before = sum(store.count(kind) for kind in EXPORTED)
    skipped: list[tuple[int, str]] = []
    ids: set[str] = set()
    batch: list[Record] = []
    for item in items:
        if isinstance(item.content, str):
            skipped.append((item.number, item.content))
            continue
        batch += item.content
        if len(batch) >= BATCH:
            ids.update(store.add_all(batch))
            batch = []
    ids.update(store.add_all(batch))
    added = sum(store.count(kind) for kind in EXPORTED) - before
    return ImportReport(format, added, len(ids) - added, tuple(skipped))


def _from_lines(lines: Iterable[bytes]) -> Iterator[Imported]:
    """The records in the lines of our own export."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Imported(number, _record(line))


def _record(line: bytes) -> list[Record] | str:
    """The record in one line, or why there is none."""
    try:
        body: dict[str, Any] = json.loads(line)
        kind = RECORD_TYPES[body["kind"]]
        if kind not in EXPORTED:
            return "ledgers are not imported"
        record = build(kind, body["record"])
        encode(record)
    except UsageError as error:
        return error.message
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not a record"
    return [record]


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a stream of chunks."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def _unsealed(file: IO[bytes], keys: Keys | None, passphrase: Callable[[], str] | None) -> Iterator[bytes]:
    """The plain content of a sealed export."""
    file.read(len(MAGIC))
    header = file.read(min(int.from_bytes(file.read(2), "big"), MAX_HEADER))
    try:
        params: dict[str, Any] = json.loads(header)
        own = params["for"] == "store"
        check = str(params["check"]) if own else ""
    except (ValueError, KeyError, TypeError):
        raise UsageError("The header of this export is damaged.", code="unknown_format") from None
    if own and keys is None:
        raise Locked("This export is sealed with the store's key.", hint="Unlock the store first.")
    if not own and passphrase is None:
        raise Locked("This export is sealed with a passphrase.", hint="Give it with --passphrase-file or when asked.")
    if own and keys is not None and keys.check() != check:
        raise WrongKey("This export belongs to another store.", hint="Export it there with a passphrase.")
    key = keys.sub("exports") if own and keys else Passphrase(passphrase() if passphrase else "").again(params)
    if not own and "check" in params and derive(key, "corrigible check").hex()[:32] != params["check"]:
        raise WrongKey("The passphrase does not open this export.", hint="Try again; nothing was added.")
    yield from unseal(file, key, base64.b64encode(header).decode())


def _messages(example: Example) -> list[dict[str, str]]:
    return [asdict(message) for message in example.messages]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
