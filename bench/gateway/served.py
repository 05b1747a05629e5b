"""The process that is measured: a gateway with an encrypted store, which swaps adapters when told to."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

from store.paths import Home
from store.protectors import KeyFile
from store.records import digest
from store.store import Store
from tests.feedback.micro import adapter
from tests.gateway.running import Running, running

PAUSE = 0.03  # seconds between swaps


def serve(orders: Connection, folder: Path, model: Path) -> None:
    """Tell address and token, then answer each order for so many swaps with what each took; 0 ends it."""
    raw = [adapter(model, rank=4, scale=0.1, seed=seed) for seed in (1, 2, 3)]
    table = {digest(data): (digest(data), data) for data in raw}
    with (
        Store.create(Home.locate(folder / "home"), KeyFile()) as store,
        running(folder, store=store, model=model, adapters=table) as served,
    ):
        orders.send((served.url, served.token))
        while count := orders.recv():
            orders.send([_swap(served, [None, *table][number % 4]) for number in range(count)])


def _swap(served: Running, name: str | None) -> float:
    """Serve another adapter; the milliseconds it took."""
    served.store.activate("personal", name, "bench")
    start = time.perf_counter()
    served.gateway.catalogue.refresh()
    took = (time.perf_counter() - start) * 1e3
    time.sleep(PAUSE)
    return took
