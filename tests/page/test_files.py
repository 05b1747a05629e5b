"""The page's files: small, self-contained, without a way to run text as code, complete in both languages."""

import re
from importlib.resources import files

import pytest

PAGE = {part.name: part.read_text(encoding="utf-8") for part in (files("feedback") / "page").iterdir()}
SCRIPTS = {name: text for name, text in PAGE.items() if name.endswith(".js")}
SINKS = (
    "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc", "javascript:",
)  # fmt: skip
ADDRESS = re.compile(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", re.IGNORECASE)


def test_the_whole_page_weighs_at_most_100_kilobytes() -> None:
    """Everything that a browser could load, uncompressed."""
    assert sum(len(text.encode()) for text in PAGE.values()) < 100_000


def test_no_file_asks_for_anything_elsewhere() -> None:
    """No address of another server stands anywhere; an XML name space is not one."""
    found = {name: ADDRESS.findall(text.replace("http://www.w3.org/", "")) for name, text in PAGE.items()}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_can_turn_text_into_code(name: str) -> None:
    """None of the ways to parse a string as markup or program is used."""
    assert [sink for sink in SINKS if sink in SCRIPTS[name]] == []


def test_the_document_has_no_inline_script_or_style() -> None:
    """The content policy would block them."""
    html = PAGE["index.html"]
    assert "<style" not in html
    assert " style=" not in html
    assert re.findall(r"\son\w+=", html) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []


def test_each_module_stays_short() -> None:
    """A module fits the head; only the table of phrases is longer."""
    lengths = {name: text.count("\n") for name, text in SCRIPTS.items() if name != "phrases.js"}
    assert max(lengths.values()) < 300


def test_every_phrase_is_written_in_both_languages() -> None:
    """Each has an English and a Chinese form, and the same blanks to fill in."""
    phrases = re.findall(r'\w"?: "([^"]*)"', PAGE["phrases.js"].split("SAID")[0])
    assert len(phrases) > 150
    for phrase in phrases:
        forms = phrase.split("|")
        assert len(forms) >= 2, phrase
        assert all(forms), phrase
        assert set(re.findall(r"\{\w+\}", forms[0])) == set(re.findall(r"\{\w+\}", forms[1])), phrase


def test_every_phrase_used_exists() -> None:
    """Each fixed key that a script asks for stands in the table."""
    table = PAGE["phrases.js"]
    known = set(re.findall(r"(\w+): [\"{]", table))
    asked = {key for text in SCRIPTS.values() for key in re.findall(r'\bt\("([\w.]+)"', text)}
    assert {key for key in asked if key.split(".")[-1] not in known} == set()
