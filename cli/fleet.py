"""`corrigible fleet`: a device's side of sharing. The operator's side is in `cli.fleet_server`. Wiring only."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Group
from cli.fleet_join import device_key, has_joined, join, membership, withdraw_consent
from cli.fleet_releases import release
from cli.fleet_rounds import round_
from cli.fleet_server import enroll, init, nodes, revoke, server_option, server_status, up
from cli.learn import outcome
from cli.output import Report, emit, facts, say, short, when
from cli.privacy import preview
from cli.session import Session, confirm
from cli.status import spent
from federation.claim import claim
from store.errors import CorrigibleError, NotEligible, NotInitialised
from store.records import Correction, Spend, Verdict, digest

if TYPE_CHECKING:
    from httpx import Client

    from federation.membership import Membership
    from federation.mirror import Fetch
    from federation.release import Release
    from store.base import StoreBase

EXITS = (10, 11, 12, 13)
NEW_RELEASES = 900.0  # seconds between two looks at the fleet's releases


@click.group(
    cls=Group,
    examples=["corrigible fleet join 'https://fleet.example:8443/#…'", "corrigible fleet run", "corrigible fleet init"],
)
def fleet() -> None:
    """Share privately with other devices, or serve them."""


for command in (join, init, up, enroll, nodes, revoke, round_, release, preview):
    fleet.add_command(command)


@fleet.command(examples=["corrigible fleet run", "corrigible fleet run --poll 60 --json"], exits=[*EXITS, 15, 17, 130])
@click.option(
    "--poll",
    type=click.FloatRange(1),
    default=NEW_RELEASES,
    show_default=True,
    help="Seconds between two looks at the fleet's releases.",
)
@click.option("--any-time", is_flag=True, help="Also on battery.")
@click.pass_obj
def run(session: Session, poll: float, any_time: bool) -> Report:
    """Take part in the fleet's rounds and take its releases, until Ctrl-C.

    Answers only orders that the fleet signed, with the code installed here, within your limits. A new release is
    verified, judged on your own corrections, and served only if it helps.
    """
    from federation.member import Seat, take_part

    place = membership(session)
    asked = threading.Event()
    with session.unlocked() as (store, keys), _until_signal(asked):
        seat = Seat(session.home.root, keys.export(), place, session.model().path)
        look = _Look(session, store, place, poll)
        take_part(
            seat, store, going=lambda: not asked.is_set(), ready=lambda: _not_now(any_time), tell=_teller(session),
            look=look,
        )  # fmt: skip
    return Report({"event": "stopped"}, lambda: "Stopped.")


@fleet.command(
    examples=["corrigible fleet receive", "corrigible fleet receive --from /media/stick/repository"],
    exits=[*EXITS, 15, 17, 18],
)
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of the fleet's repository, instead of its server.",
)
@click.pass_obj
def receive(session: Session, folder: Path | None) -> Report:
    """Fetch the newest release that is out to this device, verify and judge it here, and serve it if it helps.

    The gate's word is this device's own: a genuine release that does not help you is kept, not served.
    """
    from federation.reception import look

    place = membership(session)
    with session.store() as store, _source(store, place, folder) as fetch:
        news = look(store, place, fetch)
        if news.release is None:
            raise NotEligible("No release is out to this device now.", hint="Look again later.", code="no_release")
        return judge(session, store, place, news.release)


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
        withdraw_consent(store, place)
        if forget and store.active("shared"):
            store.activate("shared", None, "left the fleet")
        serving = store.active("shared")
    shutil.rmtree(place.folder)
    words = f"Left fleet {short(place.fleet)}."
    return Report({"fleet": place.fleet, "shared": serving}, lambda: words)


@fleet.command(examples=["corrigible fleet status", "corrigible fleet status --json"], exits=EXITS)
@server_option
@click.pass_obj
def status(session: Session, server: Path | None) -> Report:
    """Which fleet this device is in, its limits and newest release; and the fleet served from here, if any."""
    mine, own = server_status(session, server), _device_status(session)
    if mine is None and own is None:
        raise NotInitialised("There is neither a store nor a fleet server here.", hint="Use `corrigible init`.")
    data = {**(own[0] if own else {"joined": False, "shared": None}), "server": mine[0] if mine else None}
    rows = {**(own[1] if own else {}), **(mine[1] if mine else {})}
    return Report(data, lambda: facts(rows))


def judge(session: Session, store: "StoreBase", place: "Membership", got: "Release") -> Report:
    """Check a verified release's content and let the gate decide."""
    from feedback.models import probe_pairs
    from learner.cycle import judge_release
    from learner.policy import LearnPolicy

    _check_content(session, place, got)
    with session.engine(store) as engine:
        probe = probe_pairs(engine.model.path)
        verdict = judge_release(store, engine, got.adapter, got.manifest.id, probe=probe, policy=LearnPolicy())
    return outcome(store, verdict)


class _Look:
    """Looks at the fleet's releases now and then, and judges what is new or was waiting for evidence."""

    def __init__(self, session: Session, store: "StoreBase", place: "Membership", poll: float) -> None:
        self._session, self._store, self._place, self._poll = session, store, place, poll
        self._due = 0.0
        self._tell = _teller(session)

    def __call__(self) -> None:
        if time.monotonic() < self._due:
            return
        try:
            self._look()
        except CorrigibleError as error:
            self._tell("waiting", {"code": error.code, "reason": error.message})
        self._due = time.monotonic() + self._poll

    def _look(self) -> None:
        from federation import caller
        from federation.reception import look

        with _source(self._store, self._place, None) as fetch:
            news = look(self._store, self._place, fetch)
        if news.withdrawn:
            self._tell("withdrawn", {"adapter": news.withdrawn})
        if news.release is not None and (news.fresh or self._evidence(digest(news.release.adapter))):
            report = judge(self._session, self._store, self._place, news.release)
            self._tell("judged", {**report.data, "round": news.release.manifest.round})
        with _server(self._store, self._place) as client:
            caller.require_clock(client)

    def _evidence(self, adapter: str) -> bool:
        """Say whether corrections came since the gate wanted more of them."""
        verdict, newest = self._store.last(Verdict, adapter=adapter), self._store.last(Correction)
        waiting = verdict is not None and verdict.decision == "wait"
        return waiting and newest is not None and verdict is not None and newest.time > verdict.time


@contextmanager
def _source(store: "StoreBase", place: "Membership", folder: Path | None) -> Iterator["Fetch"]:
    """Where releases come from: the fleet's server, or a copy of its repository."""
    from federation.mirror import from_folder, from_server

    if folder is not None:
        yield from_folder(folder)
        return
    place.pinned_root()
    with _server(store, place) as client:
        yield from_server(client)


@contextmanager
def _server(store: "StoreBase", place: "Membership") -> Iterator["Client"]:
    """The fleet's server, through the door that counts.

    Raises:
        NotEligible: the owner no longer agrees to share with it.
    """
    from federation import caller
    from federation.door import Door

    if store.consent("share", place.fleet) is None:
        hint = "Take releases `--from` a copy, or `corrigible privacy consent share --grant`."
        raise NotEligible("You withdrew consent: nothing goes to the fleet's server.", hint=hint, code="no_consent")
    with Door.of(store, place) as door, caller.call(place.url, place.authority.read_bytes(), door) as client:
        yield client


@contextmanager
def _until_signal(asked: threading.Event) -> Iterator[None]:
    """Let SIGTERM set `asked`; Ctrl-C interrupts as everywhere."""
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _teller(session: Session) -> Callable[[str, dict[str, Any]], None]:
    """What happens, as lines: JSON on stdout, or words on stderr."""

    def tell(event: str, detail: dict[str, Any]) -> None:
        if session.as_json:
            emit(Report({"event": event, **detail}, lambda: ""), True)
        else:
            say(f"{event}: " + ", ".join(f"{name} {value}" for name, value in detail.items()))

    return tell


def _not_now(any_time: bool) -> str:
    """Why this device may not take part now; empty when it may. Never depends on what its owner said."""
    import psutil

    with suppress(AttributeError, OSError):
        battery = psutil.sensors_battery()
        if battery is not None and not battery.power_plugged and not any_time:
            return "on battery"
    return ""


def _device_status(session: Session) -> tuple[dict[str, Any], dict[str, str]] | None:
    """This device's part, as data and as words; None when there is no store."""
    from store.keys import key_status

    try:
        key_status(session.home)
    except NotInitialised:
        return None
    with session.store() as store:
        total, serving = spent(store), store.active("shared")
        if not has_joined(session):
            return {"joined": False, "shared": serving}, {"fleet": "in none; nothing leaves this device"}
        place = membership(session)
        granted = store.consent("share", place.fleet) is not None
        sent = store.count(Spend)
    newest, limits = place.newest(), place.limits
    data = {
        "joined": True,
        "fleet": place.fleet,
        "url": place.url or None,
        "device": device_key(place),
        "consent": granted,
        "round": newest.round if newest else None,
        "shared": serving,
        "budget": {**total, "cap": limits.epsilon_cap},
        "rounds_taken_part": sent,
    }
    rows = {
        "fleet": f"{short(place.fleet)} {place.url}",
        "sharing": "agreed" if granted else "consent withdrawn",
        "limits": f"{claim(limits.epsilon_cap, limits.delta, 'correction')} a year, "
        f"each correction in at most {limits.uses_per_correction} rounds",
        "spent": f"{claim(total['epsilon'], total['delta'] or limits.delta, total['unit'])} in {sent} rounds",
        "newest release": f"round {newest.round}, {when(newest.time)}" if newest else "none seen",
        "shared adapter": short(serving) if serving else "none served",
    }
    return data, rows


def _check_content(session: Session, place: "Membership", got: "Release") -> None:
    """Refuse a genuine release whose factors are not public, not finite or too large."""
    from federation.adapter import open_release
    from learner.base import load_base

    geometry = load_base(session.model(), hold="blocks").geometry
    open_release(got, geometry, max_norm=place.limits.max_adapter_norm)
