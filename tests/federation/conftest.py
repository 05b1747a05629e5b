"""Fixtures of the federation room's tests."""

from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from tests.federation.desk import Fleet, make_fleet


@pytest.fixture(autouse=True)
def _identity() -> None:
    """Flower wants to know which task builds a message."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Three devices whose changes are 0.01, 0.02 and 0.03."""
    return make_fleet(tmp_path, values=(0.01, 0.02, 0.03))
