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
from learner.private import PrivateSpec, backward, prepared, run_mechanism
from store.records import Example, Message

SPEC = PrivateSpec(
    clipping_norm=0.5, noise_multiplier=1.0, sampling_rate=1.0, steps=1, divisor=32.0, learning_rate=0.1,
    rank=8, alpha=16.0, seed_a=1, layers=99,
)  # fmt: skip

Measured = tuple[float, float]  # milliseconds of CPU, megabytes at the peak


def private(base: Base, items: list[Encoded]) -> Measured:
    """One step of the mechanism: per-example gradients, clipping, noise, move."""
    start = fresh(LoraSpec(SPEC.rank, SPEC.alpha, SPEC.seed_a), base.geometry)
    with prepared(base, SPEC, start=start) as (held, optimizer):
        everyone = lambda units, _rate: list(range(units))  # noqa: E731
        return measured(lambda: run_mechanism(optimizer, len(items), backward(held, items), SPEC, draw=everyone))


def plain(base: Base, items: list[Encoded], *, hasten: bool) -> Measured:
    """One step of SGD on the sum of the same losses."""
    with attached(base, LoraSpec(SPEC.rank, SPEC.alpha, SPEC.seed_a, freeze_a=not hasten)) as held:
        if hasten:
            held.hasten(private_dtype(base.fast_dtype))
        optimizer = torch.optim.SGD(held.parameters(), lr=SPEC.learning_rate)

        def step() -> None:
            backward(held, items)(list(range(len(items))))
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
    options = parser.parse_args(words)
    base = load_base(check_model(options.model))
    pairs = probe_pairs(embedded_model())[:32]
    examples = [Example(messages=(Message("user", asked),), answer=said, rejected="") for asked, said in pairs]
    items = encode_all(base, examples, max_tokens=512)
    kinds: dict[str, Callable[[], Measured]] = {
        "private": lambda: private(base, items),
        "non-private, as the learner's": lambda: plain(base, items, hasten=True),
        "non-private, PEFT, A frozen": lambda: plain(base, items, hasten=False),
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
