"""Ways to hold a base compared: ``python -m bench.learner.hold``.

A random model in SmolLM's shape with few words is written as Q8_0 and as Q4_0; every way loads it and takes three steps
on the benchmark's lengths in a process of its own. Memory is what is the process's alone (RssAnon, looked at every
2 ms) beyond the libraries, at most while loading and while stepping; the file's pages, which are shared with whoever
serves them, are left out. Times are processor time: of loading, and of the fastest step.
"""

import sys
import threading
import time
from pathlib import Path
from subprocess import run
from tempfile import TemporaryDirectory

import gguf
import torch

from bench.learner import shapes, steps
from feedback.models import check_model
from learner.base import load_base
from learner.recipe import Hold
from tests.learner import zoo

WAYS: dict[str, tuple[Hold, bool]] = {
    "float32": ("float32", False), "compact": ("compact", False), "int8": ("int8", False),
    "blocks": ("blocks", False), "compact, recomputing": ("compact", True),
    "int8, recomputing": ("int8", True), "blocks, recomputing": ("blocks", True),
}  # fmt: skip
KINDS = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)
SIZES = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3}  # fmt: skip


def main() -> None:
    """Measure every way in turn, or the one that is named with its file."""
    if len(sys.argv) == 3:
        one(sys.argv[1], Path(sys.argv[2]))
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for kind in KINDS:
            zoo.write(zoo.make("smollm", **SIZES), "smollm", path, quantised=kind)
            print(f"{kind.name}, {path.stat().st_size / 2**20:.0f} MiB")
            for way in WAYS:
                run([sys.executable, "-m", "bench.learner.hold", way, str(path)], check=True)


def one(way: str, path: Path) -> None:
    """Load, step, print."""
    hold, recompute = WAYS[way]
    torch.set_num_threads(1)
    small = path.with_name("small.gguf")
    load_base(check_model(zoo.write(zoo.make("llama"), "llama", small)), hold=hold)  # libraries that come late
    model, watch = check_model(path), Watch()
    started = time.process_time()
    base = load_base(model, hold=hold)
    loading, load = time.process_time() - started, watch.most()
    items, seconds = shapes.items(base.model.config.vocab_size), []
    with steps.ours(base, items, recompute=recompute) as step:
        for _ in range(3):
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
    print(f"  {way:20} load {loading:5.2f} s {load:5.0f} MiB   step {min(seconds):5.2f} s {watch.most():5.0f} MiB")


class Watch:
    """The most memory that was this process's alone, MiB beyond what it began with."""

    def __init__(self) -> None:
        self._began = self._most = self._now()
        threading.Thread(target=self._look, daemon=True).start()

    def most(self) -> float:
        """Return the most since the last time."""
        most, self._most = self._most, self._now()
        return most - self._began

    def _look(self) -> None:
        while True:
            self._most = max(self._most, self._now())
            time.sleep(0.002)

    @staticmethod
    def _now() -> float:
        return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
