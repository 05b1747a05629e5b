"""What a worker process is told about its devices; handed over a pipe, never by argument, file or environment."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One device as this process needs it."""

    home: str  # root of the device's home
    key: str = field(repr=False)  # base64 of the data key
    membership: str  # folder of the fleet membership
    address: str  # runtime interface of its SuperNode
    secret: str  # path of the secret shared with the SuperNode


def request(model: Path, posts: Sequence[Post]) -> bytes:
    """Return what a worker reads from stdin."""
    return json.dumps({"model": str(model), "posts": [asdict(post) for post in posts]}).encode()
