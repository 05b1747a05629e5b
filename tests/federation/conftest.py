"""Fixtures of the federation room's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from tests.federation.desk import Fleet, make_fleet
from tests.federation.postgres import Postgres


@pytest.fixture(autouse=True)
def _identity() -> None:
    """Flower wants to know which task builds a message."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Three devices whose changes are 0.01, 0.02 and 0.03."""
    return make_fleet(tmp_path, values=(0.01, 0.02, 0.03))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server of our own."""
    if (missing := Postgres.missing()) is not None:
        pytest.skip(missing)
    with Postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return str(request.getfixturevalue("postgres").new_database())
