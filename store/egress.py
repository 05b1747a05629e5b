"""Reading the egress ledger: messages that left, and the encrypted streams that carried them.

Entries of the purpose ``transport`` count whole streams, handshakes and polls included. What a stream carried has an
entry of its own under its own purpose, so the two are never added up.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from store.records import TRANSPORT, Egress


def messages(entries: Iterable[Egress]) -> list[Egress]:
    """Return what left, without the streams that carried it."""
    return [one for one in entries if one.purpose != TRANSPORT]


def streams(entries: Iterable[Egress]) -> list[Egress]:
    """Return the streams alone."""
    return [one for one in entries if one.purpose == TRANSPORT]


def folded(entries: Iterable[Egress]) -> list[Egress]:
    """Return the ledger for a person: streams to one destination on one day as one.

    A device that takes part adds a stream's entry each minute. A folded entry has the newest time, all the bytes, and
    the digest of its last part.
    """
    found: dict[object, Egress] = {}
    for one in entries:
        day = datetime.fromtimestamp(one.time).date()
        key = (one.destination, day) if one.purpose == TRANSPORT else one.id
        before = found.pop(key, None)
        found[key] = replace(one, size=one.size + before.size) if before and one.purpose == TRANSPORT else one
    return list(found.values())
