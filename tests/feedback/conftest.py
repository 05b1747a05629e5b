"""Micro models, an engine on one of them, and stores to record in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.engine import Engine
from feedback.models import check_model
from store.base import StoreBase
from store.memory import MemoryStore
from store.paths import Home
from store.protectors import KeyFile
from store.store import Store
from tests.feedback.micro import Shape, write_model


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro Llama model."""
    return write_model(tmp_path_factory.mktemp("models") / "micro.gguf", Shape())


@pytest.fixture(scope="session")
def shared_engine(micro: Path) -> Iterator[Engine]:
    """The engine behind `engine`."""
    with Engine(check_model(micro)) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine on the micro model, without adapters."""
    shared_engine.set_stack([])
    return shared_engine


@pytest.fixture(params=["memory", "sqlcipher"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreBase]:
    """Each kind of store, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    home = Home.locate(tmp_path / "home")
    with Store.create(home, KeyFile()) as made:
        yield made
