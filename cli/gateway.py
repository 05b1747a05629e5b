"""`corrigible gateway`: the tokens of the programs that talk to the model, and what would leave for the upstream."""

from dataclasses import asdict

import click

from cli.base import Group
from cli.endpoint import token_path, upstream_policy
from cli.output import Report, facts, table, when
from cli.session import Session, confirm
from store.errors import NotEligible
from store.records import Message

SCOPES = ("chat", "correct", "admin")


@click.group(cls=Group, examples=["corrigible gateway tokens", "corrigible gateway add-token editor --scope chat"])
def gateway() -> None:
    """Tokens for the programs that talk to the model, and what may leave."""


@gateway.command(examples=["corrigible gateway tokens", "corrigible gateway tokens --show"], exits=[13])
@click.option("--show", is_flag=True, help="Show the tokens themselves.")
@click.pass_obj
def tokens(session: Session, show: bool) -> Report:
    """List the tokens, and what each may do."""
    from feedback.gateway.tokens import TokenFile

    session.home.create()
    found = TokenFile.load(token_path(session)).tokens
    listed = [
        {
            "name": one.name,
            "scopes": list(one.scopes),
            "review": one.review,
            "created": one.created,
            "token": one.value if show else None,
        }
        for one in found
    ]
    rows = [
        [one.name, ", ".join(one.scopes), "waits for review" if one.review else "taught at once", when(one.created),
         one.value if show else "…"]
        for one in found
    ]  # fmt: skip
    columns = ("name", "may", "corrections", "made", "token")
    return Report({"tokens": listed}, lambda: table(*columns, rows=rows) if rows else "There is no token.")


@gateway.command("add-token", examples=["corrigible gateway add-token editor --scope chat --scope correct"], exits=[13])
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True)
@click.option("--review", is_flag=True, help="Its corrections wait for your word on the page.")
@click.pass_obj
def add_token(session: Session, name: str, scopes: tuple[str, ...], review: bool) -> Report:
    """Make a token and print it; a running gateway knows it at once."""
    from feedback.gateway.tokens import SCOPES as known
    from feedback.gateway.tokens import TokenFile

    session.home.create()
    wanted = [scope for scope in known if scope in scopes]
    made = TokenFile.load(token_path(session)).added(name, wanted, review=review)
    made.save()
    value = made.tokens[-1].value
    return Report({"name": name, "scopes": wanted, "review": review, "token": value}, lambda: value)


@gateway.command("remove-token", examples=["corrigible gateway remove-token editor"], exits=[13])
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove_token(session: Session, name: str, yes: bool) -> Report:
    """Remove a token; programs that use it are refused from then on."""
    from feedback.gateway.tokens import TokenFile

    made = TokenFile.load(token_path(session)).removed(name)
    confirm(session, f"Programs that use the token {name!r} will be refused.", yes)
    made.save()
    return Report({"removed": name}, lambda: f"Removed {name}.")


@gateway.command(examples=["corrigible gateway preview 'my card is 4111 1111 1111 1111'"], exits=[10, 11, 12, 13, 15])
@click.argument("text")
@click.pass_obj
def preview(session: Session, text: str) -> Report:
    """Show what the upstream would be sent for a request, word for word; nothing is sent."""
    from feedback.stream import Sampling
    from feedback.upstream.client import Upstream

    policy = upstream_policy(session)
    if policy is None:
        hint = "Set url and model under [upstream] in the settings."
        raise NotEligible("There is no upstream: nothing would leave.", hint=hint, code="not_configured")
    with session.store() as store:
        upstream = Upstream(policy, store)
        shown = upstream.preview([Message("user", text)], Sampling(max_tokens=session.config.chat.max_tokens))
        agreed = upstream.state["consent"]
    data = {"url": shown.url, "body": shown.body, "bytes": shown.size, "redacted": shown.redacted, "consent": agreed}
    rows = {
        "to": shown.url,
        "consent": "given" if agreed else "not given: nothing leaves",
        "blacked out": ", ".join(f"{count} {name}" for name, count in shown.redacted.items()) or "nothing",
        "size": f"{shown.size} bytes with the head, without the API key",
        "body": shown.body,
    }
    return Report(data, lambda: facts(rows))


@gateway.command(examples=["corrigible gateway calibrate"], exits=[10, 11, 12, 13])
@click.pass_obj
def calibrate(session: Session) -> Report:
    """Find the confidence under which your corrections say that the device model is mostly wrong."""
    from feedback.upstream.evidence import confidences
    from feedback.upstream.policy import calibrate as find

    with session.store() as store:
        found = find(*confidences(store))
    rows = {
        "threshold": f"{found.threshold:.4f}   (under [upstream] in the settings, with \"unsure\" in when)",
        "catches": f"{found.caught:.0%} of {found.wrong} corrected answers",
        "asks for": f"{found.sent:.0%} of all {found.right + found.wrong} answers",
        "AUC": f"{found.auc:.3f}",
    }
    return Report(asdict(found), lambda: facts(rows))
