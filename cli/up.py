"""`corrigible up`, `down`, `open`: the gateway and the background learner, started, stopped and shown."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from typing import Any

import click

from cli.base import Command
from cli.endpoint import gateway_settings, token_path, upstream_policy
from cli.output import Report, facts, say
from cli.runtime import Running, running
from cli.session import Session
from store.errors import CorrigibleError, DaemonUnreachable, Locked, NetworkError

PATIENCE = 60.0  # seconds that a start or a stop may take


@click.command(
    cls=Command,
    examples=["corrigible up", "corrigible up --port 0 --json", "corrigible up --foreground"],
    exits=[1, 10, 11, 12, 13, 16, 17],
)
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here (0: any free port).")
@click.option("--foreground", is_flag=True, help="Stay in this terminal; for service managers.")
@click.option("--expose", is_flag=True, help="Allow listening beyond this machine (needs TLS and a token).")
@click.option("--no-learner", is_flag=True, help="Serve only; learn when told to.")
@click.pass_obj
def up(session: Session, port: int | None, foreground: bool, expose: bool, no_learner: bool) -> Report:
    """Start the model for other programs and for the page.

    Any program that speaks the OpenAI API can use the address printed, with a token of `corrigible gateway
    tokens`. Your corrections are learned in the background. Nothing is opened and nothing leaves this device.
    """
    already = running(session.home)
    if already is not None:
        return _report(session, _serving(session, already), new=False)
    with session.keys() as keys:
        job = prepare(session, port, expose=expose, learner=not no_learner)
        if foreground:
            from cli.serving import serve_here

            return serve_here(session, keys, job)
        found = _start(session, {**job, "key": base64.b64encode(keys.export()).decode()})
    return _report(session, found, new=True)


@click.command(cls=Command, examples=["corrigible down"], exits=[10, 16])
@click.pass_obj
def down(session: Session) -> Report:
    """Stop it.

    Answers in flight finish first; the learner ends, too.
    """
    found = _found(session)
    os.kill(found.process, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while (now := running(session.home)) is not None and now.process == found.process:
        if time.monotonic() > end:
            raise DaemonUnreachable("The gateway does not stop.", hint=f"End process {found.process} yourself.")
        time.sleep(0.05)
    return Report({"stopped": found.process}, lambda: f"Stopped process {found.process}.")


@click.command("open", cls=Command, examples=["corrigible open", "corrigible open --print"], exits=[10, 16, 17])
@click.option("--print", "only_print", is_flag=True, help="Print the link, open nothing.")
@click.pass_obj
def open_(session: Session, only_print: bool) -> Report:
    """Open the page in the browser.

    The link works once, for five minutes.
    """
    found = _found(session)
    token = ask(found, "POST", "/auth/ticket")["token"]
    link = f"{found.address}/#token={token}"
    opened = not only_print and not session.as_json and webbrowser.open(link)
    return Report({"url": link, "opened": opened}, lambda: link)


open = open_  # the name the command has


def prepare(session: Session, port: int | None, *, expose: bool, learner: bool) -> dict[str, Any]:
    """Check everything that can be checked before starting, and return what the process is told.

    Raises:
        CorrigibleError: the model, the settings or the tokens cannot be used.
    """
    from feedback.gateway.settings import check_bind
    from feedback.gateway.tokens import TokenFile

    settings = gateway_settings(session, port)
    upstream_policy(session)
    check_model_fits(session)
    session.home.create()
    check_bind(settings, exposed=expose, tokens=len(TokenFile.load(token_path(session)).tokens))
    return {"place": str(session.place) if session.place else None, "port": settings.port, "learner": learner}


def check_model_fits(session: Session) -> None:
    """Refuse a model that this machine's free memory cannot hold, before it is read; then check it.

    Raises:
        CorrigibleError: too large (code ``model_too_large``); what `Session.model` raises.
    """
    import psutil

    path = session.config.model.path
    size, free = path.stat().st_size if path and path.is_file() else 0, psutil.virtual_memory().available
    if size > free:
        message = f"The model needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free."
        hint = "Close other programs, or set `path` under [model] to a smaller GGUF."
        raise CorrigibleError(message, hint=hint, code="model_too_large")
    session.model()


def ask(found: Running, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
    """Ask the running gateway, with the run's own secret.

    Raises:
        NetworkError: it does not answer, or refuses.
    """
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(found.address + path, data if method != "GET" else None, method=method)
    request.add_header("Authorization", f"Bearer {found.control}")
    request.add_header("Content-Type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_local()))
    try:
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        code = error.code if isinstance(error, urllib.error.HTTPError) else "no answer"
        raise NetworkError(f"The gateway refuses ({code}).", hint="`corrigible doctor` looks for the cause.") from None


def _local() -> Any:  # noqa: ANN401 - an SSL context
    """TLS to our own process: its certificate names another host, and the secret proves who it is."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _found(session: Session) -> Running:
    """The running gateway."""
    found = running(session.home)
    if found is None:
        raise DaemonUnreachable("The gateway is not running.", hint="`corrigible up` starts it.")
    return found


def _serving(session: Session, found: Running) -> Running:
    """The gateway that another command starts, once it serves.

    Raises:
        Locked: it does not come to serve.
        DaemonUnreachable: it has ended.
    """
    end = time.monotonic() + PATIENCE
    while not found.control:
        if time.monotonic() > end:
            hint = f"Repeat in a moment, or end process {found.process} yourself."
            raise Locked("Another process is starting the gateway.", hint=hint, code="busy")
        time.sleep(0.05)
        now = running(session.home)
        if now is None:
            raise DaemonUnreachable("The gateway that was starting has ended.", hint="Run `corrigible up` again.")
        found = now
    return found


def _start(session: Session, job: dict[str, Any]) -> Running:
    """Start the process, hand it the job on stdin, wait until it serves."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cli.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.close()
    except BrokenPipeError:
        pass
    line = child.stdout.readline()
    child.stdout.close()
    said = json.loads(line) if line.strip() else {}
    found = running(session.home)
    if "error" in said:
        child.wait(PATIENCE)
        raise _error(said["error"])
    if "ready" not in said or found is None:
        raise DaemonUnreachable("The gateway did not start.", hint="`corrigible up --foreground` shows why.")
    return found


def _error(said: dict[str, Any]) -> CorrigibleError:
    """The process's error as an error of the same family."""
    families = {kind.exit_code: kind for kind in CorrigibleError.__subclasses__()}
    kind = families.get(said["exit_code"], CorrigibleError)
    return kind(said["message"], hint=said["hint"], code=said["code"])


def _report(session: Session, found: Running, *, new: bool) -> Report:
    """Say where it listens."""
    if new and not session.as_json:
        say("Started; `corrigible down` stops it." if new else "Running already.")
    data = {
        "address": found.address,
        "api": f"{found.address}/v1",
        "process": found.process,
        "started": new,
        "tokens": str(token_path(session)),
    }
    rows = {
        "page": f"{found.address}   (`corrigible open` lets you in)",
        "API": f"{found.address}/v1   (OpenAI-compatible)",
        "token": "`corrigible gateway tokens --show`",
        "process": str(found.process),
    }
    return Report(data, lambda: facts(rows))
