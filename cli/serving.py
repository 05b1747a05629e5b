"""The gateway's process: opens the store, loads the model, serves, and learns in the background.

Started by `corrigible up`, which writes one line with the job and the store's key into its stdin; or run in the
foreground. Here the rooms are wired: what the gateway needs from learner and federation it gets as plain callables.
"""

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.endpoint import gateway_settings, token_path, upstream_policy
from cli.output import Report, failure_of, log_frames
from cli.runtime import LOCK, Running, forget, new_secret, notify
from cli.session import Session
from cli.wiring import Wiring
from store.errors import CorrigibleError
from store.keys import Keys
from store.store import Store

if TYPE_CHECKING:
    from feedback.gateway.server import Server

Tell = Callable[[Running], None]


def main() -> int:
    """The background process: read the job, serve until told to stop."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    keys = Keys.from_bytes(base64.b64decode(job.pop("key")))
    session = Session(place=Path(job["place"]) if job["place"] else None)

    def tell(found: Running) -> None:
        _say(out, {"ready": found.address})
        out.close()

    try:
        serve(session, keys, job, tell)
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error, lambda unknown: log_frames(unknown, session.home.state / "logs"))
        if not out.closed:
            said = {"code": failure.code, "message": failure.message, "hint": failure.hint}
            _say(out, {"error": {**said, "exit_code": failure.exit_code}})
        return failure.exit_code
    return 0


def serve_here(session: Session, keys: Keys, job: dict[str, Any]) -> Report:
    """Serve in this process until SIGTERM or Ctrl-C."""
    from cli.output import say

    serve(session, keys, job, lambda found: say(f"Serving on {found.address}/v1; Ctrl-C ends it."))
    return Report({"event": "stopped"}, lambda: "Stopped.")


def serve(session: Session, keys: Keys, job: dict[str, Any], tell: Tell) -> None:
    """Serve until told to stop.

    Args:
        tell: called once requests are accepted.

    Raises:
        CorrigibleError: store, model, port or adapters cannot be used.
    """
    from feedback.gateway.build import build_gateway
    from feedback.gateway.server import Server, bind

    settings = gateway_settings(session, job["port"])
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(session.home, keys))
        stack.enter_context(store.lock(LOCK))
        listening = stack.enter_context(bind(settings))
        engine = stack.enter_context(_engine(session, settings.parallel))
        wiring = stack.enter_context(Wiring(session, store, keys, engine))
        control = new_secret()
        gateway = build_gateway(
            settings, engine, store, wiring.above(), tokens=token_path(session), control=control,
            upstream=upstream_policy(session), default_tokens=session.config.chat.max_tokens,
        )  # fmt: skip
        scheme = "https" if settings.tls else "http"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{scheme}://{host}:{listening.getsockname()[1]}"

        def ready() -> None:
            found = Running(os.getpid(), address, control, time.time())
            found.save(session.home)
            stack.callback(forget, session.home)
            if job["learner"]:
                wiring.start_learner()
            notify("READY=1")
            tell(found)

        server = Server(gateway, listening, ready)
        threading.Thread(target=_watchdog, args=(server,), daemon=True).start()
        server.run()
        notify("STOPPING=1")


def _engine(session: Session, parallel: int) -> Any:  # noqa: ANN401 - an Engine, imported late
    """The model, loaded."""
    from feedback.engine import Engine

    settings = session.config.model
    model = session.model()
    try:
        return Engine(model, context=settings.context, threads=settings.threads, parallel=parallel)
    except MemoryError:
        hint = "Close other programs, or set `path` under [model] to a smaller GGUF."
        raise CorrigibleError("The model does not fit into memory.", hint=hint, code="model_too_large") from None


def _watchdog(server: "Server") -> None:
    """Tell systemd that we live, twice per interval that it allows."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while interval and not server.should_exit:
        notify("WATCHDOG=1")
        time.sleep(interval)


def _say(out: Any, message: dict[str, Any]) -> None:  # noqa: ANN401 - a text file
    """One line, at once."""
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
