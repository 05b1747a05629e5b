"""Training steps compared: ``python -m bench.learner [smol] [embedded] [--ways WORD ...] [--threads N] [--rounds N]``.

Ways and shapes are those of `steps` and `shapes`, interleaved in one process. Times are processor time of a second
step, which has its memory from the first; the least of the rounds, since the machine may be shared. Memory is that of
the interpreter with its libraries, the way's own base weights, and the most that setting up and two steps added; a base
in its file counts with the file's pages, which are in memory once however many programs map them. The share of the peak
counts multiplications that cannot be avoided (the frozen matrices forward and backward on unpadded tokens, the head at
answers) against the fastest multiplication of the same run in the type that the way holds; for whole numbers of 8 bits
that is the floating type beside them.
"""

import argparse
import ctypes
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from bench.learner import shapes, steps
from learner.base import Base
from learner.encode import Encoded
from learner.fast import fastest_dtype
from learner.recipe import Hold

Key = TypeVar("Key")
Batch = tuple[Base, list[Encoded]]
Shape = Callable[[torch.dtype, Hold], Batch]
Bases = dict[tuple[torch.dtype, Hold], Batch]
Way = tuple[torch.dtype, Hold, Callable[[Base, list[Encoded]], AbstractContextManager[steps.Step]]]
SHAPES: dict[str, Shape] = {"smol": shapes.smol, "embedded": shapes.embedded}
TURNS = 15  # multiplications timed at once: the time of another thread is known to a tick of the system only
KINDS = (torch.float32, torch.bfloat16)
FAST = fastest_dtype()  # ours hold the base in it, as a device does
PLAIN: dict[str, Way] = {
    "PEFT float32": (torch.float32, "compact", steps.peft_plain),
    "PEFT bfloat16": (torch.bfloat16, "compact", steps.peft_plain),
    "ours": (FAST, "fast", steps.ours),
    "ours, bfloat16": (FAST, "compact", steps.ours),
    "ours, base in its file": (FAST, "blocks", steps.ours),
}
PRIVATE: dict[str, Way] = {
    "Opacus hooks": (torch.float32, "compact", steps.opacus_hooks),
    "Opacus ghost clipping": (torch.float32, "compact", steps.opacus_ghost),
    "ours, private": (FAST, "fast", steps.ours_private),
    "ours, private, bfloat16": (FAST, "compact", steps.ours_private),
    "ours, private, base in its file": (FAST, "blocks", steps.ours_private),
}
WAYS = PLAIN | PRIVATE


@dataclass
class Least:
    """The lowest figures seen, by way or type."""

    seconds: dict[str, float] = field(default_factory=dict)
    mebibytes: dict[str, float] = field(default_factory=dict)
    gflop: dict[torch.dtype, float] = field(default_factory=dict)  # seconds of one


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="those whose name holds one of these words")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    idle = _status("VmRSS")
    ways = [way for way in WAYS if any(word in way for word in options.ways)]
    for name in options.shapes:
        bases = {held: SHAPES[name](*held) for held in {WAYS[way][:2] for way in ways}}
        least = Least()
        for _ in range(options.rounds):
            for way in ways:
                _measure(way, bases, idle, least)
        _report(name, options.threads, next(iter(bases.values())), least)


def _measure(way: str, bases: Bases, idle: float, least: Least) -> None:
    """Take two steps of `way` after one of the peaks of each type."""
    for kind in KINDS:
        _lower(least.gflop, kind, _gflop(kind))
    *held, enter = WAYS[way]
    base, items = bases[held[0], held[1]]
    weights = _weights(base)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    with enter(base, items) as step:
        step()
        started = time.process_time()
        step()
        _lower(least.seconds, way, time.process_time() - started)
    _lower(least.mebibytes, way, idle + weights + _status("VmHWM") - before)


def _weights(base: Base) -> float:
    """MiB of a base's own weights; the pages of its file are read here, lest they count as added."""
    storages = (parameter.untyped_storage() for parameter in base.model.parameters())
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for rows in shapes.filed(base):
        rows.max()
    return (sum(sizes.values()) + sum(rows.nbytes for rows in shapes.filed(base))) / 2**20


def _lower(least: dict[Key, float], name: Key, value: float) -> None:
    """Keep the lower value."""
    least[name] = min(least.get(name, value), value)


def _gflop(dtype: torch.dtype) -> float:
    """Processor seconds of 10^9 operations."""
    x, weight = torch.ones(512, 576, dtype=dtype), torch.ones(576, 576, dtype=dtype)
    found = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(TURNS):
            x @ weight.t()
        found.append(time.process_time() - started)
    return min(found) / (TURNS * 2 * 512 * 576 * 576 / 1e9)


def _status(key: str) -> float:
    """A figure of this process in MiB."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) / 1024


def _report(name: str, threads: int, batch: Batch, least: Least) -> None:
    """Print one table."""
    base, items = batch
    tokens, answers = sum(len(item.tokens) for item in items), sum(len(item.weights) for item in items)
    matrices = sum(out * wide for out, wide in base.geometry.shapes.values())
    work = 4 * (matrices * tokens + base.model.get_output_embeddings().weight.numel() * answers) / 1e9
    speeds = ", ".join(f"{str(kind)[6:]} {1 / cost:.0f}" for kind, cost in least.gflop.items())
    print(f"{name}: {len(items)} examples, {tokens} tokens, {threads} thread(s); peak GFLOP/s: {speeds}")
    for way, seconds in least.seconds.items():
        mine = "ours" if way in PLAIN else "ours, private"
        kind = WAYS[way][0]
        line = f"  {way:32} {seconds:8.3f} s {tokens / seconds:7.0f} tokens/s {least.mebibytes[way]:6.0f} MiB"
        line += f" {work * least.gflop[kind] / seconds:5.0%} of peak"
        if way != mine and mine in least.seconds:
            faster, smaller = seconds / least.seconds[mine], least.mebibytes[mine] / least.mebibytes[way]
            line += f"  ours {faster:.1f}x as fast, {smaller:.2f}x the memory"
        print(line)


if __name__ == "__main__":
    main()
