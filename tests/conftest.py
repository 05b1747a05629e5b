"""Fixtures that several rooms' tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.federation.live import Live


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Live]":
    """One fleet server for the whole run: real SuperLink, executor and web process on loopback."""
    from tests.federation.live import serving, standard

    with serving(tmp_path_factory.mktemp("live") / "server", standard()) as running:
        yield running
