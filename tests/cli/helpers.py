"""What the tests of the command line share."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
