"""`corrigible wipe`: remove the store for good, its keys first."""

import click

from cli.base import Command
from cli.output import Report, table
from cli.session import Session, confirm
from store.errors import NotInitialised


@click.command(cls=Command, examples=["corrigible wipe", "corrigible wipe --yes --json"], exits=[1, 10, 11, 130])
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def wipe(session: Session, yes: bool) -> Report:
    """Remove the store for good, its keys first.

    Records, adapters, fleets and logs go; settings, and backups in other places, stay. Every path that goes is
    named before you are asked.
    """
    from store.wipe import wipe as remove
    from store.wipe import wipe_plan

    plan = wipe_plan(session.home)
    if not plan:
        raise NotInitialised("There is nothing to wipe here.")
    names = ", ".join(str(path) for path, _ in plan)
    size = sum(number for _, number in plan)
    confirm(session, f"This removes for good, {size} bytes: {names}.", yes)
    sizes = dict(plan)
    gone = [(str(path), sizes.get(path, 0)) for path in remove(session.home)]
    data = {"removed": [{"path": path, "bytes": number} for path, number in gone], "bytes": size}
    return Report(data, lambda: table("removed", "bytes", rows=[[path, str(number)] for path, number in gone]))
