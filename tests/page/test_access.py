"""Anyone can use it: contrast, names and roles by axe, a narrow screen, another language, another input method."""

from typing import Any

import pytest

from tests.page.conftest import AXE, Served, Window, habit

PANELS = ("chat", "corrections", "learning", "privacy", "health")


@pytest.fixture(scope="module")
def told(served: Served) -> Served:
    """A store with something to see in it."""
    served.say(*((*habit(room), None) for room in ("hall", "study")), ("把灯调暗", "light.set()", "light.dim()"))
    return served


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core (npm install --prefix tests/node)")
def test_axe_finds_nothing_serious(browser: Any, told: Served, theme: str) -> None:  # noqa: ANN401
    """Not in any panel, nor while correcting, nor in the list of keys; in both themes."""
    window = Window(browser, told, color_scheme=theme, reduced_motion="reduce")
    page = window.page
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = {}
    for panel in (*PANELS, "editor", "keys"):
        if panel in PANELS:
            page.evaluate("name => { location.hash = name }", f"#{panel}")
            page.wait_for_timeout(400)
        elif panel == "editor":
            window.keys("1", "ArrowUp")
            page.wait_for_selector("#editor")
        else:
            window.keys("Escape", "?")
            page.wait_for_selector("dialog[open]")
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found[panel] = [
            (one["id"], [node["html"][:90] for node in one["nodes"]])
            for one in result["violations"]
            if one["impact"] in ("serious", "critical", "moderate")
        ]
    window.context.close()
    assert {panel: faults for panel, faults in found.items() if faults} == {}


@pytest.mark.slow
def test_nothing_is_cut_off_on_a_narrow_screen_in_chinese(browser: Any, told: Served) -> None:  # noqa: ANN401
    """At 360 pixels no panel scrolls sideways, and every word is in the language chosen."""
    window = Window(browser, told, viewport={"width": 360, "height": 740}, locale="zh-CN")
    page = window.page
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    for panel in PANELS:
        page.evaluate("name => { location.hash = name }", f"#{panel}")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, panel
    assert page.locator("#tabs a").all_text_contents() == ["对话", "更正", "学习", "隐私", "状况"]
    page.get_by_role("button", name="English").click()
    assert page.locator("#tabs a").first.text_content() == "Chat"
    window.context.close()


@pytest.mark.slow
def test_enter_belongs_to_the_input_method_while_it_composes(told: Served, window: Window) -> None:
    """Choosing Chinese characters with Enter neither sends nor saves."""
    page = window.page
    page.wait_for_selector(".exchange")
    window.keys("ArrowUp")
    page.evaluate(
        "document.getElementById('editor').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert page.locator("#editor").count() == 1


@pytest.mark.slow
def test_single_keys_can_be_switched_off(told: Served, window: Window) -> None:
    """For those whose software types letters by itself; the choice is kept, and no text ever is."""
    page = window.page
    window.keys("Escape", "?")
    page.get_by_label("Single keys work outside text fields").uncheck()
    window.keys("Escape", "2")
    assert page.evaluate("location.hash") in ("", "#chat")
    assert page.evaluate("JSON.stringify(Object.keys(localStorage))") == '["letters"]'
    assert page.evaluate("sessionStorage.length") == 0
