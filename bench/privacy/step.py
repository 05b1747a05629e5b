"""Time and peak memory of a private step against non-private steps of the same loop on the same batch, interleaved.

Non-private are two: the step the personal adapter is trained with (A and B learn, `Attached.hasten`, in the private
step's type), and PEFT's own forward with A frozen as in private training. Peak memory is the process's high-water mark
during the step.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.encode import Encoded, encode_all
from learner.fast import private_dtype
from learner.lora import LoraSpec, attached, fresh
from learner.private import MICROBATCH, PrivateSpec, backward, prepared, run_mechanism
from store.records import Example, Message

Measured = tuple[float, float]  # milliseconds of CPU, megabytes at the peak


def mechanism(rank: int) -> PrivateSpec:
    """One step over everything."""
    return PrivateSpec(
        clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=1.0, steps=1, divisor=32.0, learning_rate=0.1,
        rank=rank, alpha=2.0 * rank, seed_a=1, layers=99,
    )  # fmt: skip


def private(base: Base, items: list[Encoded], spec: PrivateSpec) -> Measured:
    """One step of the mechanism: per-example gradients, clipping, noise, move."""
    start = fresh(LoraSpec(spec.rank, spec.alpha, spec.seed_a), base.geometry)
    with prepared(base, spec, start=start) as (held, optimizer):
        everyone = lambda units, _rate: list(range(units))  # noqa: E731
        return measured(lambda: run_mechanism(optimizer, len(items), backward(held, items), spec, draw=everyone))


def plain(base: Base, items: list[Encoded], spec: PrivateSpec, *, hasten: bool) -> Measured:
    """One step of SGD on the sum of the same losses."""
    with attached(base, LoraSpec(spec.rank, spec.alpha, spec.seed_a, freeze_a=not hasten)) as held:
        if hasten:
            held.hasten(private_dtype(base.fast_dtype))
        optimizer = torch.optim.SGD(held.parameters(), lr=spec.learning_rate)

        def step() -> None:
            for first in range(0, len(items), MICROBATCH):
                backward(held, items)(range(first, min(first + MICROBATCH, len(items))))
            optimizer.step()
            optimizer.zero_grad()

        return measured(step)


def measured(step: Callable[[], None]) -> Measured:
    """Run once; return CPU time and the high-water mark of memory."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    begun = time.process_time()
    step()
    spent = 1000 * (time.process_time() - begun)
    status = Path("/proc/self/status").read_text()
    return spent, int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.privacy step", description=__doc__)
    parser.add_argument("--model", type=Path, default=embedded_model())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--examples", type=int, default=32, help="of the one step")
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args(words)
    base = load_base(check_model(options.model))
    pairs = probe_pairs(embedded_model())[: options.examples]
    examples = [Example(messages=(Message("user", asked),), answer=said, rejected="") for asked, said in pairs]
    items = encode_all(base, examples, max_tokens=512)
    spec = mechanism(options.rank)
    kinds: dict[str, Callable[[], Measured]] = {
        "private": lambda: private(base, items, spec),
        "non-private, as the learner's": lambda: plain(base, items, spec, hasten=True),
        "non-private, PEFT, A frozen": lambda: plain(base, items, spec, hasten=False),
    }
    found: dict[str, list[Measured]] = {name: [] for name in kinds}
    for number in range(options.rounds + 1):
        for name, kind in kinds.items():
            got = kind()
            if number:  # the first of each warms up
                found[name].append(got)
    figures = {name: [statistics.median(part) for part in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (cpu, peak) in figures.items():
        ratio = figures["private"][0] / cpu, figures["private"][1] / peak
        compared = f"private is {ratio[0]:.2f}x time, {ratio[1]:.2f}x memory"
        print(f"{name:32} {cpu:8.1f} ms CPU {peak:8.1f} MB peak; {compared}")
    return 0
