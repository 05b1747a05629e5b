"""The support archive of `corrigible doctor --bundle`: versions, findings, counts and frames; no word of the owner's.

Nothing is copied: each part is made from values that are ids, counts, names of the program's own or versions. Of
the error log only lines that have the shape of a time, an error's type or a frame are taken, without folders.
"""

import io
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from cli.config import Config
from cli.session import Session
from store.errors import CorrigibleError
from store.files import write_atomic

PACKAGES = ("corrigible", "sqlcipher3", "sqlalchemy", "alembic", "cryptography", "keyring", "torch", "llama-cpp-python",
            "peft", "opacus", "flwr")  # fmt: skip
LAST = 400  # lines of the error log
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TYPE = re.compile(r"[A-Za-z_]{1,60}")
_FRAME = re.compile(r"  (.{1,400}):(\d{1,7}) (\w{1,80}|<\w{1,20}>)")


def parts(session: Session, findings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return name and text of everything that goes into the archive.

    Args:
        session: whose home is described.
        findings: name and state of each check of `doctor`.
    """
    made: dict[str, Any] = {
        "versions.json": _versions(),
        "checks.json": dict(findings),
        "settings.json": _settings(session),
        "store.json": _store(session),
    }
    texts = {name: json.dumps(value, indent=1, sort_keys=True) + "\n" for name, value in made.items()}
    return texts | {"errors.log": "".join(f"{line}\n" for line in _frames(session.home.state / "logs" / "errors.log"))}


def pack(target: Path, texts: Mapping[str, str]) -> None:
    """Write the archive, for its owner alone.

    Raises:
        CorrigibleError: the disk refused; `target` is as before.
    """
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    write_atomic(target, [held.getvalue()])


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found | {"byteorder": sys.byteorder}


def _settings(session: Session) -> dict[str, Any]:
    """Return the settings that are not the default: numbers as they are, of everything else only that it is set."""
    try:
        config, usual = session.config, Config()
    except CorrigibleError as error:
        return {"error": error.code}
    changed = {
        f"{section.name}.{one.name}": getattr(getattr(config, section.name), one.name)
        for section in fields(Config)
        for one in fields(getattr(config, section.name))
        if getattr(getattr(config, section.name), one.name) != getattr(getattr(usual, section.name), one.name)
    }
    return {name: value if isinstance(value, int | float) else "set" for name, value in changed.items()}


def _store(session: Session) -> dict[str, Any]:
    """Return counts and findings of the store, or the word for why it does not open."""
    try:
        with session.unlocked() as (store, _):
            health, report = asdict(store.health()), store.verify()
    except CorrigibleError as error:
        return {"error": error.code}
    health["damage"], health["warning"] = bool(health["damage"]), bool(health["warning"])
    problems = [{"code": one.code, "first": one.first, "last": one.last} for one in report.problems]
    return health | {"chain": report.records, "problems": problems, "missing": report.missing}


def _frames(log: Path) -> list[str]:
    """Return the last lines of the error log that are nothing but times, types and frames."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST:]
    except OSError:
        return []
    return [kept for line in lines if (kept := _line(line))]


def _line(line: str) -> str:
    """Return one line of the error log as it may be shown, or nothing."""
    if frame := _FRAME.fullmatch(line):
        return f"  {'/'.join(PurePath(frame[1]).parts[-2:])}:{frame[2]} {frame[3]}"
    return line if _TIME.fullmatch(line) or _TYPE.fullmatch(line) else ""
