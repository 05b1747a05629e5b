"""`corrigible fleet join`: what a person agrees to, and how a device gets into a fleet. Wiring only."""

import json
import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.base import Command
from cli.output import Report, short
from cli.session import Session, confirm
from federation.claim import claim
from store.errors import CorrigibleError, NotEligible, UsageError
from store.records import Consent, Egress, digest

if TYPE_CHECKING:
    from federation.charter import Terms
    from federation.membership import Membership
    from federation.spec import Limits
    from store.base import StoreBase

EXITS = (10, 11, 12, 13)
ASKING = "`corrigible fleet join` was called with this server's link: it may be asked for its terms."


@click.command(
    cls=Command, examples=["corrigible fleet join 'https://fleet.example:8443/#…'"], exits=[*EXITS, 15, 17, 18, 130]
)
@click.argument("link")
@click.option("--yes", is_flag=True, help="Agree without being asked.")
@click.pass_obj
def join(session: Session, link: str, yes: bool) -> Report:
    """Join the fleet behind LINK, its operator's invitation, and agree to share with it.

    You see who runs it, what would leave, who can see what, and your own limits before you agree.
    """
    from federation import caller
    from federation import membership as memberships
    from federation.charter import TERMS_LIMIT, open_terms
    from federation.door import Door, address
    from federation.enrolment import Link, ask, release_key
    from federation.spec import Limits

    invitation = Link.parse(link)
    if has_joined(session):
        raise UsageError("This device is in a fleet already.", hint="`corrigible fleet leave` ends that.")
    limits = Limits(**asdict(session.config.privacy))
    server = address(invitation.url)
    with session.store() as store, Door(store, server, lambda: store.consent("join", server)) as door:
        store.add(Consent(purpose="join", granted=True, destination=server, terms=ASKING, time=time.time()))
        authority, root = caller.anchors(invitation, door)
        key = release_key(root)
        with caller.call(invitation.url, authority, door) as client:
            caller.require_clock(client)
            signed = caller.terms(client, TERMS_LIMIT)
            asked = open_terms(signed, key)
            _fits(session, asked)
            words = terms_words(asked, limits)
            confirm(session, words, yes)
            pending = membership_folder(session).with_name("fleet.pending")
            place = _pending(pending, key, invitation.url) or memberships.join(
                pending, release_key=key, base=asked.base, limits=limits, url=invitation.url,
                authority=authority, root=root,
            )  # fmt: skip
            node_key = place.node_key.with_suffix(".pub").read_bytes()
            request = ask(invitation.token, signed, node_key, place.signing_key())
            _agree(store, place, words, signed, request)
            try:
                name = caller.send(client, request)
            except (NotEligible, UsageError):
                withdraw_consent(store, place)
                shutil.rmtree(pending)
                raise
    pending.rename(membership_folder(session))
    place = memberships.read(membership_folder(session))
    data = {"fleet": place.fleet, "operator": asked.operator, "name": name, "terms": words, "device": device_key(place)}
    words_out = (
        f"Joined {asked.operator} as {name}. `corrigible fleet run` takes part; `corrigible fleet leave` ends it."
    )
    return Report(data, lambda: words_out)


def membership(session: Session) -> "Membership":
    """Return this device's membership.

    Raises:
        NotEligible: it is in no fleet.
    """
    from federation import membership as memberships

    if not has_joined(session):
        raise NotEligible("This device is in no fleet.", hint="Use `corrigible fleet join`.", code="no_fleet")
    return memberships.read(membership_folder(session))


def membership_folder(session: Session) -> Path:
    """Return where the membership is kept."""
    return session.home.data / "fleet"


def has_joined(session: Session) -> bool:
    """Say whether this device is in a fleet."""
    return (membership_folder(session) / "membership.json").is_file()


def device_key(place: "Membership") -> str:
    """Return this device's public signing key as hex."""
    from federation.pki import public_bytes

    return public_bytes(place.signing_key()).hex()


def terms_words(asked: "Terms", limits: "Limits") -> str:
    """Return what the owner agrees to. What this program does is said by this program, not by the server."""
    from learner.accountant import MechanismRun, epsilon

    spec = asked.spec
    a_round = epsilon([MechanismRun(spec.noise_multiplier, spec.sampling_rate, spec.steps)], limits.delta)
    contact = f" ({asked.contact})" if asked.contact else ""
    return (
        f"{asked.operator}{contact} runs this fleet at {asked.url}, identity {short(asked.fleet)}.\n"
        f"You agree to share with it: in each round one noised, clipped block of numbers of exactly {asked.bytes_up:,} "
        f"bytes leaves this device, never text.\n"
        f"A round costs {claim(a_round, limits.delta, spec.unit)}.\n"
        f"Your limits: {claim(limits.epsilon_cap, limits.delta, spec.unit)} a year, each correction in at most "
        f"{limits.uses_per_correction} rounds; then this device declines by itself.\n"
        f"Who can see what: the operator sees your noised block, your network address, this device's fleet key and "
        f"when it takes part; other devices and the public see only averages of at least {asked.quorum} devices; "
        f"nobody sees a request, an answer or a correction."
    )


def _pending(folder: Path, key: bytes, url: str) -> "Membership | None":
    """The keys of an attempt to join whose answer was lost; anything else there is removed."""
    from federation import membership as memberships

    with suppress(CorrigibleError):
        place = memberships.read(folder)
        if (place.release_key, place.url) == (key, url):
            return place
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _fits(session: Session, asked: "Terms") -> None:
    """Refuse a fleet of another base model."""
    if asked.base != session.model().digest:
        raise UsageError(
            "This fleet shares adapters for another base model.",
            hint="Serve the fleet's model (`[model] path` in the settings).",
            code="wrong_base",
        )


def _agree(store: "StoreBase", place: "Membership", words: str, signed: bytes, request: bytes) -> None:
    """Put the owner's word on record, with the signed terms and the request to join that is about to leave."""
    now = time.time()
    consent = Consent(purpose="share", granted=True, destination=place.fleet, terms=words, time=now)
    leaves = Egress(
        purpose="join",
        destination=place.fleet,
        consent=consent.id,
        size=len(request),
        payload=digest(request),
        time=now,
    )
    store.add_all([consent, leaves])
    said = {name: value for name, value in json.loads(request).items() if name != "token"}
    (place.folder / "consent.json").write_text(json.dumps({**said, "consent": consent.id, "time": now}, indent=1))
    place.terms.write_bytes(signed)


def withdraw_consent(store: "StoreBase", place: "Membership") -> None:
    """Withdraw the owner's word."""
    store.add(Consent(purpose="share", granted=False, destination=place.fleet, time=time.time()))
