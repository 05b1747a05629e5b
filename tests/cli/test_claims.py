"""No epsilon is printed without its delta, unit, adjacency and trust."""

import re
from pathlib import Path

import pytest

from federation.plan import ServerFolder
from store.records import Consent, Egress
from tests.cli.helpers import Call
from tests.cli.test_fleet_commands import empty_release
from tests.cli.test_store_commands import opened, spend
from tests.federation.live import make_server, standard

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?:epsilon|ε)\s+[\d.]+")
WHOLE = re.compile(r"epsilon [\d.]+ at delta \S+ per (\w+) \(add or remove one \1; noise .*?trusted\)")
MADE_ELSEWHERE = {  # where words and epsilon are put together by hand, and why that is right
    "federation/claim.py": "the one place",
    "cli/privacy_plan.py": "names of the lines of a picture whose title says the rest",
    "cli/report/demo_page.py": "a tile whose other two lines say the rest",
    "federation/privacy.py": "a target that no noise can meet, with its delta",
    "learner/accountant.py": "the same",
    "bench/privacy/page.py": "names of the lines of a picture whose title says the rest",
    "feedback/page/privacy.js": "a receipt, with delta and unit beside it, under the same list",
    "feedback/page/phrases.js": "the budget, above a list of unit, adjacency, trust and delta",
}


def unlabelled(text: str) -> list[str]:
    """Every epsilon in `text` that stands alone."""
    joined = " ".join(text.split())
    return NUMBER.findall(WHOLE.sub("", joined))


@pytest.fixture
def sharing(ready: Call, home: Path) -> Call:
    """A device that has shared once."""
    with opened(home) as store:
        paid = spend(0)
        consent = Consent(purpose="share", granted=True, destination="fleet", time=1.0)
        left = Egress(
            purpose="share", destination="fleet", consent=consent.id, size=9, payload=paid.payload, epsilon=6.0,
            time=2.0,
        )  # fmt: skip
        store.add_all([consent, paid, left])
    return ready


@pytest.mark.parametrize(
    "words",
    [("status",), ("privacy", "status"), ("doctor",)],
    ids=" ".join,
)
def test_every_epsilon_of_a_device_is_whole(sharing: Call, words: tuple[str, ...]) -> None:
    """Each command says one, and says all that belongs to it."""
    said = sharing(*words).out
    assert WHOLE.search(" ".join(said.split()))
    assert unlabelled(said) == []


def test_a_plan_and_a_refusal_are_whole(ready: Call, home: Path) -> None:
    """What a fleet would cost; and, with the budget spent, why it may not be: exit 14."""
    plan = ("privacy", "plan", "--epsilon", "1", "--devices", "9")
    said = ready(*plan).out
    assert len(WHOLE.findall(" ".join(said.split()))) == 2
    assert unlabelled(said) == []
    with opened(home) as store:
        store.add_all([spend(0), spend(1)])
    refused = ready("privacy", "plan", "--noise", "5")
    assert refused.code == 14
    assert WHOLE.search(" ".join(refused.err.split()))
    assert unlabelled(refused.err) == []


def test_the_tables_say_it_once_for_all_their_rows(sharing: Call, tmp_path: Path) -> None:
    """The ledger, and the page of the report."""
    said = " ".join(sharing("privacy", "ledger").out.split())
    for words in ("epsilon per correction", "add or remove one correction", "not trusted", "1e-06"):
        assert words in said
    assert sharing("report", "--to", str(tmp_path / "page")).code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "epsilon at delta 1e-06 per correction (add or remove one correction; noise on the device" in page
    assert unlabelled(re.sub("<[^>]*>", " ", page)) == []


def test_every_epsilon_of_a_server_is_whole(ready: Call, tmp_path: Path) -> None:
    """Status and releases."""
    folder: ServerFolder = make_server(tmp_path / "server", standard())[0]
    empty_release(folder)
    for words in (("status",), ("release", "show", "0")):
        said = ready("fleet", *words, "--server", str(folder.root)).out
        assert WHOLE.search(" ".join(said.split()))
        assert unlabelled(said) == []
    listed = " ".join(ready("fleet", "release", "list", "--server", str(folder.root)).out.split())
    assert "epsilon at delta 1e-06 per correction (add or remove one correction; noise" in listed


def test_no_other_file_puts_an_epsilon_into_words() -> None:
    """A new message uses `federation.claim`."""
    rooms = ("cli", "federation", "feedback", "learner", "store", "tools", "bench")
    found = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".js", ".html") and re.search(r"(epsilon|ε) \$?\{[^_]", path.read_text())
    }
    assert found == set(MADE_ELSEWHERE)
