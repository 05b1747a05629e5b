"""Stores to test on: real ones with a key file, and the twin in memory."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.base import StoreBase
from store.keys import unlock
from store.memory import MemoryStore
from store.paths import Home
from store.protectors import KeyFile
from store.store import Store


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty store, to be copied: quicker than making one each time."""
    home = Home.at(tmp_path_factory.mktemp("empty") / "home")
    Store.create(home, KeyFile()).close()
    return home.root


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home folder that does not exist yet."""
    return Home.at(tmp_path / "home")


@pytest.fixture
def store(home: Home, empty_home: Path) -> Iterator[Store]:
    """A real, empty store."""
    shutil.copytree(empty_home, home.root)
    with Store.open(home, unlock(home)) as opened:
        yield opened


@pytest.fixture(params=["sqlcipher", "memory"])
def any_store(request: pytest.FixtureRequest) -> StoreBase:
    """Each implementation in turn."""
    return request.getfixturevalue("store") if request.param == "sqlcipher" else MemoryStore()
