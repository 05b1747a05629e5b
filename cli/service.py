"""`corrigible service`: have the gateway started at login, by systemd (Linux) or launchd (macOS); never unasked."""

import subprocess
import sys
from pathlib import Path

import click

from cli.base import Group
from cli.output import Report, facts
from cli.session import Session, confirm
from store.errors import CorrigibleError, NotEligible
from store.files import write_atomic

UNIT = "corrigible.service"
LABEL = "local.corrigible.gateway"

SYSTEMD = """\
[Unit]
Description=Corrigible: a local model that learns from corrections
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=5
WatchdogSec=60
TimeoutStopSec=70
{environment}CPUWeight=20
IOSchedulingClass=idle
LimitCORE=0
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ReadWritePaths={writable}
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""

LAUNCHD = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>Label</key><string>{label}</string>
<key>ProgramArguments</key><array>{arguments}</array>
<key>RunAtLoad</key><true/>
<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
<key>ProcessType</key><string>Background</string>
<key>Umask</key><integer>63</integer>
</dict></plist>
"""


@click.group(cls=Group, examples=["corrigible service install", "corrigible service status"])
def service() -> None:
    """Have it started when you log in."""


@service.command(examples=["corrigible service install --yes"], exits=[1, 15])
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit, change nothing.")
@click.pass_obj
def install(session: Session, yes: bool, only_print: bool) -> Report:
    """Start the gateway at every login.

    On Linux it ends with your last session; `loginctl enable-linger` keeps it, and is yours to run.
    """
    path, text = unit(session)
    if only_print:
        return Report({"path": str(path), "unit": text, "installed": False, "active": False}, lambda: text)
    confirm(session, f"This writes {path} and starts the gateway now and at every login.", yes)
    session.home.create()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [text.encode()])
    for command in _manage("start", path):
        _run(command)
    return _report(path, text)


@service.command(examples=["corrigible service uninstall --yes"], exits=[1, 15])
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def uninstall(session: Session, yes: bool) -> Report:
    """Stop the gateway and start it no more; data stays."""
    path, text = unit(session)
    if not path.exists():
        raise NotEligible("The service is not installed.", hint="`corrigible service install`.", code="not_installed")
    confirm(session, f"This stops the gateway and removes {path}.", yes)
    for command in _manage("stop", path):
        _run(command, check=False)
    path.unlink()
    return _report(path, text)


@service.command(examples=["corrigible service status"], exits=[])
@click.pass_obj
def status(session: Session) -> Report:
    """Whether it is installed, and running."""
    return _report(*unit(session))


def unit(session: Session) -> tuple[Path, str]:
    """Return where this system wants the service's definition, and the definition."""
    if sys.platform == "darwin":
        words = "".join(f"<string>{_xml(word)}</string>" for word in _command(session))
        path = Path.home() / "Library/LaunchAgents" / f"{LABEL}.plist"
        return path, LAUNCHD.format(label=LABEL, arguments=words)
    home = session.home
    folders = dict.fromkeys([home.root, home.data, home.state, home.runtime, home.config.parent])
    environment = f"LoadCredentialEncrypted=corrigible.key:{home.data}/corrigible.cred\n"
    has_credential = (home.data / "corrigible.cred").exists()
    text = SYSTEMD.format(
        command=" ".join(_quoted(word) for word in _command(session)),
        environment=environment if has_credential else "",
        writable=" ".join(_quoted(f"-{folder}") for folder in folders),
    )
    return Path.home() / ".config/systemd/user" / UNIT, text


def _command(session: Session) -> list[str]:
    """The command line that serves in the foreground on this home."""
    place = ["--home", str(session.place)] if session.place else []
    secret = ["--passphrase-file", str(session.passphrase_file.resolve())] if session.passphrase_file else []
    return [sys.executable, "-m", "cli.main", *place, *secret, "up", "--foreground"]


def _manage(what: str, path: Path) -> list[list[str]]:
    """The commands that start or stop the service."""
    if sys.platform == "darwin":
        return [["launchctl", "load" if what == "start" else "unload", "-w", str(path)]]
    verb = "enable" if what == "start" else "disable"
    return [["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", verb, "--now", UNIT]]


def _run(command: list[str], *, check: bool = True) -> bool:
    """Run a command of the service manager.

    Raises:
        CorrigibleError: it is missing or fails (code ``service_manager``).
    """
    try:
        done = subprocess.run(command, capture_output=True, timeout=90, check=False)
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is not None and done.returncode == 0:
        return True
    if check:
        hint = "The definition is written; start it by hand, or use `corrigible up`."
        raise CorrigibleError(f"`{' '.join(command[:3])}` does not work here.", hint=hint, code="service_manager")
    return False


def _report(path: Path, text: str) -> Report:
    """Whether the definition is there and the service manager has it running."""
    installed = path.exists()
    asked = ["launchctl", "list", LABEL] if sys.platform == "darwin" else ["systemctl", "--user", "is-active", UNIT]
    active = installed and _run(asked, check=False)
    data = {"path": str(path), "unit": text, "installed": installed, "active": active}
    rows = {"definition": str(path), "installed": "yes" if installed else "no", "running": "yes" if active else "no"}
    return Report(data, lambda: facts(rows))


def _quoted(word: str) -> str:
    """A word as systemd reads it."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _xml(word: str) -> str:
    """A word as XML text."""
    return word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
