"""The replay's page and tables: complete, self-contained, and saying what was measured."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli.report.page import write
from cli.report.replay_page import replay_page
from cli.report.replay_tables import ReplayMeta, arms_table, duration, error_table, learning_table, replay_data
from learner.replay_metrics import Check, Outcome, Run, UserReplay
from store.errors import UsageError

META = ReplayMeta("log<b>.jsonl", "base.gguf", "sha256:" + "ab" * 32, 50, True, 7, "old.jsonl", 300, 2, 61.2)


def _replay(name: str, length: int) -> UserReplay:
    outcomes = tuple(
        Outcome(request=f"{i % 20}", off=i % 2 == 0, on=i % 2 == 0 or i > length / 2, first=i < 20)
        for i in range(length)
    )
    run = Run(length // 2, "adopt", "proven", 12.0, 4.0, 20.0, 24, 3.5)
    checks = (Check(0, 60.0), Check(length // 2, 59.5))
    return UserReplay(name, outcomes, (run, replace(run, decision="wait")), checks, 1, 0, 2.0, 7.0)


REPLAYS = [_replay("ann", 40), _replay("<bob>", 200)]


class _Links(HTMLParser):
    """Collects whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "img", "object", "embed", "base", "form"}:
            self.found.append(tag)
        self.found += [
            f"{name}={value}" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}
        ]


def test_the_page_fetches_and_runs_nothing() -> None:
    """No script, no link, no image, no import, no url() in the style, and a policy that forbids them all."""
    page = replay_page(REPLAYS, META)
    links = _Links()
    links.feed(page)
    assert links.found == []
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_the_page_shows_every_user_and_both_arms() -> None:
    """Names are escaped, both arms are named, and each user has a picture."""
    page = replay_page(REPLAYS, META)
    assert "&lt;bob&gt;" in page
    assert "<bob>" not in page
    assert "without learning" in page
    assert "with learning" in page
    assert page.count('<svg class="chart"') == 4 + len(REPLAYS)


def test_with_learning_off_there_is_one_arm_only() -> None:
    """The page makes no claim on learning that did not happen."""
    page = replay_page(REPLAYS, replace(META, learning=False))
    assert "with learning" not in page.replace("with learning off", "")
    assert "without learning" in page


def test_the_table_has_a_row_for_each_user_and_one_for_all() -> None:
    """Pooled counts are the sums of the users' counts."""
    table = error_table(REPLAYS, META)
    assert [row[0] for row in table.rows] == ["ann", "<bob>", "together"]
    assert [row[1] for row in table.rows] == ["40", "200", "240"]
    assert table.rows[0][3] == "50.0 → 25.0"
    assert learning_table(REPLAYS).rows[2][1:5] == ("4", "2", "2", "0")


def test_the_json_form_is_strict_and_holds_the_course_of_each_user() -> None:
    """No NaN or infinity, and one digit per request and arm."""
    data = json.loads(json.dumps(replay_data(REPLAYS, META), allow_nan=False))
    assert len(data["users"]["ann"]["right"]["on"]) == 40
    assert data["together"]["decisions"] == {"adopt": 2, "wait": 2, "reject": 0}
    assert data["users"]["ann"]["regression"] == {"before": 60.0, "after": 59.5, "lowest": 59.5}


def test_a_report_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    """A file in the way is told as such."""
    (tmp_path / "report").write_text("")
    with pytest.raises(UsageError) as caught:
        write(tmp_path / "report", {"index.html": ""})
    assert caught.value.code == "unwritable"


@pytest.mark.parametrize(("seconds", "words"), [(1.25, "1.2 s"), (75, "75 s"), (720, "12 min")])
def test_durations_read_naturally(seconds: float, words: str) -> None:
    """Seconds up to ten minutes, minutes above."""
    assert duration(seconds) == words


def test_past_answers_in_the_prompt_are_shown_where_they_were_asked_for() -> None:
    """A table and lines of four ways; without learning only the base's two; none when nobody asked."""
    asked = [
        replace(one, outcomes=tuple(replace(o, retrieval=o.on, both=True) for o in one.outcomes)) for one in REPLAYS
    ]
    meta = replace(META, retrieve=3)
    assert [row[:2] for row in arms_table(asked, meta).rows] == [
        ("without learning", "50.0"), ("with learning", "25.0"), ("past answers in the prompt", "25.0"),
        ("both", "0.0"),
    ]  # fmt: skip
    assert [row[0] for row in arms_table(asked, replace(meta, learning=False)).rows] == [
        "without learning", "past answers in the prompt",
    ]  # fmt: skip
    assert "past answers in the prompt" in replay_page(asked, meta)
    assert "past answers in the prompt" not in replay_page(REPLAYS, META)
    assert replay_data(asked, meta)["together"]["both"]["error"]["percent"] == 0.0
