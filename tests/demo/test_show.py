"""The demo's words, JSON and page: complete, self-contained, and without a word of any owner."""

import io
import json
import re
from dataclasses import replace

from rich.console import Console

from cli.demo.claims import claims
from cli.demo.show import demo_data, words
from cli.report.demo_page import demo_page
from tests.demo.sample import BAD, RESULT


def test_the_page_fetches_nothing_and_quotes_nobody() -> None:
    """No script, link or address; names are escaped; no sentence of an owner is in it."""
    page = demo_page(RESULT, claims(RESULT))
    assert not re.search(r"<script|<link|<img|<iframe|src=|href=|url\(|https?://", page)
    assert "&lt;Ada&gt;" in page
    assert "says a secret" not in page
    assert page.count(">holds<") == 11


def test_a_failing_claim_is_marked_on_the_page_and_in_words() -> None:
    """Nobody has to look for it."""
    result = replace(RESULT, lives=tuple(replace(life, personal=BAD) for life in RESULT.lives))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(words(result, claims(result)))
    assert ">FAILS<" in demo_page(result, claims(result))
    assert "FAIL  Owners' requests" in console.export_text()


def test_the_json_form_is_strict_and_quotes_nobody() -> None:
    """No NaN, every claim, every owner, nothing said."""
    text = json.dumps(demo_data(RESULT, claims(RESULT)), allow_nan=False)
    assert len(json.loads(text)["claims"]) == 11
    assert "says a secret" not in text
