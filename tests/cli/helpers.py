"""What the tests of the command line share."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = {
    tuple(command.split()): set(keys.split())
    for command, keys in re.findall(
        r"^\| `([^`]+)` \| (.+) \|$", (Path(__file__).parents[2] / "docs/json.md").read_text(), re.MULTILINE
    )
}


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The data of the one JSON line written."""
        (line,) = self.lines
        assert line["ok"], line
        data: dict[str, Any] = line["data"]
        return data

    def keys(self, *command: str) -> bool:
        """Say whether the data has the keys that docs/json.md publishes for `command`."""
        return set(self.data) == PUBLISHED[command]

    @property
    def error(self) -> dict[str, str]:
        """The error of the last JSON line written."""
        assert not self.lines[-1]["ok"], self.lines[-1]
        error: dict[str, str] = self.lines[-1]["error"]
        return error

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All JSON lines; each must be an envelope."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        for line in lines:
            assert line["schema"] == 1
            assert set(line) == {"schema", "ok", "data" if line["ok"] else "error"}
            assert line["ok"] or set(line["error"]) == {"code", "message", "hint"}
        return lines


Call = Callable[..., Result]
