"""`corrigible fleet`: a device's side of sharing, and a desk fleet for an operator. Wiring only."""

import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Group
from cli.learn import outcome
from cli.output import PARTLY, Report, facts, short, table, when
from cli.session import Session, confirm
from cli.status import spent
from store.errors import NotEligible, UsageError
from store.records import Consent, Spend

if TYPE_CHECKING:
    from federation.deploy import DeskDevice
    from federation.membership import Membership
    from federation.release import Release

EXITS = (10, 11, 12, 13)
INVITATION = "invitation.json"


@click.group(cls=Group, examples=["corrigible fleet join invitation.json", "corrigible fleet status"])
def fleet() -> None:
    """Share privately with other devices, or serve them."""


@fleet.command(examples=["corrigible fleet join invitation.json"], exits=[*EXITS, 130])
@click.argument("invitation", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Agree without being asked.")
@click.pass_obj
def join(session: Session, invitation: Path, yes: bool) -> Report:
    """Join the fleet of INVITATION, a file from its operator, and agree to share with it.

    You see what would leave, to whom and within which limits before you agree.
    """
    from federation import membership as memberships
    from federation.release import fleet_identity
    from federation.spec import Limits

    key, base = _invitation(invitation)
    limits = Limits(**asdict(session.config.privacy))
    with session.store() as store:
        if base != session.model().digest:
            raise UsageError(
                "This fleet shares adapters for another base model.",
                hint="Serve the fleet's model (`[model] path` in the settings).",
                code="wrong_base",
            )
        terms = _terms(fleet_identity(key), limits.epsilon_cap, limits.delta, limits.uses_per_correction)
        confirm(session, terms, yes)
        place = memberships.join(_folder(session), release_key=key, base=base, limits=limits)
        now = time.time()
        store.add(Consent(purpose="share", granted=True, destination=place.fleet, terms=terms, time=now))
    data = {"fleet": place.fleet, "terms": terms, "device": _device(place)}
    return Report(data, lambda: f"Joined fleet {short(place.fleet)}. `corrigible fleet leave` ends it.")


@fleet.command(examples=["corrigible fleet leave", "corrigible fleet leave --forget --yes"], exits=[*EXITS, 130])
@click.option("--forget", is_flag=True, help="Also stop serving the shared adapter.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def leave(session: Session, forget: bool, yes: bool) -> Report:
    """Leave the fleet: consent is withdrawn and this device's fleet keys are deleted.

    What already left cannot be recalled; `corrigible privacy ledger` shows it and the epsilon that bounds it.
    """
    place = membership(session)
    with session.store() as store:
        goes = "This withdraws consent and deletes this device's fleet keys"
        confirm(session, f"{goes}{'; the shared adapter is no longer served' if forget else ''}.", yes)
        store.add(Consent(purpose="share", granted=False, destination=place.fleet, time=time.time()))
        if forget and store.active("shared"):
            store.activate("shared", None, "left the fleet")
        serving = store.active("shared")
    shutil.rmtree(place.folder)
    words = f"Left fleet {short(place.fleet)}."
    return Report({"fleet": place.fleet, "shared": serving}, lambda: words)


@fleet.command(examples=["corrigible fleet status", "corrigible fleet status --json"], exits=EXITS)
@click.pass_obj
def status(session: Session) -> Report:
    """Which fleet this device is in, its limits, and the newest release."""
    with session.store() as store:
        total, serving = spent(store), store.active("shared")
        if not _joined(session):
            return Report({"joined": False, "shared": serving}, lambda: "In no fleet. Nothing leaves this device.")
        place = membership(session)
        granted = store.consent("share", place.fleet) is not None
        sent = store.count(Spend)
    newest = place.newest()
    limits = place.limits
    data = {
        "joined": True,
        "fleet": place.fleet,
        "device": _device(place),
        "consent": granted,
        "round": newest.round if newest else None,
        "shared": serving,
        "budget": {**total, "cap": limits.epsilon_cap},
        "rounds_taken_part": sent,
    }
    rows = {
        "fleet": short(place.fleet),
        "sharing": "agreed" if granted else "consent withdrawn",
        "limits": f"epsilon {limits.epsilon_cap:g} a year at delta {limits.delta:g}, "
        f"each correction in at most {limits.uses_per_correction} rounds",
        "spent": f"epsilon {total['epsilon']:.2f} per {total['unit']} in {sent} rounds",
        "newest release": f"round {newest.round}, {when(newest.time)}" if newest else "none seen",
        "shared adapter": short(serving) if serving else "none served",
    }
    return Report(data, lambda: facts(rows))


@fleet.command(examples=["corrigible fleet receive releases/00003.json"], exits=[*EXITS, 15, 18])
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def receive(session: Session, manifest: Path) -> Report:
    """Verify the release MANIFEST (its adapter lies beside it), judge it here, and serve it if it helps.

    The gate's word is this device's own: a genuine release that does not help you is kept, not served.
    """
    from feedback.models import probe_pairs
    from learner.cycle import judge_release
    from learner.policy import LearnPolicy

    place = membership(session)
    adapter = manifest.with_suffix(".gguf")
    if not adapter.is_file():
        raise UsageError("The release's adapter is missing.", hint=f"Put {adapter.name} beside the manifest.")
    release = place.accept(manifest.read_bytes(), adapter.read_bytes())
    _check_content(session, place, release)
    with session.store() as store, session.engine(store) as engine:
        probe = probe_pairs(engine.model.path)
        verdict = judge_release(store, engine, release.adapter, release.manifest.id, probe=probe, policy=LearnPolicy())
        return outcome(store, verdict)


@fleet.command(examples=["corrigible fleet create /srv/fleet"], exits=[13])
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def create(session: Session, folder: Path) -> Report:
    """Make a fleet server in FOLDER: its keys, its certificate, and the invitation for devices."""
    from federation.deploy import create_server
    from federation.release import fleet_identity

    model = session.model()
    key = create_server(folder)
    path = folder / INVITATION
    path.write_text(json.dumps({"release_key": key.hex(), "base": model.digest}, indent=1), encoding="utf-8")
    data = {"fleet": fleet_identity(key), "base": model.digest, "invitation": str(path)}
    return Report(data, lambda: f"Made fleet {short(data['fleet'])}; give devices {path}.")


@fleet.command(
    examples=["corrigible fleet serve /srv/fleet --device ~/alice --device ~/bob --rounds 3"],
    exits=[3, *EXITS, 15, 17, 130],
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Home folder of a device that has joined; give as many as take part.",
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="For all rounds together, per correction, at delta 1e-6.",
)
@click.pass_obj
def serve(session: Session, folder: Path, devices: tuple[Path, ...], rounds: int, epsilon: float) -> Report:
    """Run federated rounds over real Flower processes on this machine, then take them all down.

    Every device checks consent, limits and budget for itself; its release is signed and lies in FOLDER/releases.
    """
    from federation.deploy import run_fleet
    from federation.plan import ServerFolder
    from federation.standard import standard_plan
    from learner.base import load_base

    server = ServerFolder(folder)
    if not server.release_key.is_file():
        raise UsageError("There is no fleet server here.", hint="`corrigible fleet create` makes one.")
    model = session.model()
    plan = standard_plan(model, load_base(model).geometry, rounds=rounds, devices=len(devices), epsilon=epsilon)
    with ExitStack() as stack:
        crew = [_crew(session, stack, number, home) for number, home in enumerate(devices, 1)]
        result = run_fleet(server, plan, crew)
    manifest = result.release.manifest
    data = {
        "release": manifest.id,
        "round": manifest.round,
        "path": str(server.releases / f"{manifest.round:05d}.json"),
        "epsilon": {"total": manifest.epsilon_total, "delta": manifest.delta, "unit": manifest.mechanism.unit},
        "rounds": result.reports,
        "seconds": result.seconds,
    }
    columns = ("round", "asked", "accepted", "verdict")
    rows = [[str(report[name]) for name in columns] for report in result.reports]
    whole = all(report["verdict"] == "released" for report in result.reports)
    words = f"Newest release: {data['path']}"
    return Report(data, lambda: table(*columns, rows=rows, title=words), 0 if whole else PARTLY)


def membership(session: Session) -> "Membership":
    """Return this device's membership.

    Raises:
        NotEligible: it is in no fleet.
    """
    from federation import membership as memberships

    if not _joined(session):
        raise NotEligible("This device is in no fleet.", hint="Use `corrigible fleet join`.", code="no_fleet")
    return memberships.read(_folder(session))


def _folder(session: Session) -> Path:
    """Return where the membership is kept."""
    return session.home.data / "fleet"


def _joined(session: Session) -> bool:
    """Say whether this device is in a fleet."""
    return (_folder(session) / "membership.json").is_file()


def _invitation(path: Path) -> tuple[bytes, str]:
    """Return the release key and base of an invitation.

    Raises:
        UsageError: the file is no invitation.
    """
    try:
        value = json.loads(path.read_bytes())
        key, base = bytes.fromhex(value["release_key"]), str(value["base"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("This file is no invitation.", hint="Ask the operator for a new one.") from error
    return key, base


def _terms(identity: str, cap: float, delta: float, uses: int) -> str:
    """Return what the owner agrees to."""
    return (
        f"You agree to share with fleet {short(identity)}: in each round one noised, clipped block of numbers of fixed "
        f"size leaves, never text. Unit: one correction; noise is added on this device, the server is not trusted. "
        f"Your limits: epsilon {cap:g} a year at delta {delta:g}, each correction in at most {uses} rounds."
    )


def _device(place: "Membership") -> str:
    """Return this device's public signing key as hex."""
    from federation.pki import public_bytes

    return public_bytes(place.signing_key()).hex()


def _check_content(session: Session, place: "Membership", release: "Release") -> None:
    """Refuse a genuine release whose factors are not public, not finite or too large."""
    from federation.adapter import open_release
    from learner.base import load_base

    geometry = load_base(session.model()).geometry
    open_release(release, geometry, max_norm=place.limits.max_adapter_norm)


def _crew(session: Session, stack: ExitStack, number: int, home: Path) -> "DeskDevice":
    """Unlock one device of a desk fleet."""
    from federation.deploy import DeskDevice

    owner = Session(place=home, passphrase_file=session.passphrase_file)
    place = membership(owner)
    keys = stack.enter_context(owner.keys())
    return DeskDevice(name=f"device{number}", home=owner.home, key=keys.export(), membership=place.folder)
