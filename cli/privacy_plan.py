"""`corrigible privacy plan`: what sharing would cost and bring, before anyone turns it on. Asking spends nothing."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.base import Command
from cli.output import Report, facts, table
from cli.session import Session
from federation.claim import terms
from store.errors import BudgetExhausted
from store.records import Spend

if TYPE_CHECKING:
    from federation.claim import Unit
    from federation.forecast import Forecast, Question

EPSILONS = (1.0, 2.0, 4.0, 8.0)
FLEETS = tuple(4**power for power in range(1, 11))
BAR = 30  # characters


@click.command(
    cls=Command,
    examples=[
        "corrigible privacy plan --epsilon 2 --devices 100",
        "corrigible privacy plan --noise 1.1 --rounds 3",
        "corrigible privacy plan --epsilon 8 --unit device --devices 5000 --picture plan.svg",
    ],
    exits=[10, 11, 12, 13, 14],
)
@click.option("--epsilon", type=click.FloatRange(0, min_open=True), help="Total to stay within; gives the noise.")
@click.option("--noise", type=click.FloatRange(0, min_open=True), help="Noise multiplier; gives the epsilon.")
@click.option("--unit", type=click.Choice(["correction", "device"]), default="correction", show_default=True)
@click.option("--devices", type=click.IntRange(1), default=100, show_default=True, help="That take part.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--corrections", type=click.IntRange(1), default=100, show_default=True, help="A device has, about.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Sampling rate  [default: the fleet's]")
@click.option("--steps", type=click.IntRange(1), help="Steps per round  [default: the fleet's]")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this SVG file.")
@click.pass_obj
def plan(
    session: Session,
    epsilon: float | None,
    noise: float | None,
    unit: "Unit",
    devices: int,
    rounds: int,
    corrections: int,
    rate: float | None,
    steps: int | None,
    picture: Path | None,
) -> Report:
    """What noise, what signal is left, and how many devices until it is useful.

    Counts what is spent already. Refused where the total would pass a cap of yours.
    """
    from federation import standard
    from federation.claim import claim
    from federation.forecast import Question, coordinates, forecast
    from federation.spec import Limits
    from learner.accountant import runs_of

    limits = Limits(**asdict(session.config.privacy))
    with session.store() as store:
        before = runs_of(spend for spend in store.all(Spend) if spend.unit == unit)
    question = Question(
        unit=unit, devices=devices, rounds=rounds, corrections=corrections, delta=limits.delta,
        steps=1 if unit == "device" else steps or standard.STEPS, sampling_rate=rate or standard.SAMPLING_RATE,
        coordinates=coordinates(session.model().path, standard.RANK, standard.LAYERS),
    )  # fmt: skip
    found = forecast(question, epsilon=epsilon, noise=noise, spent=before)
    cap = min(one.epsilon for one in limits.caps(unit))
    if found.epsilon_total > cap:
        raise BudgetExhausted(
            f"This would bring the total to {claim(found.epsilon_total, limits.delta, unit)}; your cap is {cap:g}.",
            hint="More noise, fewer rounds, or a higher cap under [privacy] in the settings.",
        )
    if picture is not None:
        picture.write_text(_picture(question, found), encoding="utf-8")
    data = {
        "noise_multiplier": found.noise_multiplier,
        "sampling_rate": question.sampling_rate,
        "steps": question.steps,
        "rounds": rounds,
        "epsilon_per_round": found.epsilon_round,
        "epsilon_total": found.epsilon_total,
        "cap": cap,
        "delta": limits.delta,
        "unit": unit,
        "devices": devices,
        "corrections": corrections,
        "coordinates": question.coordinates,
        "signal_to_noise": found.signal,
        "useful": found.useful,
        "devices_needed": found.devices_needed,
        "curve": [{"devices": count, "signal_to_noise": value} for count, value in _curve(question, found)],
    }
    return Report(data, lambda: _shown(question, found, cap, picture))


def _curve(question: "Question", found: "Forecast") -> list[tuple[int, float]]:
    """Signal over noise for fleets of growing size."""
    from federation.forecast import signal

    return [(count, signal(question, found.noise_multiplier, count)) for count in FLEETS]


def share(ratio: float) -> float:
    """Per cent of an update's energy that is signal."""
    return 100 * ratio**2 / (1 + ratio**2)


def _shown(question: "Question", found: "Forecast", cap: float, picture: Path | None) -> Any:  # noqa: ANN401 - rich
    """The answer in words and as bars."""
    from rich.console import Group

    from federation.claim import claim

    needed = f"{found.devices_needed:,}" if found.devices_needed else "more than there can be"
    rows = {
        "noise": f"{found.noise_multiplier:.3f} times the clipping norm in every step",
        "a round": claim(found.epsilon_round, question.delta, question.unit),
        "in all": f"{claim(found.epsilon_total, question.delta, question.unit)}; your cap for the same: {cap:g}",
        "signal": f"{found.signal:.2f} of the noise with {question.devices:,} devices of {question.corrections} "
        f"corrections each: {share(found.signal):.0f} % of what arrives",
        "useful": f"{'yes' if found.useful else 'not yet'}; from {needed} devices",
    }
    if question.unit == "device":
        rows["sending"] = "this version refuses: device-level sharing needs a secure sum"
    if picture is not None:
        rows["picture"] = picture.name
    bars = [
        [f"{count:,}", "█" * round(BAR * share(value) / 100) or "·", f"{share(value):.0f} %"]
        for count, value in _curve(question, found)
    ]
    return Group(facts(rows), "", table("devices", "signal in what arrives", "", rows=bars))


def _picture(question: "Question", found: "Forecast") -> str:
    """Share of signal over fleet size, for the noise asked about and for the usual epsilons."""
    from cli.report.charts import Axis, Line, Mark, line_chart
    from cli.report.picture_file import standalone
    from federation.forecast import forecast, signal

    fleets = [2**power for power in range(21)]

    def line(name: str, noise: float, tone: int) -> Line:
        points = tuple((math.log2(count), share(signal(question, noise, count))) for count in fleets)
        return Line(name, points, tone, dashed=not tone)

    lines = [line(f"asked: epsilon {found.epsilon_total:.2g}", found.noise_multiplier, 0)]
    for tone, epsilon in enumerate(EPSILONS, 1):
        noise = forecast(question, epsilon=epsilon, noise=None, spent=()).noise_multiplier
        lines.append(line(f"epsilon {epsilon:g}", noise, tone))
    mark = Mark(min(20.0, math.log2(question.devices)), "adopt" if found.useful else "wait", "this fleet")
    title = (
        f"Signal in what arrives; {question.rounds} rounds, epsilon at delta {question.delta:g} per {question.unit} "
        f"({terms(question.unit)})"
    )
    axis = Axis(20.0, "devices, as a power of two")
    return standalone(line_chart(lines, x=axis, y=Axis(100.0, "signal", " %"), title=title, marks=[mark]), lines)
