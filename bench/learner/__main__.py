"""Training steps compared: ``python -m bench.learner [smol|embedded ...] [--threads N] [--rounds N]``.

Ways and shapes are those of `steps` and `shapes`. Times are processor time, interleaved in one process, the least of
the rounds, since the machine may be shared. Peak memory is that of a process of its own for each way, two steps long.
The share of the peak counts multiplications that cannot be avoided (the frozen matrices forward and backward on
unpadded tokens, the head at answers) against the fastest multiplication seen in the same run and type.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from bench.learner import shapes, steps
from learner.base import Base
from learner.encode import Encoded

Shape = Callable[[torch.dtype], tuple[Base, list[Encoded]]]
SHAPES: dict[str, Shape] = {"smol": shapes.smol, "embedded": shapes.embedded}
PLAIN = {
    "PEFT float32": (torch.float32, steps.peft_plain),
    "PEFT bfloat16": (torch.bfloat16, steps.peft_plain),
    "ours": (torch.float32, steps.ours),
}
PRIVATE = {
    "Opacus hooks": (torch.float32, steps.opacus_hooks),
    "Opacus ghost clipping": (torch.float32, steps.opacus_ghost),
    "ours, private": (torch.float32, steps.ours_private),
}
WAYS = PLAIN | PRIVATE


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    if options.memory_of:
        print(json.dumps(_own_peak(options.shapes[0], options.memory_of)))
        return
    for name in options.shapes:
        _report(name, options.threads, _seconds(name, options.rounds), {way: _peak(name, way) for way in WAYS})


def _seconds(name: str, rounds: int) -> dict[str, float]:
    """Least processor seconds of a step of each way, and of one GFLOP of multiplication in each type."""
    bases = {dtype: SHAPES[name](dtype) for dtype in (torch.float32, torch.bfloat16)}
    least: dict[str, float] = {}
    for number in range(rounds + 1):
        for way, (dtype, enter) in WAYS.items():
            for kind in (torch.float32, torch.bfloat16):
                _lower(least, str(kind), _gflop(kind))
            with ExitStack() as stack:
                step = stack.enter_context(enter(*bases[dtype]))
                started = time.process_time()
                step()
                if number:  # the first round warms up
                    _lower(least, way, time.process_time() - started)
    return least


def _lower(least: dict[str, float], name: str, seconds: float) -> None:
    """Keep the lower time."""
    least[name] = min(least.get(name, seconds), seconds)


def _gflop(dtype: torch.dtype) -> float:
    """Processor seconds of 10^9 operations."""
    x, weight = torch.ones(512, 576, dtype=dtype), torch.ones(576, 576, dtype=dtype)
    found = []
    for _ in range(10):
        started = time.process_time()
        x @ weight.t()
        found.append(time.process_time() - started)
    return min(found) / (2 * 512 * 576 * 576 / 1e9)


def _work(base: Base, items: list[Encoded]) -> tuple[int, float]:
    """Tokens of a batch, and the GFLOP that cannot be avoided."""
    tokens, answers = sum(len(item.tokens) for item in items), sum(len(item.weights) for item in items)
    matrices = sum(out * wide for out, wide in base.geometry.shapes.values())
    return tokens, 4 * (matrices * tokens + base.model.get_output_embeddings().weight.numel() * answers) / 1e9


def _peak(name: str, way: str) -> float:
    """Peak resident MiB of a child process that does two steps."""
    command = [sys.executable, "-m", "bench.learner", name, "--memory-of", way]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _own_peak(name: str, way: str) -> float:
    """Peak resident MiB of this process after two steps."""
    dtype, enter = WAYS[way]
    with enter(*SHAPES[name](dtype)) as step:
        step()
        step()
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory, from before exec
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _report(name: str, threads: int, seconds: dict[str, float], peaks: dict[str, float]) -> None:
    """Print one table."""
    base, items = SHAPES[name](torch.float32)
    tokens, work = _work(base, items)
    per_gflop = {kind: seconds[str(kind)] for kind in (torch.float32, torch.bfloat16)}
    speeds = ", ".join(f"{str(kind)[6:]} {1 / cost:.0f}" for kind, cost in per_gflop.items())
    print(f"{name}: {len(items)} examples, {tokens} tokens, {threads} thread(s); peak GFLOP/s: {speeds}")
    for way in WAYS:
        mine = "ours" if way in PLAIN else "ours, private"
        kind = base.fast_dtype if way == mine else WAYS[way][0]
        faster, smaller = seconds[way] / seconds[mine], peaks[mine] / peaks[way]
        ratios = "" if way == mine else f"ours {faster:.1f}x as fast, {smaller:.2f}x the memory"
        share = work * per_gflop[kind] / seconds[way]
        print(
            f"  {way:22} {seconds[way]:8.3f} s {tokens / seconds[way]:8.0f} tokens/s {peaks[way]:7.0f} MiB "
            f"{share:5.0%} of peak  {ratios}"
        )


if __name__ == "__main__":
    main()
