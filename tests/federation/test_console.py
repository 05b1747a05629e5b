"""The operator's page and the metrics, from figures alone: pictures also in words, names never as markup."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from federation.charter import Charter
from federation.console import page
from federation.metrics import exposition
from federation.overview import Overview, ReleaseView
from federation.server import HALTED
from federation.state import FleetState, Node, ReleaseRow, Round


def release(number: int, status: str = "promoted", rollout: int = 100) -> ReleaseView:
    """One release as it is shown."""
    return ReleaseView(
        id=f"sha256:{number:064x}", round=number, parent=None, cohort=20 + number, epsilon=1.0,
        epsilon_total=1.7 * number**0.5, status=status, rollout=rollout, time=0.0,
    )  # fmt: skip


def view(**changes: object) -> Overview:
    """A fleet after three rounds."""
    rounds = [
        {"round": n, "verdict": "released", "begun": 0.0, "accepted": 20 + n, "declined": {"budget": 2}, "missing": 1,
         "rejected": {"signature": n, "norm": 1}}
        for n in (1, 2, 3)
    ]  # fmt: skip
    fields = {
        "fleet": "sha256:" + "ab" * 32, "base": "sha256:" + "cd" * 32, "delta": 1e-6, "unit": "correction",
        "epsilon_total": 3.21, "halted": False, "enrolled": 30, "revoked": 2, "rounds": rounds,
        "rejects": {"signature": 6, "norm": 3},
        "releases": [release(0), release(1), release(2, "withdrawn"), release(3, "staged", 25)], "audit": 41,
        "audit_whole": True,
    }  # fmt: skip
    return Overview(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_page_shows_rounds_refusals_epsilon_and_reach() -> None:
    """Four pictures' worth of words; a changed log and a halt are said out loud."""
    text = page(Charter(operator="Ward 7"), view())
    for words in (
        "3: 23 accepted, 2 declined, 4 rejected, 1 missing",
        "signature: 6, norm: 3",
        "last value 2.944",
        "3.21",
        "25 % of devices",
        "round 3: 25, round 2: 0, round 1: 100",
        "withdrawn",
        "41 entries, whole",
    ):
        assert words in text
    changed = page(Charter(operator="Ward 7"), view(halted=True, audit_whole=False))
    assert "(halted)" in changed
    assert "CHANGED" in changed


def test_an_empty_fleet_has_a_page_too() -> None:
    """Before the first round."""
    text = page(Charter(operator="x"), view(rounds=[], rejects={}, releases=[]))
    assert "No round yet." in text
    assert "Nothing yet." in text


def test_names_are_never_markup() -> None:
    """Neither the operator's nor a reason's."""
    text = page(Charter(operator="<script>x</script>"), view(rejects={"<b>": 1}))
    assert "<script" not in text
    assert "<b>:" not in text


def test_the_metrics_are_what_the_state_holds(tmp_path: Path) -> None:
    """Every family parses; counts by reason add up over rounds; a halt is 1."""
    state = FleetState.open(f"sqlite:///{tmp_path}/fleet.db")
    state.enroll(Node(node_id=2**63 + 5, name="ada", device="a" * 64))
    state.set_release(ReleaseRow(id="sha256:1", number=1, status="staged", percent=25, time=0.0))
    for number in (1, 2):
        report = {"accepted": 3, "missing": 1, "bytes_in": 100, "declined": {"budget": 1}, "rejected": {"norm": 2}}
        entry = Round(run=f"r{number}", number=number, begun=1.0, verdict="asked", secret=b"x", report={})
        state.begin(entry)
        state.report(entry.run, "released", report)
    state.put(HALTED, "yes")
    text = exposition(state, {("pull-messages", 200): 7}).decode()
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["corrigible_updates_total", "norm", "rejected"] == 4
    assert found["corrigible_updates_total", "", "accepted"] == 6
    assert found["corrigible_update_bytes_total",] == 200
    assert found["corrigible_rounds_total", "released"] == 2
    assert found["corrigible_devices", "enrolled"] == 1
    assert found["corrigible_release_rollout_percent", "1", "staged"] == 25
    assert found["corrigible_halted",] == 1
    assert found["corrigible_front_answers_total", "200", "pull-messages"] == 7
