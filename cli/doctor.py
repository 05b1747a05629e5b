"""`corrigible doctor`: check everything; one line and one remedy for each. Changes nothing unless told to."""

import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from cli.base import Command
from cli.output import Report, table
from cli.session import SLOTS, Session, confirm, served
from federation.claim import claim
from store.base import StoreBase
from store.errors import CorrigibleError, NotInitialised
from store.records import Adapter

State = Literal["ok", "warn", "fail"]
LEAST_DISK = 500_000_000  # bytes
LEAST_MEMORY = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: its subject, its state, one sentence and what to do."""

    name: str
    state: State
    says: str
    remedy: str = ""
    exit_code: int = 0


@click.command(
    cls=Command,
    examples=["corrigible doctor", "corrigible doctor --accept", "corrigible doctor --bundle report.zip"],
    exits=[1, 10, 11, 12, 13],
)
@click.option("--accept", is_flag=True, help="Accept the damage found and let learning and sharing go on.")
@click.option(
    "--bundle", type=click.Path(dir_okay=False, path_type=Path), help="Write a support archive: ids and counts only."
)
@click.option("--yes", is_flag=True, help="Do not ask (with --accept or --bundle).")
@click.pass_obj
def doctor(session: Session, accept: bool, bundle: Path | None, yes: bool) -> Report:
    """Check everything; one line and one remedy for each.

    The exit code is that of the first failure, 0 when there are only warnings. A support archive is for sending to
    somebody who helps: its parts are listed before it is written, and none holds a word of yours.
    """
    checks = list(_examine(session, accept, yes))
    packed = _bundle(session, bundle, checks, yes) if bundle else None
    failed = [check for check in checks if check.state == "fail"]
    count = {state: sum(check.state == state for check in checks) for state in ("ok", "warn", "fail")}
    rows = [[check.state, check.name, check.says, check.remedy] for check in checks]
    data = {
        "checks": [{k: v for k, v in asdict(check).items() if k != "exit_code"} for check in checks],
        **count,
        "bundle": packed,
    }
    return Report(data, lambda: table("", "what", "found", "do", rows=rows), failed[0].exit_code if failed else 0)


def _bundle(session: Session, target: Path, checks: list[Check], yes: bool) -> dict[str, Any]:
    """List what goes into the support archive, ask, and write it."""
    from cli.bundle import pack, parts

    found = parts(session, [(check.name, check.state) for check in checks])
    sizes = {name: len(text) for name, text in found.items()}
    listed = ", ".join(f"{name} ({size} bytes)" for name, size in sizes.items())
    confirm(session, f"This writes {target.name} with {listed}.", yes)
    pack(target, found)
    return {"file": str(target), "parts": sizes, "bytes": target.stat().st_size}


def _examine(session: Session, accept: bool, yes: bool) -> Iterator[Check]:
    """Yield all findings; what needs the store is left out when it does not open."""
    yield from examine_machine(session)
    with ExitStack() as stack:
        stores: list[StoreBase] = []
        yield from _tried("store", lambda: _opened(session, stack, stores))
        for store in stores:
            if accept:
                confirm(session, "This accepts what is damaged or missing; it stays on record.", yes)
                store.accept_damage()
            yield from examine_store(session, store)


def examine_machine(session: Session) -> Iterator[Check]:
    """Yield what can be found without opening the store."""
    yield from _tried("driver", _driver)
    yield from _tried("settings", lambda: _settings(session))
    yield from _tried("key", lambda: _key(session))
    yield from _tried("core dumps", _cores)
    yield from _tried("files", lambda: _modes(session))
    yield from _tried("space", lambda: _space(session))
    yield from _tried("model", lambda: _model(session))


def examine_store(session: Session, store: StoreBase) -> Iterator[Check]:
    """Yield what an open store shows."""
    yield from _tried("records", lambda: _records(store))
    yield from _tried("adapters", lambda: _adapters(session, store))
    yield from _tried("sharing", lambda: _sharing(session, store))


def _tried(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    """Yield the finding of one check; an error of ours is a failure with its own hint."""
    try:
        yield check()
    except CorrigibleError as error:
        yield Check(name, "fail", error.message, error.hint, error.exit_code)


def _driver() -> Check:
    from store.engine import check_driver

    check_driver()
    return Check("driver", "ok", "SQLCipher, on an SQLite without the known corruption bug.")


def _settings(session: Session) -> Check:
    config = session.config
    here = str(session.home.config) if session.home.config.is_file() else "no file, all defaults"
    kept = config.retention.policy()
    days = {"answers": kept.interactions, "corrections": kept.corrections, "ratings": kept.ratings}
    words = ", ".join(f"{name} {number:g} days" for name, number in days.items() if number) or "everything for good"
    cap = claim(config.privacy.epsilon_cap, config.privacy.delta, "correction")
    return Check("settings", "ok", f"{here}; keeps {words}; privacy cap a year: {cap}.")


def _key(session: Session) -> Check:
    from store.keys import key_status

    status = key_status(session.home)
    if status.warning:
        return Check("key", "warn", status.warning, "corrigible key change-passphrase, or with --key keyring.")
    return Check("key", "ok", f"Kept by: {status.backend}.")


def _cores() -> Check:
    """A crash must not write the key to disk."""
    from store.keys import core_dumps_off, forbid_core_dumps

    forbid_core_dumps()
    if core_dumps_off():
        return Check("core dumps", "ok", "Off: a crash leaves no key behind.")
    return Check("core dumps", "warn", "A crash may write the key to disk.", "ulimit -c 0")


def _modes(session: Session) -> Check:
    """Nothing of ours may be open to others."""
    if not session.home.data.is_dir():
        raise NotInitialised("There is no data folder.", hint="Run `corrigible init` first.")
    folders = [folder for folder in (session.home.data, session.home.state) if folder.is_dir()]
    files = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    open_ones = [path for path in files if _open_to_others(path)]
    if open_ones:
        remedy = f"chmod -R go-rwx {' '.join(map(str, folders))}"
        return Check("files", "warn", f"{len(open_ones)} of {len(files)} files are open to other users.", remedy)
    return Check("files", "ok", f"{len(files)} files and folders, for you alone.")


def _open_to_others(path: Path) -> bool:
    """Whether group or others may do anything with `path`; a file that just went is not."""
    try:
        return bool(stat.S_IMODE(path.lstat().st_mode) & 0o077) and not path.is_symlink()
    except FileNotFoundError:
        return False


def _space(session: Session) -> Check:
    import psutil

    disk = shutil.disk_usage(session.home.data if session.home.data.is_dir() else Path.home()).free
    memory = psutil.virtual_memory().available
    says = f"{disk / 1e9:.1f} GB of disk and {memory / 1e9:.1f} GB of memory are free."
    if disk < LEAST_DISK or memory < LEAST_MEMORY:
        return Check("space", "warn", says, "Free some; learning needs about 1 GB of memory.")
    return Check("space", "ok", says)


def _model(session: Session) -> Check:
    model = session.model()
    kind = "the embedded model" if session.config.model.path is None else "your model"
    return Check("model", "ok", f"{model.name} ({model.architecture}), {kind}.")


def _opened(session: Session, stack: ExitStack, stores: list[StoreBase]) -> Check:
    """Open the store for the checks that follow."""
    store = stack.enter_context(session.store())
    stores.append(store)
    return Check("store", "ok", "The key fits and the store opens.")


def _records(store: StoreBase) -> Check:
    report = store.verify()
    if report.ok:
        return Check("records", "ok", f"{report.records} records in an unbroken chain, up to the anchor.")
    says = "; ".join(problem.message for problem in report.problems[:3])
    if not store.damage:
        return Check("records", "warn", f"Accepted earlier: {says}", "Restore a backup to mend it.")
    remedy = "Restore a backup, or `corrigible doctor --accept` to go on."
    return Check("records", "fail", says, remedy, 13)


def _adapters(session: Session, store: StoreBase) -> Check:
    """Every adapter must decrypt; those served must fit the model."""
    adapters = {adapter.digest: adapter for adapter in store.all(Adapter)}
    for digest in adapters:
        store.artefact(digest)
    base = session.model().digest
    foreign = [digest for digest in served(store) if digest in adapters and adapters[digest].base != base]
    if foreign:
        remedy = "`corrigible adapter use none`, or serve the model it was made for."
        return Check("adapters", "fail", "An adapter of another base model is set to be served.", remedy, 13)
    serving = sum(store.active(slot) is not None for slot in SLOTS)
    noun = "adapter" if len(adapters) == 1 else "adapters"
    return Check("adapters", "ok", f"{len(adapters)} {noun}, all whole; {serving} served.")


def _sharing(session: Session, store: StoreBase) -> Check:
    from cli.status import consents, spent

    if not consents(store)["share"]:
        return Check("sharing", "ok", "Off: nothing leaves this device. There is no telemetry.")
    total: dict[str, Any] = spent(store)
    spends = claim(total["epsilon"], total["delta"] or session.config.privacy.delta, total["unit"])
    return Check("sharing", "ok", f"On; spent: {spends}. There is no telemetry.")
