"""The Flower ClientApp around a device; the only client code a device ever runs.

It unpacks Flower's records and packs the answer. A failure is reported as a bare word: no text, no traceback leaves.
"""

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from federation.device import Device
from federation.protocol import SignedOrder, reply_fields
from store.errors import CorrigibleError, ReleaseRejected

REFUSED = 100  # error code of ours in Flower's reply; carries no reason


def client_app(device: Device) -> ClientApp:
    """Return the app that answers orders with `device`."""

    def train(message: Message, _context: Context) -> Message:
        return respond(device, message)

    app = ClientApp()
    app.train()(train)
    return app


def respond(device: Device, message: Message) -> Message:
    """Turn one Flower message into the device's reply message; never raises for what a server may send."""
    try:
        order, release = message.content["order"], message.content["release"]
        signed = SignedOrder(_bytes(order, "body"), _bytes(order, "signature"))
        reply = device.answer(signed, _bytes(release, "envelope"), _bytes(release, "adapter"))
    except (CorrigibleError, KeyError):
        return Message(Error(code=REFUSED, reason="refused"), reply_to=message)
    return Message(RecordDict({"reply": ConfigRecord(dict(reply_fields(reply)))}), reply_to=message)


def _bytes(record: object, name: str) -> bytes:
    """One bytes field of a config record.

    Raises:
        ReleaseRejected: it is something else.
    """
    value = record.get(name) if isinstance(record, ConfigRecord) else None
    if not isinstance(value, bytes):
        raise ReleaseRejected("a malformed order was refused", code="format")
    return value
