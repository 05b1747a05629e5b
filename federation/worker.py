"""The child process that trains for one or several devices: ``python -m federation.worker PARENT``.

Keys and paths come as JSON on stdin, never by argument, file or environment. Ends with its parent or on SIGTERM.
"""

import base64
import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from federation import membership
from federation.client_app import client_app
from federation.device import Device
from federation.leash import die_with_parent
from federation.post import Post
from federation.runner import Seat, serve
from federation.train import private_trainer
from feedback.models import check_model
from learner.base import load_base
from store.keys import Keys
from store.paths import Home
from store.store import Store


def main() -> None:
    """Serve until told to stop."""
    die_with_parent(int(sys.argv[1]))
    logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.ERROR)
    going = _Going()
    wanted: dict[str, Any] = json.load(sys.stdin.buffer)
    base = load_base(check_model(Path(wanted["model"])), hold="fast")
    train = private_trainer(base)
    seats = []
    for post in (Post(**entry) for entry in wanted["posts"]):
        store = Store.open(Home.at(Path(post.home)), Keys.from_bytes(base64.b64decode(post.key)))
        place = membership.read(Path(post.membership))
        device = Device(store, place, place.signing_key(), base.geometry, train)
        seats.append(Seat(post.address, Path(post.secret), client_app(device)))
    serve(seats, running=going)


class _Going:
    """True until SIGTERM or SIGINT; the round in hand is finished or abandoned whole, the ledger never half written."""

    def __init__(self) -> None:
        self._going = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def __call__(self) -> bool:
        return self._going

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._going = False


if __name__ == "__main__":
    main()
