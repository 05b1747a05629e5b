"""Server-sent code on a device: bundles of every make, each started as a run against a real SuperNode. None may run.

Every bundle's client half, and whatever it shadows, would leave a file behind when imported. The device answers a bare
refusal, since none of these runs carries an order that the fleet signed.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from federation.control import BUNDLE, control
from federation.door import Door
from federation.keeper import Keeper
from federation.member import Seat, crew
from feedback.models import embedded_model
from store.keys import unlock
from store.paths import Home
from store.protectors import KeyFile
from store.records import Consent
from store.store import Store
from tests.federation.live import serving, standard
from tools.torture.common import Outcome

PATIENCE = 300.0

SERVER = """
import time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    order = RecordDict({"order": ConfigRecord({"body": b"{}", "signature": bytes(64)})})
    replies = grid.send_and_receive([Message(order, node, "train") for node in nodes], timeout=120)
    open(ANSWERS, "a").write("".join(f"{one.has_error()}\\n" for one in replies))
"""
TOUCH = "open(MARK, 'a').write(__name__ + '\\n')\n"
ENTRIES = ("corrigible_round.client:app", "federation.client_app:app", "os:system", "sitecustomize:app")
SHADOWS = (
    "corrigible_round/client.py",
    "federation/__init__.py",
    "federation/worker.py",
    "sitecustomize.py",
    "flwr/__init__.py",
)


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Start `cycles` runs with tampered bundles and look for what they left."""
    del seed
    outcome = Outcome("bundles")
    mark, answers = folder / "mark", folder / "answers"
    biting = sum(_bites(folder, number) for number in range(cycles))
    with serving(folder / "server", standard()) as live:
        home = Home.at(folder / "device").create()
        place = live.join(home.data / "fleet")
        store = Store.create(home, KeyFile())
        store.add(Consent(purpose="share", granted=True, destination=place.fleet, time=time.time()))
        scratch = place.folder / "processes"
        scratch.mkdir()
        seat = Seat(home.root, unlock(home).export(), place, embedded_model())
        door = Door.of(store, place)
        keeper = crew(seat, scratch, door, lambda _name, _what: None)
        try:
            with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
                _until(lambda: bool(operator.online()), keeper, live.server.keeper)
                for number in range(cycles):
                    run_id = operator.start(live.folder.plan, tampered(number, mark, answers))
                    _until(
                        lambda run_id=run_id: operator.state(run_id).startswith("finished"), keeper, live.server.keeper
                    )
                    outcome.add(f"run {operator.state(run_id)}")
                    outcome.cycles += 1
        finally:
            keeper.close()
            door.close()
            store.close()
        unpacked = list(scratch.rglob("apps/*"))
    executed = mark.read_text().splitlines() if mark.exists() else []
    outcome.add("executed", len(executed))
    outcome.add("unpacked", len(unpacked))
    outcome.add("answered with a refusal", answers.read_text().count("True") if answers.exists() else 0)
    outcome.add("would leave a mark if imported", biting)
    if biting < cycles:
        outcome.bad.append("a bundle would leave no mark: nothing is proved")
    if executed or unpacked:
        outcome.bad.append(f"{len(executed)} executed, {len(unpacked)} unpacked on the device")
    return outcome


def tampered(number: int, mark: Path, answers: Path) -> dict[str, bytes]:
    """Return the `number`-th bundle: another entry, and a file in it that shadows something installed."""
    entry, shadow = ENTRIES[number % len(ENTRIES)], SHADOWS[number % len(SHADOWS)]
    project = BUNDLE["pyproject.toml"].decode().replace("corrigible_round.client:app", entry)
    touch = TOUCH.replace("MARK", json.dumps(str(mark)))
    files = {**BUNDLE, "pyproject.toml": project.encode(), "corrigible_round/client.py": touch.encode()}
    files["corrigible_round/server.py"] = SERVER.replace("ANSWERS", json.dumps(str(answers))).encode()
    return {**files, shadow: f"# {number}\n{touch}".encode()}


def _bites(folder: Path, number: int) -> bool:
    """Unpack a bundle and import its client, as a stock executor would; say whether that is seen."""
    place, mark = folder / f"bait{number}", folder / f"bitten{number}"
    for name, data in tampered(number, mark, folder / "none").items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    subprocess.run([sys.executable, "-S", "-c", "import corrigible_round.client"], cwd=place, env={}, check=True)
    return mark.exists()


def _until(ready, *keepers: Keeper) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Wait, keeping the processes alive."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError
        for keeper in keepers:
            keeper.tend()
        time.sleep(1)
