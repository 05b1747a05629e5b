"""`corrigible privacy`: consents, budget, and everything that ever left this device."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.base import Group
from cli.output import Report, facts, short, table, when
from cli.privacy_audit import audit
from cli.privacy_plan import plan
from cli.session import Session, confirm
from cli.status import PURPOSES, consents, spent
from federation.claim import TRUST, adjacency, claim, terms
from store.base import StoreBase
from store.egress import folded, messages, streams
from store.errors import IntegrityError, UsageError
from store.records import Consent, Egress, Purpose, Spend, digest

EXITS = (10, 11, 12, 13)
TERMS: dict[Purpose, str] = {
    "log": "Conversations are kept in the encrypted store on this device.",
    "learn": "Corrections train a personal adapter on this device; it never leaves it.",
    "upstream": "Conversations leave for the server under [upstream], as the policy there says, secrets blacked out.",
    "share": "In each round this device sends one noised, clipped block of numbers to the fleet; never text.",
}


@click.group(cls=Group, examples=["corrigible privacy status", "corrigible privacy consent share --withdraw"])
def privacy() -> None:
    """Consents, budget, and everything that ever left."""


privacy.add_command(plan)
privacy.add_command(audit)


@privacy.command(examples=["corrigible privacy status --json"], exits=EXITS)
@click.pass_obj
def status(session: Session) -> Report:
    """What you agreed to, and how much of the privacy budget is spent."""
    limits = session.config.privacy
    with session.store() as store:
        agreed, total, entries = consents(store), spent(store), store.all(Egress)
    told = messages(entries)
    size, wire = (sum(one.size for one in group) for group in (told, streams(entries)))
    data = {
        "consents": agreed,
        "budget": {**total, "cap": limits.epsilon_cap},
        "messages": len(told),
        "bytes": size,
        "wire_bytes": wire,
    }
    delta = limits.delta if total["delta"] is None else total["delta"]
    caps = {"month": limits.epsilon_cap_month, "year": limits.epsilon_cap, "life": limits.epsilon_cap_life}
    rows = {
        "consents": ", ".join(f"{name} {'on' if granted else 'off'}" for name, granted in agreed.items()),
        "spent": f"{claim(total['epsilon'], delta, total['unit'])}, in {total['runs']} runs",
        "caps": "; ".join(
            f"{claim(cap, delta, 'correction')} a {name}" for name, cap in caps.items() if cap is not None
        ),
        "left": f"{len(told)} messages, {size} bytes; with handshakes and polls {wire} bytes on the wire",
    }
    return Report(data, lambda: facts(rows))


@privacy.command(
    examples=["corrigible privacy consent", "corrigible privacy consent log --withdraw"],
    exits=[*EXITS, 15],
)
@click.argument("purpose", type=click.Choice(PURPOSES), required=False)
@click.option("--grant/--withdraw", default=None, help="Say yes or no; without either, show.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def consent(session: Session, purpose: Purpose | None, grant: bool | None, yes: bool) -> Report:
    """Show your word per purpose, or give or withdraw it.

    Sharing is agreed to with one fleet: join it first.
    """
    if (purpose is None) != (grant is None):
        raise UsageError("Name a purpose together with --grant or --withdraw.", hint="Or neither, to see all.")
    with session.store() as store:
        if purpose is not None and grant is not None:
            if grant:
                confirm(session, TERMS[purpose], yes)
            store.add(
                Consent(
                    purpose=purpose,
                    granted=grant,
                    destination=destination(session, purpose),
                    terms=TERMS[purpose],
                    time=time.time(),
                )
            )
        agreed = consents(store)
    rows: dict[str, str] = {name: f"{'on ' if agreed[name] else 'off'}  {TERMS[name]}" for name in PURPOSES}
    return Report({"consents": agreed}, lambda: facts(rows))


@privacy.command(examples=["corrigible privacy ledger", "corrigible privacy ledger --json"], exits=EXITS)
@click.pass_obj
def ledger(session: Session) -> Report:
    """List every message that left, and the privacy it cost; streams that carried them, a line a day."""
    with session.store() as store:
        spends, egresses = store.all(Spend), store.all(Egress)
    data = {"spends": [asdict(one) for one in spends], "egress": [asdict(one) for one in egresses]}
    runs = {one.payload: one for one in spends}
    rows = [
        [
            when(one.time),
            one.purpose,
            short(one.destination),
            str(one.size),
            short(one.payload),
            f"{one.epsilon:.3f}",
            *_cost(runs.get(one.payload)),
        ]
        for one in folded(egresses)
    ]
    columns = ("time", "purpose", "to", "bytes", "payload", "epsilon", "life total", "delta", "unit")
    title = f"epsilon per {spends[-1].unit} ({terms(spends[-1].unit)})" if spends else ""
    return Report(data, lambda: table(*columns, rows=rows, title=title) if rows else "Nothing ever left this device.")


@privacy.command(examples=["corrigible privacy verify"], exits=EXITS)
@click.pass_obj
def verify(session: Session) -> Report:
    """Check that ledgers and records are whole: no entry changed, missing or rolled back."""
    with session.store() as store:
        report = store.verify()
    if not report.ok:
        first = report.problems[0]
        message = f"{len(report.problems)} findings; the first: {first.message}"
        raise IntegrityError(message, hint="`corrigible doctor` lists all.", code=first.code)
    return Report({"records": report.records, "problems": []}, lambda: f"{report.records} records, all whole.")


@privacy.command(
    examples=["corrigible privacy preview", "corrigible privacy preview --out message.bin"], exits=[*EXITS, 14, 15]
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the exact bytes here.")
@click.pass_obj
def preview(session: Session, out: Path | None) -> Report:
    """Make the exact message that the next round would send; nothing is sent or spent.

    It is made as in a round, with fresh noise: the next one will have the same size and other numbers.
    """
    with session.store() as store:
        message, data = next_update(session, store)
    lines = "\n".join(data["account"])
    if out is not None:
        out.write_bytes(message)
        out.with_name(f"{out.name}.txt").write_text(f"{lines}\n", encoding="utf-8")
    rows = {
        "to": short(data["fleet"]),
        "size": f"{data['bytes']} bytes, the same for every device and whatever you corrected",
        "content": f"{data['numbers']} noised numbers behind a header of public figures; no text",
        "costs": claim(data["epsilon"], data["delta"], data["unit"]),
        "begins with": data["begins_with"],
        "byte by byte": lines,
    }
    return Report(data, lambda: facts(rows))


def next_update(session: Session, store: StoreBase) -> tuple[bytes, dict[str, Any]]:
    """Make the message of the next round and the account of it; nothing is sent or spent."""
    from cli.fleet_join import membership
    from federation.preview import account
    from federation.preview import preview as make
    from federation.train import private_trainer
    from learner.base import load_base

    place = membership(session)
    base = load_base(session.model())
    update, epsilon = make(store, place, base.geometry, private_trainer(base))
    message = update.encode()
    return message, {
        "bytes": len(message),
        "numbers": update.expected.count,
        "digest": digest(message),
        "fleet": place.fleet,
        "round": update.expected.round,
        "epsilon": epsilon,
        "delta": place.limits.delta,
        "unit": update.expected.spec.unit,
        "adjacency": adjacency(update.expected.spec.unit),
        "trust": TRUST[update.expected.spec.unit],
        "begins_with": message[:48].hex(" "),
        "account": account(update),
    }


def destination(session: Session, purpose: Purpose) -> str:
    """Return whom a word on `purpose` is for: the fleet joined, for sharing; the server, for the upstream.

    Raises:
        UsageError: there is none (code ``not_configured`` for the upstream).
    """
    if purpose == "upstream":
        from cli.endpoint import upstream_policy

        policy = upstream_policy(session)
        if policy is None:
            hint = "Set url and model under [upstream] in the settings."
            raise UsageError("There is no upstream.", hint=hint, code="not_configured")
        return str(policy.origin)
    if purpose != "share":
        return ""
    from cli.fleet_join import membership

    return membership(session).fleet


def _cost(spend: Spend | None) -> list[str]:
    """Return the cells that say what a message's run cost."""
    return [f"{spend.total:.3f}", f"{spend.delta:g}", spend.unit] if spend else ["", "", ""]
