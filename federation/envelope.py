"""One reply as the objects Flower carries it in, read in the one form it may have.

Three objects: a message, its dictionary of records, the record with word, payload and signature. The first two must
have the hash they are named by; the record must be written as we write it, byte for byte, so that nothing in it goes
unread and nothing read is unsigned. An update is cut out of its record, which spares it Flower's own parser. Uses
private modules of Flower 1.41 (pinned; see the contract test).
"""

import os
from collections.abc import Mapping

from flwr.app import ConfigRecord, Error, Message
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from federation.protocol import Reply, parse_reply, reply_fields
from federation.update import UpdateRefused

SIGNATURE_BYTES = 64


class Envelopes:
    """Reads the replies of one round.

    Args:
        size: bytes of an update's payload, the only length one may have.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        payload, signature = os.urandom(size), os.urandom(SIGNATURE_BYTES)
        self._head, _, rest = _written(Reply("", payload, signature)).partition(payload)
        self._between, _, self._tail = rest.partition(signature)

    def read(self, name: str, contents: Mapping[str, bytes]) -> Reply | Error:
        """Return what a reply says, or Flower's error in its place.

        Args:
            name: of the message among `contents`; a dictionary and a record come before it.

        Raises:
            UpdateRefused: reason ``unreadable``, ``format`` or ``size``.
        """
        record = next(iter(contents))
        try:
            if any(get_object_id(data) != each for each, data in contents.items() if each != record or each == name):
                raise UpdateRefused("unreadable")
            update = self._update(contents[record])
            known = {record: ConfigRecord()} if update else {}
            message = inflate_object_from_contents(name, dict(contents), objects=known)
        except Exception as error:  # whatever a hostile reply provokes in Flower's unpacking stays with that reply
            raise UpdateRefused("unreadable") from error
        if not isinstance(message, Message):
            raise UpdateRefused("unreadable")
        if message.has_error():
            return message.error
        content = message.content
        if set(content) != {"reply"} or not isinstance(content["reply"], ConfigRecord):
            raise UpdateRefused("format")
        return update or self._other(content["reply"], contents[record])

    def _update(self, record: bytes) -> Reply | None:
        """The update in a record that is written as one."""
        start = len(self._head)
        end = start + self._size
        signed = end + len(self._between)
        parts = (record[:start], record[end:signed], record[signed + SIGNATURE_BYTES :])
        if parts != (self._head, self._between, self._tail):
            return None
        return Reply("", record[start:end], record[signed : signed + SIGNATURE_BYTES])

    def _other(self, fields: ConfigRecord, record: bytes) -> Reply:
        """A word, or why a record is not an update."""
        reply = parse_reply(dict(fields), self._size)
        if _written(reply) != record:
            raise UpdateRefused("format")
        return reply


def _written(reply: Reply) -> bytes:
    """The record of a reply."""
    return bytes(ConfigRecord(dict(reply_fields(reply))).deflate())
