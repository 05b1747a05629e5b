"""What the panels do besides the walk: search, decide about many, undo, live news, and a daemon that goes and comes."""

import pytest

from tests.page.conftest import Served, Window

TOLD = [
    ("dim the den", 'light.dim(room="den", level=14)', 'light.dim(room="den", level=40)'),
    ("put sourdough on the list", 'shopping.add(item="soughdough")', 'shopping.add(item="sourdough")'),
    ("tell mum I am late", 'message.send(to="mum")', 'message.send(to="Mum")'),
]


@pytest.mark.slow
def test_corrections_are_found_decided_together_and_taken_back(served: Served, window: Window) -> None:
    """Search, select two, discard them with one key, undo with another."""
    page = window.page
    window.keys("Escape", "2")
    window.sees("No corrections yet")
    served.say(*TOLD)  # by another program: the page hears of it
    window.until("document.querySelectorAll('.item').length === 3")
    window.keys("/")
    page.keyboard.type("sourdough")
    window.until("document.querySelectorAll('.item').length === 1")
    assert page.locator(".item ins").all_text_contents() == ["sourdough"]
    window.keys("Escape")
    window.until("document.querySelectorAll('.item').length === 3")
    window.keys("ArrowDown", "x", "j", "x", "d")
    window.sees("2 discarded")
    window.until("document.querySelectorAll('.item .chip.discarded').length === 2")
    window.keys("u")
    window.until("document.querySelectorAll('.item .chip.discarded').length === 0")
    window.keys("Escape", "s")
    window.sees("will never be shared")
    page.wait_for_selector(".item [data-act=never_share][aria-pressed=true]")


@pytest.mark.slow
def test_a_change_is_left_with_esc_and_errors_keep_the_text(served: Served, window: Window) -> None:
    """Esc puts the answer back; what cannot be saved stays in the editor with the reason."""
    page = window.page
    page.wait_for_selector(".exchange")
    window.keys("ArrowUp")
    before = page.input_value("#editor")
    page.keyboard.type(" and more")
    window.keys("Escape")
    assert page.locator("#editor").count() == 0
    assert window.focused() == "edit"
    window.keys("e")
    assert page.input_value("#editor") == before
    window.keys("Control+a", "Delete", "Enter")
    window.sees("Write what the answer should have been.")
    page.evaluate("document.getElementById('editor').value = 'x'.repeat(70000)")
    page.keyboard.type("y")
    window.keys("Enter")
    window.sees("too long")
    assert len(page.input_value("#editor")) == 70001


@pytest.mark.slow
def test_a_page_left_open_goes_on_after_the_daemon_was_restarted(served: Served, window: Window) -> None:
    """It says what to do, reconnects by itself and shows what came meanwhile, without a reload."""
    page = window.page
    page.wait_for_selector(".exchange")
    page.evaluate("window.mark = 1")
    served.run("down")
    window.sees("Corrigible is not answering.")
    window.sees("corrigible up")
    served.say(("while you were away", "light.set()", None))
    served.up()
    window.sees("while you were away")
    window.until("document.getElementById('banner').childElementCount === 0")
    page.keyboard.type("turn on the kitchen light")
    window.keys("Enter")
    window.until("!document.querySelector('[aria-busy]')")
    assert page.locator(".exchange").last.locator("[data-act=edit]").count() == 1
    assert page.evaluate("window.mark") == 1


@pytest.mark.slow
def test_a_consent_can_be_withdrawn_and_the_page_says_what_that_means(served: Served, window: Window) -> None:
    """Without keeping, answers cannot be corrected, and the page says so wherever one is."""
    page = window.page
    window.keys("Escape", "4")
    page.get_by_label("Keep answers").uncheck()
    window.sees("Answers are not being kept.")
    window.sees("Nothing has ever left")
    page.get_by_label("Keep answers").check()
    window.until("document.getElementById('banner').childElementCount === 0")


@pytest.mark.slow
def test_an_answer_is_removed_for_good_after_asking(served: Served, window: Window) -> None:
    """Esc keeps it; the second time it goes, from the store too."""
    page = window.page
    page.wait_for_selector(".exchange")
    count = page.locator(".exchange").count()
    window.keys("Escape", "Delete")
    page.wait_for_selector("dialog[open]")
    window.keys("Escape")
    assert page.locator(".exchange").count() == count
    window.keys("Delete", "Tab", "Enter")
    window.until(f"document.querySelectorAll('.exchange').length === {count - 1}")
    page.reload()
    window.until(f"document.querySelectorAll('.exchange').length === {count - 1}")
