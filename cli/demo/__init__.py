"""`corrigible demo`: the whole loop with eight simulated owners, a fleet and a newcomer, and every claim checked."""

import json
from pathlib import Path

import click

from cli.base import Command
from cli.output import INTERNAL, Report, say
from cli.session import Session


@click.command(
    cls=Command,
    examples=["corrigible demo", "corrigible demo --report demo-report", "corrigible demo --json"],
    exits=[1, 17, 130],
)
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write a page with pictures here.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other requests, other weights.")
@click.option("--jobs", type=click.IntRange(1, 8), default=2, show_default=True, help="Processes for the owners.")
@click.pass_obj
def demo(session: Session, report: Path | None, seed: int, jobs: int) -> Report:
    """Show the whole loop in minutes, on the embedded model, with nothing of yours.

    Eight simulated owners with words of their own talk to the model, correct it, and learn through the gate;
    one bad adapter is planted. Their devices then share privately over real Flower processes, and a ninth
    device gets the result. Everything lives in a temporary folder that goes away at the end. Ends with exit
    code 1 when a claim does not hold.
    """
    from cli.demo.claims import claims
    from cli.demo.show import demo_data, words
    from cli.demo.stages import run_demo

    result = run_demo(seed=seed, jobs=jobs, quiet=session.as_json)
    checked = claims(result)
    data = demo_data(result, checked)
    if report is not None:
        from cli.report.demo_page import demo_page
        from cli.report.page import write

        page = write(report, {"index.html": demo_page(result, checked), "demo.json": json.dumps(data, indent=1) + "\n"})
        say(f"The report is in {page}.")
    return Report(data, lambda: words(result, checked), 0 if all(one.holds for one in checked) else INTERNAL)
