"""A real gateway on the embedded model, and Debian's Chromium looking at its page."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli.session import Session
from store.base import StoreBase
from store.records import Correction, Interaction, Message

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
AXE = Path(__file__).parents[1] / "node/node_modules/axe-core/axe.min.js"
ROOMS = (
    "kitchen", "bedroom", "library", "hall", "bathroom", "office", "garage", "attic", "cellar", "porch", "nursery",
    "study",
)  # fmt: skip


def habit(room: str) -> tuple[str, str]:
    """A house word that the base model cannot know, and what it means."""
    return f"movie time in the {room}", f'light.dim(room="{room}", level=20)'


@dataclass
class Served:
    """A gateway in a process of its own, and the home folder it serves."""

    home: Path
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str) -> dict[str, Any]:
        """Run one command line and return its data."""
        command = [sys.executable, "-m", "cli.main", *words, "--json"]
        environment = {**os.environ, "CORRIGIBLE_HOME": str(self.home), **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
        assert answer["ok"], answer
        data: dict[str, Any] = answer["data"]
        return data

    def up(self) -> None:
        """Start it, on the port it had before."""
        address = self.run("up", "--port", str(self.port), "--no-learner")["address"]
        self.port = int(address.rpartition(":")[2])

    def link(self) -> str:
        """A link that signs in once."""
        url: str = self.run("open", "--print")["url"]
        return url

    def store(self) -> Any:  # noqa: ANN401 - a context manager of StoreBase
        """The same store, opened from here, as another process of the owner's would."""
        return Session(place=self.home).store()

    def say(self, *told: tuple[str, str, str | None], reason: str = "") -> None:
        """Log requests with their answers and, where there are some, corrections."""
        with self.store() as store:
            add(store, told, reason)


def add(store: StoreBase, told: tuple[tuple[str, str, str | None], ...], reason: str) -> None:
    """Add interactions and corrections."""
    for place, (request, answer, corrected) in enumerate(told):
        now = time.time() + place / 1000
        asked = Interaction(messages=(Message("user", request),), answer=answer, model="sha256:" + "0" * 64, time=now)
        store.add(asked)
        if corrected is not None:
            store.add(Correction(interaction=asked.id, corrected=corrected, reason=reason, time=now))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with an empty store, learning only when told to."""
    one = Served(tmp_path_factory.mktemp("page") / "home")
    one.run("init", "--key", "file", "--insecure-key-file")
    one.up()
    yield one
    one.run("down")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium with a new, empty profile."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield opened
        opened.close()


class Window:
    """One browser window on the page; notes every request, script error and dialog."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:  # noqa: ANN401
        """Open the page signed in."""
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, "locale": "en-US", **options})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))
        self.page.set_default_timeout(90_000)
        self.page.goto(served.link())
        self.until("document.querySelector('#tabs [aria-current], #banner > *') !== null")
        assert self.page.locator("#banner").inner_text() == ""

    def keys(self, *names: str) -> None:
        """Press keys one after the other."""
        for name in names:
            self.page.keyboard.press(name)

    def sees(self, words: str, timeout: float = 90) -> None:
        """Wait until `words` can be seen."""
        self.page.get_by_text(words).filter(visible=True).first.wait_for(timeout=1000 * timeout)

    def until(self, holds: str, timeout: float = 90) -> None:
        """Wait until an expression is true; the page's policy forbids Playwright's own way, which evaluates text."""
        end = time.monotonic() + timeout
        while not self.page.evaluate(holds):
            assert time.monotonic() < end, holds
            self.page.wait_for_timeout(50)

    def focused(self) -> str:
        """Name of the control that has the focus."""
        name: str = self.page.evaluate("document.activeElement.dataset.act || document.activeElement.tagName")
        return name


@pytest.fixture
def window(browser: Any, served: Served) -> Iterator[Window]:  # noqa: ANN401
    """A window on the page, signed in; nothing may go wrong in it."""
    opened = Window(browser, served)
    yield opened
    errors = list(opened.errors)
    opened.context.close()
    assert errors == []
