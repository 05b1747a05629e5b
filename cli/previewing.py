"""The account of the next update for the page, made in a process of its own: the gateway never loads torch."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.output import failure_of, log_frames
from cli.session import Session
from store.errors import CorrigibleError
from store.keys import Keys
from store.store import Store

PATIENCE = 300.0  # seconds


def preview_in_child(session: Session, keys: Keys) -> dict[str, Any]:
    """Return what `corrigible privacy preview` tells.

    Raises:
        CorrigibleError: what it refuses, or no answer in time.
    """
    job = {"place": str(session.place) if session.place else None, "key": base64.b64encode(keys.export()).decode()}
    command = [sys.executable, "-m", "cli.previewing"]
    try:
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=PATIENCE)
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise CorrigibleError("The preview was not made in time.", hint="Try again when the machine is idle.") from None
    if "error" in said:
        raise CorrigibleError(said["error"]["message"], hint=said["error"]["hint"], code=said["error"]["code"])
    data: dict[str, Any] = said["data"]
    return data


def main() -> int:
    """Read the job and the store's key from stdin, write the account to stdout."""
    from cli.privacy import next_update

    job = json.loads(sys.stdin.readline())
    session = Session(place=Path(job["place"]) if job["place"] else None)
    keys = Keys.from_bytes(base64.b64decode(job["key"]))
    try:
        with Store.open(session.home, keys) as store:
            said: dict[str, Any] = {"data": next_update(session, store)[1]}
    except Exception as error:
        failure = failure_of(error, lambda unknown: log_frames(unknown, session.home.state / "logs"))
        said = {"error": {"code": failure.code, "message": failure.message, "hint": failure.hint}}
    sys.stdout.write(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
