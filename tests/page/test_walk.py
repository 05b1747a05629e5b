"""The whole loop in the page, by keyboard alone: ask, correct, watch it learn, roll back, delete."""

import pytest

from tests.page.conftest import ROOMS, Served, Window, habit

REQUEST, WANTED = habit("kitchen")


def last_request(window: Window) -> str:
    """What was asked last."""
    text: str = window.page.locator(".exchange .request").last.inner_text()
    return text


@pytest.mark.slow
def test_a_correction_is_learned_rolled_back_and_deleted_by_keyboard(served: Served, window: Window) -> None:
    """No pointer is touched from the first question to the empty list of corrections."""
    page = window.page
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"  # one can type at once
    page.keyboard.type(REQUEST)
    window.keys("Enter")
    page.wait_for_selector(".exchange [data-act=edit]")
    first = page.locator(".exchange .text").inner_text()
    assert first != WANTED

    window.keys("ArrowUp")  # in the empty field: correct the last answer
    assert page.input_value("#editor") == first
    window.keys("Control+a")
    page.keyboard.type(WANTED)
    assert page.locator(".difference ins").count() > 0
    window.keys("Enter")
    window.sees("Kept.")
    assert page.locator(".exchange ins").count() > 0

    served.say(*((ask, "music.stop()", wanted) for ask, wanted in map(habit, ROOMS[1:])))
    window.keys("3")
    page.wait_for_selector(".panel.learning:not([hidden])")
    window.sees("corrected requests are waiting")
    window.keys("l")
    page.wait_for_selector(".panel.learning progress")
    window.sees("It has learned.", timeout=900)
    page.wait_for_selector(".run .chip.adopt")
    assert page.locator("svg.chart .mark.adopt").count() == 1
    assert page.locator(".fixed .examples > li").count() > 0

    window.keys("1", "Escape", "r")  # back to the chat, to the last answer, ask again
    window.until("document.querySelectorAll('.exchange').length > 12")
    window.until("!document.querySelector('[aria-busy]')")
    assert page.locator(".exchange .text").last.inner_text() == dict(map(habit, ROOMS))[last_request(window)]

    window.keys("3", "z", "Tab", "Enter")
    window.sees("Rolled back.")
    window.sees("The base model is answering")

    window.keys("2")
    page.wait_for_selector(".item")
    count = page.locator(".item").count()
    window.keys("j", "Delete")
    page.wait_for_selector("dialog[open]")
    window.keys("Tab", "Enter")
    window.until(f"document.querySelectorAll('.item').length === {count - 1}")
