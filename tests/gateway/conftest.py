"""One running gateway for the tests of a file, on the embedded model and an encrypted store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.paths import Home
from store.protectors import KeyFile
from store.store import Store
from tests.gateway.running import Running, running


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway on the embedded model with a real, encrypted store."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with Store.create(Home.locate(folder / "home"), KeyFile()) as store, running(folder, store=store) as found:
        yield found
