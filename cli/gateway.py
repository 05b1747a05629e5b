"""`corrigible gateway`: the tokens of the programs that talk to the model."""

import click

from cli.base import Group
from cli.output import Report, table, when
from cli.session import Session, confirm
from cli.up import token_path

SCOPES = ("chat", "correct", "admin")


@click.group(cls=Group, examples=["corrigible gateway tokens", "corrigible gateway add-token editor --scope chat"])
def gateway() -> None:
    """Tokens for the programs that talk to the model."""


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
