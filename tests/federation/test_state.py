"""What a fleet server's state promises, asked of SQLite and of a real PostgreSQL alike."""

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text

from federation.state import FleetState, Node, ReleaseRow, Round
from federation.tables import events, open_engine
from store.errors import CorrigibleError, IntegrityError, NetworkError, UsageError
from tests.federation.postgres import Postgres

NODE = Node(node_id=2**64 - 1, name="ada", device="ab" * 32)
ROUND = Round(
    run="run/0", number=1, begun=10.5, verdict="asked", secret=b"s" * 32, report={"accepted": 3, "seconds": 0.1}
)


@pytest.fixture
def state(state_url: str) -> FleetState:
    """An empty state of each kind."""
    return FleetState.open(state_url)


def test_everything_survives_reopening(state_url: str) -> None:
    """A server that starts again finds devices, rounds, releases, switches and log as they were."""
    row = ReleaseRow(id="sha256:r", number=1, status="staged", percent=10, time=1.5)
    state = FleetState.open(state_url)
    state.enroll(NODE)
    state.begin(ROUND)
    state.set_release(row)
    state.put("halted", "by hand")
    state.log("enrolled", device=NODE.device)
    again = FleetState.open(state_url)
    assert again.nodes() == [NODE]
    assert again.rounds() == [ROUND]
    assert again.releases() == [row]
    assert again.get("halted") == "by hand"
    assert [(event.event, event.facts) for event in again.events()] == [("enrolled", {"device": NODE.device})]


def test_a_key_and_a_node_vote_once(state: FleetState) -> None:
    """Neither a device key nor a node id can be enrolled twice, and a bad key never."""
    state.enroll(NODE)
    for twin in (Node(node_id=9, name="b", device=NODE.device), Node(node_id=NODE.node_id, name="b", device="cd" * 32)):
        with pytest.raises(UsageError, match="enrolled already"):
            state.enroll(twin)
    for key in ("short", "AB" * 32, "zz" * 32):
        with pytest.raises(UsageError, match="64 hex"):
            state.enroll(Node(node_id=9, name="b", device=key))
    assert state.admitted() == {NODE.node_id: NODE.device}


def test_a_revoked_device_has_no_vote_and_cannot_come_back(state: FleetState) -> None:
    """Revocation is for good; an unknown key is an error."""
    state.enroll(NODE)
    state.revoke(NODE.device)
    assert state.admitted() == {}
    assert state.nodes()[0].revoked
    with pytest.raises(UsageError):
        state.enroll(NODE)
    with pytest.raises(UsageError, match="no device"):
        state.revoke("ff" * 32)


def test_a_round_is_on_file_until_its_result_is(state: FleetState) -> None:
    """The newest round without a result is the one to repeat."""
    state.begin(ROUND)
    assert state.unfinished() == ROUND
    state.report("run/0", "collected", {"accepted": 4})
    assert state.unfinished() is not None
    state.report("run/0", "released", {"accepted": 4})
    assert state.unfinished() is None
    assert state.rounds()[0].report == {"accepted": 4}
    with pytest.raises(UsageError):
        state.begin(ROUND)
    with pytest.raises(UsageError):
        state.report("another", "released", {})


def test_a_release_changes_its_status_in_place(state: FleetState) -> None:
    """Staged, promoted, withdrawn: one row."""
    for status, percent in (("staged", 5), ("promoted", 100), ("withdrawn", 0)):
        state.set_release(ReleaseRow(id="r", number=2, status=status, percent=percent, time=1.0))
    assert [(row.status, row.percent) for row in state.releases()] == [("withdrawn", 0)]


def test_numbers_keep_their_last_bit(state: FleetState) -> None:
    """Times and counts come back exactly; NaN is refused."""
    state.begin(
        Round(
            run="r", number=2**31 - 1, begun=1764081234.123456789, verdict="asked", secret=b"", report={"e": 0.1 + 0.2}
        )
    )
    (entry,) = state.rounds()
    assert (entry.number, entry.begun, entry.report["e"]) == (2**31 - 1, 1764081234.123456789, 0.1 + 0.2)
    with pytest.raises(ValueError, match="JSON"):
        state.log("odd", value=float("nan"))


def test_a_switch_is_taken_once(state_url: str) -> None:
    """Of four who ask at once, one gets it."""
    FleetState.open(state_url).put("invitation", "token")
    got: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: got.append(FleetState.open(state_url).take("invitation"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, got)) == ["None", "None", "None", "token"]


HARMS = (
    "update events set event = 'x' where number = 2",
    "update events set time = time + 1 where number = 1",
    "update events set facts = '{}' where number = 3",
    "delete from events where number = 2",
    "delete from events where number = 3",
    "delete from events",
    "update events set number = number + 10",
)


def test_a_changed_log_is_noticed(state_url: str) -> None:
    """No line can be changed, removed or moved behind the server's back."""
    state, engine = FleetState.open(state_url), open_engine(state_url)
    for number in range(3):
        state.log("line", number=number)
    with engine.begin() as connection:
        lines = [dict(line) for line in connection.execute(select(events)).mappings()]
    for harm in HARMS:
        with engine.begin() as connection:
            connection.execute(text(harm))
        with pytest.raises(IntegrityError, match="audit log"):
            state.verify()
        with engine.begin() as connection:
            connection.execute(delete(events))
            connection.execute(insert(events), lines)
        assert state.verify() == 3


def test_the_newest_events_can_be_asked_for(state: FleetState) -> None:
    """The last two of five, oldest first."""
    for number in range(5):
        state.log("line", number=number)
    assert [event.facts["number"] for event in state.events(2)] == [3, 4]


def append(url: str, count: int) -> None:
    """Write lines from another process."""
    state = FleetState.open(url)
    for number in range(count):
        state.log("line", number=number)


def test_writers_queue_and_the_log_stays_whole(state_url: str) -> None:
    """Three processes write at once; every line is there once and the chain holds."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(state_url, 15)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert FleetState.open(state_url).verify() == 45


def test_opening_at_once_makes_one_state(state_url: str) -> None:
    """The first start may happen twice."""
    failures: list[BaseException] = []

    def start() -> None:
        try:
            FleetState.open(state_url).log("started")
        except CorrigibleError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert FleetState.open(state_url).verify() == 4


def test_a_database_that_is_down_loses_nothing(postgres: Postgres) -> None:
    """While the server is away there is one clear error; afterwards everything is there."""
    state = FleetState.open(postgres.new_database())
    state.enroll(NODE)
    state.begin(ROUND)
    postgres.stop()
    try:
        with pytest.raises(NetworkError, match="does not answer") as caught:
            state.rounds()
        assert (caught.value.code, caught.value.exit_code) == ("state_unreachable", 17)
    finally:
        postgres.start()
    assert state.unfinished() == ROUND


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Junk in place of the database is damage, not an empty fleet."""
    (tmp_path / "fleet.db").write_bytes(b"junk" * 5000)
    with pytest.raises(IntegrityError, match="damaged"):
        FleetState.open(f"sqlite:///{tmp_path / 'fleet.db'}")


CRAMPED = """
import resource, sys
from federation.state import FleetState
from store.errors import CorrigibleError
state = FleetState.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
try:
    while True:
        state.log("line", filler="x" * 1000)
except CorrigibleError as error:
    print(error.code)
"""


def test_a_file_that_cannot_grow_is_said_and_keeps_what_it_has(tmp_path: Path) -> None:
    """When the disk takes no more, the line at hand is refused and the lines before it stand."""
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    ended = subprocess.run([sys.executable, "-c", CRAMPED, url], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() in {"disk_full", "io_error"}
    assert FleetState.open(url).verify() > 10


@pytest.mark.parametrize("url", ["", "nonsense", "oracle://x/y", "mysql+pymysql://x/y"])
def test_an_unusable_url_is_wrong_use(url: str) -> None:
    """Only databases whose driver is here can be named."""
    with pytest.raises(UsageError, match="database"):
        FleetState.open(url)
