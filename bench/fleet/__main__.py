"""``python -m bench.fleet PART [NUMBER]``: memory, throughput, bytes, devices, malformed, light or all.

Every part prints one JSON line. Memory is the highest resident size of a process that holds one round while the link
and the devices are in another, as in a deployment; throughput counts CPU seconds of the server's side alone, ours and
FedAvg in turn in one process.
"""

import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from bench.fleet.apart import apart
from bench.fleet.crowd import MEGABYTE, crowd, frame, hold, keys
from bench.fleet.plain import fedavg_round
from federation.aggregate import RULES, Rule
from federation.protocol import reply_fields, sign_reply
from federation.simulation import LoopGrid

LAYERS, WIDE, KEYS, INNER, RANK = 30, 576, 192, 1536, 8  # a Llama of 135 M parameters


def peak(what: str, replies: int) -> float:
    """MiB a process needs for one round of 1 MB updates: `what` is a rule, or fedavg."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.fleet", "one", what, str(replies)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def one(what: str, replies: int) -> None:
    """One round in this process; print its highest resident size, MiB."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    if what == "fedavg":
        fedavg_round(replies, MEGABYTE // 4)
    elif what != "nothing":
        of = frame(MEGABYTE)
        with apart(lambda: crowd(of, replies)) as (grid, nodes):
            tally = hold(of, grid, nodes, what)  # type: ignore[arg-type]
        if tally.accepted != replies:
            raise RuntimeError(f"{tally.accepted} of {replies} accepted, {tally.rejected}")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(replies: int) -> dict[str, object]:
    """Highest resident size at 100 and at `replies` replies, against FedAvg at 100 and 1,000."""
    ours, theirs = [peak("mean", count) for count in (100, replies)], [peak("fedavg", count) for count in (100, 1000)]
    return {
        "imports_mib": peak("nothing", 0),
        "replies": [100, replies],
        "mean_mib": ours,
        "ratio": round(ours[1] / ours[0], 3),
        "fedavg_replies": [100, 1000],
        "fedavg_mib": theirs,
    }


def rules(replies: int) -> dict[str, object]:
    """Highest resident size of every rule at 50 and at `replies` replies."""
    return {rule: [peak(rule, 50), peak(rule, replies)] for rule in RULES}


def throughput(replies: int) -> dict[str, object]:
    """Replies per CPU second of the server, ours and FedAvg in turn."""
    peers = {
        "fedavg, same bytes": MEGABYTE // 4,
        "fedavg, same coordinates": MEGABYTE,
        "fedavg, full LoRA": 2 * MEGABYTE,
    }
    ours: dict[Rule | str, list[float]] = {name: [] for name in (*RULES, *peers)}
    of = frame(MEGABYTE)
    devices = crowd(of, replies)
    for _ in range(3):
        for rule in RULES:
            begun = time.process_time()
            grid = LoopGrid(devices)
            hold(of, grid, keys(devices), rule)
            ours[rule].append(replies / (time.process_time() - begun - grid.node_seconds))
        for name, floats in peers.items():
            ours[name].append(replies / fedavg_round(replies, floats))
    found = {name: round(median(values)) for name, values in ours.items()}
    ratios = {name: round(found["mean"] / found[name], 2) for name in peers}
    return {"replies": replies, "replies_per_cpu_second": found, "mean_over": ratios}


def sizes() -> dict[str, object]:
    """Bytes of one reply on the wire, ours and FedAvg of the full LoRA, for the same model and rank."""
    linears = {"q": (WIDE, WIDE), "k": (KEYS, WIDE), "v": (KEYS, WIDE), "o": (WIDE, WIDE)}
    linears |= {"gate": (INNER, WIDE), "up": (INNER, WIDE), "down": (WIDE, INNER)}
    dice = np.random.default_rng(1)
    full = {
        f"{layer}.{name}.{half}": Array(
            dice.normal(size=(RANK, inner) if half == "A" else (outer, RANK)).astype(np.float32)
        )
        for layer in range(LAYERS)
        for name, (outer, inner) in linears.items()
        for half in "AB"
    }
    plain = RecordDict({"arrays": ArrayRecord(full), "metrics": MetricRecord({"num-examples": 1})})
    of = frame(LAYERS * RANK * sum(outer for outer, _ in linears.values()))
    (device,) = crowd(of, 1).values()
    reply = sign_reply(of.order, device._payloads[0], device.key)
    ours = RecordDict({"reply": ConfigRecord(dict(reply_fields(reply)))})
    found = {
        name: sum(len(each.deflate()) for each in get_all_nested_objects(content).values())
        for name, content in (("ours", ours), ("fedavg_full_lora", plain))
    }
    objects = {name: len(get_all_nested_objects(content)) for name, content in (("ours", ours), ("plain", plain))}
    return {"bytes": found, "ratio": round(found["ours"] / found["fedavg_full_lora"], 3), "objects": objects}


def devices(count: int) -> dict[str, object]:
    """Three rounds with `count` virtual devices and updates of 64 KB."""
    of = frame(1 << 16)
    everyone = crowd(of, count)
    walls, cpu = [], []
    for _ in range(3):
        begun, used = time.monotonic(), time.process_time()
        grid = LoopGrid(everyone)
        tally = hold(of, grid, keys(everyone))
        if tally.accepted != count:
            raise RuntimeError(f"{tally.accepted} of {count} accepted")
        walls.append(time.monotonic() - begun)
        cpu.append(time.process_time() - used - grid.node_seconds)
    return {"devices": count, "round_seconds": [round(each, 2) for each in walls], "server_cpu": round(median(cpu), 2)}


def malformed(count: int) -> dict[str, object]:
    """One round with `count` hostile replies."""
    from tests.federation.desk import make_fleet
    from tests.federation.test_malformed import flood

    frame(4)
    with tempfile.TemporaryDirectory() as folder:
        seen = flood(make_fleet(Path(folder), values=(0.01, 0.02, 0.03)), count)
    if (seen.rejected.total(), seen.accepted, seen.admitted) != (count, 3, 3):
        raise RuntimeError(f"not all were rejected, or others were: {seen}")
    return {"replies": count, "rejected": dict(seen.rejected), "memory_mb": round(seen.growth / 2**20)}


def light(count: int) -> dict[str, object]:
    """One round with `count` light devices against a real SuperLink."""
    from bench.fleet.links import light_round

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    with tempfile.TemporaryDirectory() as folder:
        return light_round(Path(folder) / "server", count, every=10.0)


PARTS = {
    "memory": (memory, 10_000),
    "rules": (rules, 400),
    "throughput": (throughput, 100),
    "devices": (devices, 1000),
    "malformed": (malformed, 10_000),
    "light": (light, 100),
}


def main() -> None:
    """Run what is asked for."""
    logging.disable(logging.INFO)
    part, *numbers = sys.argv[1:] or ["all"]
    if part == "one":
        one(numbers[0], int(numbers[1]))
        return
    for name, (measure, usual) in PARTS.items():
        if part in (name, "all"):
            print(json.dumps({name: measure(int(numbers[0]) if numbers else usual)}), flush=True)
    if part in ("bytes", "all"):
        print(json.dumps({"bytes": sizes()}), flush=True)


if __name__ == "__main__":
    main()
