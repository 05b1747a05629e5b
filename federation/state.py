"""What a fleet server remembers: enrolled devices, rounds, releases, switches and a chained audit log.

Public facts, names and counts; no update and no text is ever here. Every method is one transaction, so a server that
dies in between leaves the earlier state whole.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, delete, insert, select, update

from federation import tables
from federation.tables import transaction
from store.errors import IntegrityError, UsageError
from store.records import canonical, digest

ReleaseStatus = Literal["staged", "promoted", "withdrawn"]
OPEN = ("asked", "collected")  # verdicts of a round whose result is not on file
HEAD = "head of the log"  # the switch that names the newest event; also the lock of whoever appends
START = digest(b"corrigible fleet log 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One enrolled device: Flower's id for its SuperNode, and the key that signs its answers."""

    node_id: int  # unsigned, 64 bits
    name: str
    device: str  # hex of the device's Ed25519 public key
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round as the server opened it."""

    run: str  # names it in orders and ledgers
    number: int
    begun: float  # seconds since the epoch
    verdict: str
    secret: bytes  # the devices' nonces follow from it, so a repeated round is the same to them
    report: Mapping[str, Any]  # counts, mechanism and result as JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """How far a release has been handed out."""

    id: str
    number: int
    status: ReleaseStatus
    percent: int  # of devices, by the hash of their random id
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the audit log."""

    number: int
    time: float
    event: str
    facts: Mapping[str, Any]
    hash: str


class FleetState:
    """One server's state behind a database URL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with contextlib.suppress(UsageError), transaction(engine) as connection:  # or another process was faster
            if _switch(connection, HEAD) is None:
                connection.execute(insert(tables.switches).values(name=HEAD, value=f"0 {START}"))

    @classmethod
    def open(cls, url: str) -> "FleetState":
        """Open the state at `url` (``sqlite:///FILE`` or ``postgresql+psycopg://USER@HOST/NAME``).

        Raises:
            UsageError: no such kind of database. NetworkError: its server is away. IntegrityError: it is damaged.
        """
        return cls(tables.open_engine(url))

    # Devices

    def enroll(self, node: Node) -> None:
        """Admit one device.

        Raises:
            UsageError: its key or its node is enrolled already, or the key is not 64 hex digits.
        """
        if len(node.device) != 64 or not set(node.device) <= set("0123456789abcdef"):
            raise UsageError("a device key has 64 hex digits", code="device_key")
        row = {"device": node.device, "node_id": str(node.node_id), "name": node.name, "revoked": node.revoked}
        try:
            with transaction(self._engine) as connection:
                connection.execute(insert(tables.nodes).values(row))
        except UsageError as error:
            raise UsageError(f"device {node.name} is enrolled already", code="enrolled") from error

    def revoke(self, device: str) -> None:
        """Take the vote from the device with this key; for good, since the key cannot be enrolled again.

        Raises:
            UsageError: no such device.
        """
        change = update(tables.nodes).where(tables.nodes.c.device == device).values(revoked=True)
        with transaction(self._engine) as connection:
            if not connection.execute(change).rowcount:
                raise UsageError("no device with this key is enrolled", code="unknown_device")

    def nodes(self) -> list[Node]:
        """Return all enrolled devices, by name."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(tables.nodes).order_by(tables.nodes.c.name, tables.nodes.c.device))
            return [Node(**{**row, "node_id": int(row["node_id"])}) for row in rows.mappings()]

    def admitted(self) -> dict[int, str]:
        """Return node id -> device key of all devices that may vote."""
        return {node.node_id: node.device for node in self.nodes() if not node.revoked}

    # Rounds

    def begin(self, entry: Round) -> None:
        """Put a round on file, before its first order is sent.

        Raises:
            UsageError: a round of this name is on file.
        """
        row = {"run": entry.run, "number": entry.number, "begun": entry.begun, "verdict": entry.verdict}
        more = {"secret": entry.secret.hex(), "report": _text(entry.report)}
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.rounds).values({**row, **more}))

    def report(self, run: str, verdict: str, report: Mapping[str, Any]) -> None:
        """Replace what is known of a round.

        Raises:
            UsageError: no such round.
        """
        change = update(tables.rounds).where(tables.rounds.c.run == run)
        with transaction(self._engine) as connection:
            if not connection.execute(change.values(verdict=verdict, report=_text(report))).rowcount:
                raise UsageError("no such round", code="unknown_round")

    def rounds(self) -> list[Round]:
        """Return all rounds ever asked for, oldest first."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(tables.rounds).order_by(tables.rounds.c.begun, tables.rounds.c.run))
            return [
                Round(**{**row, "secret": bytes.fromhex(row["secret"]), "report": json.loads(row["report"])})
                for row in rows.mappings()
            ]

    def unfinished(self) -> Round | None:
        """Return the newest round when its result is not on file: the server died in it."""
        found = self.rounds()
        return found[-1] if found and found[-1].verdict in OPEN else None

    # Releases

    def set_release(self, row: ReleaseRow) -> None:
        """Put a release on file, or change how far it is handed out."""
        values = {"number": row.number, "status": row.status, "percent": row.percent, "time": row.time}
        with transaction(self._engine) as connection:
            if not connection.execute(
                update(tables.releases).where(tables.releases.c.id == row.id).values(values)
            ).rowcount:
                connection.execute(insert(tables.releases).values({"id": row.id, **values}))

    def releases(self) -> list[ReleaseRow]:
        """Return all releases on file, oldest first."""
        with transaction(self._engine) as connection:
            rows = connection.execute(
                select(tables.releases).order_by(tables.releases.c.number, tables.releases.c.time)
            )
            return [ReleaseRow(**row) for row in rows.mappings()]

    # Switches

    def get(self, name: str) -> str | None:
        """Return the value of a switch, None when it was never set."""
        with transaction(self._engine) as connection:
            return _switch(connection, name)

    def put(self, name: str, value: str) -> None:
        """Set a switch, for example ``halted``."""
        with transaction(self._engine) as connection:
            _set_switch(connection, name, value)

    def take(self, name: str) -> str | None:
        """Return the value of a switch and remove it, in one step: of two who ask, one gets it."""
        with transaction(self._engine) as connection:
            value = _switch(connection, name)
            connection.execute(delete(tables.switches).where(tables.switches.c.name == name))
        return value

    # Audit log

    def log(self, event: str, **facts: object) -> None:
        """Append one line to the audit log; each line's hash covers all lines before it."""
        with transaction(self._engine) as connection:
            number, before = _head(connection)
            line = {"number": number + 1, "time": time.time(), "event": event, "facts": _text(facts)}
            sealed = _seal(before, line)
            connection.execute(insert(tables.events).values({**line, "hash": sealed}))
            _set_switch(connection, HEAD, f"{number + 1} {sealed}")

    def events(self, newest: int | None = None) -> list[Event]:
        """Return the newest lines of the audit log (all by default), oldest first."""
        query = select(tables.events).order_by(tables.events.c.number.desc()).limit(newest)
        with transaction(self._engine) as connection:
            rows = list(connection.execute(query).mappings())
        return [Event(**{**row, "facts": json.loads(row["facts"])}) for row in reversed(rows)]

    def verify(self) -> int:
        """Check the whole audit log; return the number of its lines.

        Raises:
            IntegrityError: a line was changed, added, removed or reordered behind the server's back.
        """
        with transaction(self._engine) as connection:
            head = _head(connection)
            lines = list(connection.execute(select(tables.events).order_by(tables.events.c.number)).mappings())
        before = START
        for number, line in enumerate(lines, 1):
            if line["number"] != number or line["hash"] != _seal(before, line):
                raise IntegrityError(f"line {number} of the fleet's audit log was changed", code="audit_log")
            before = line["hash"]
        if head != (len(lines), before):
            raise IntegrityError("lines are missing at the end of the fleet's audit log", code="audit_log")
        return len(lines)


def _switch(connection: Connection, name: str) -> str | None:
    """The value of a switch, its row locked until the transaction ends."""
    query = select(tables.switches.c.value).where(tables.switches.c.name == name).with_for_update()
    value = connection.execute(query).scalar_one_or_none()
    return None if value is None else str(value)


def _set_switch(connection: Connection, name: str, value: str) -> None:
    """Change a switch, or make it."""
    change = update(tables.switches).where(tables.switches.c.name == name).values(value=value)
    if not connection.execute(change).rowcount:
        connection.execute(insert(tables.switches).values(name=name, value=value))


def _head(connection: Connection) -> tuple[int, str]:
    """Number and hash of the newest event; whoever asks is the only writer until its transaction ends."""
    number, _, sealed = str(_switch(connection, HEAD)).partition(" ")
    return int(number), sealed


def _seal(before: str, line: Mapping[Any, Any]) -> str:
    """The hash of one line of the log, over the hash before it."""
    return digest(canonical([before, line["number"], line["time"], line["event"], line["facts"]]))


def _text(value: Mapping[str, Any]) -> str:
    """Canonical JSON as text."""
    return canonical(dict(value)).decode()
