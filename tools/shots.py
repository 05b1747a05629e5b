"""Pictures of the page after it has learned something, to be looked at: `python -m tools.shots FOLDER`.

Each view in light, dark, 360 pixels wide and Chinese, whole length.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.page.conftest import CHROMIUM, FLAGS, ROOMS, Served, Window, habit

VIEWS = ("chat", "corrections", "learning", "privacy", "health")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
    "chinese": {"locale": "zh-CN"},
    "chinese-narrow-dark": {"locale": "zh-CN", "color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}


def main() -> None:
    """Have a gateway learn, then take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        served = Served(Path(place) / "home")
        served.run("init", "--key", "file", "--insecure-key-file")
        served.say(*((ask, "music.stop()", wanted) for ask, wanted in map(habit, ROOMS)), reason="a word of this house")
        served.run("learn")
        served.say(("dim the den", 'light.dim(room="den", level=14)', 'light.dim(room="den", level=40)'))
        served.up()
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        try:
            for name, look in LOOKS.items():
                pictures(Window(browser, served, **look), folder, name)
        finally:
            browser.close()
            served.run("down")


def pictures(window: Window, folder: Path, name: str) -> None:
    """One picture of each view."""
    size = window.page.viewport_size
    for view in VIEWS:
        window.page.set_viewport_size(size)
        window.page.evaluate("name => { location.hash = name }", f"#{view}")
        window.page.wait_for_timeout(600)
        width, height = window.page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        window.page.set_viewport_size({"width": width, "height": height})  # what is fixed to its edge stays there
        window.page.wait_for_timeout(200)
        window.page.screenshot(path=str(folder / f"{view}-{name}.png"))
    window.context.close()


if __name__ == "__main__":
    main()
