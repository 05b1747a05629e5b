"""Plain Flower FedAvg over the same link, for comparison: full-precision arrays, all replies in memory."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from federation.simulation import LoopGrid


def fedavg_round(devices: int, floats: int) -> float:
    """One round of FedAvg with `floats` float32 a device; return the server's CPU seconds."""
    arrays = ArrayRecord({"w": Array(np.ones(floats, np.float32))})
    metrics = MetricRecord({"num-examples": 1})

    def answer(message: Message) -> Message:
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    grid = LoopGrid(dict.fromkeys(range(1, devices + 1), answer), at_once=None)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices)
    begun = time.process_time()
    start = ArrayRecord({"w": Array(np.zeros(4, np.float32))})
    asked = list(strategy.configure_train(1, start, ConfigRecord({}), grid))
    replies = list(grid.send_and_receive(asked, timeout=600.0))
    merged, _ = strategy.aggregate_train(1, replies)
    if merged is None or len(replies) != devices:
        raise RuntimeError("FedAvg did not aggregate")
    return time.process_time() - begun - grid.node_seconds
