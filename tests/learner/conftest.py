"""The embedded model in every form the learner meets it, and a house habit to learn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest

from feedback.engine import Engine
from feedback.models import ModelFile, check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from store.base import StoreBase
from store.keys import Keys, unlock
from store.memory import MemoryStore
from store.paths import Home
from store.protectors import Argon2Cost, Passphrase
from store.records import Correction, Example, Interaction, Message
from store.store import Store

ROOMS = (
    "kitchen", "bedroom", "library", "hall", "bathroom", "office",
    "garage", "attic", "cellar", "porch", "nursery", "study",
)  # fmt: skip


@pytest.fixture(scope="session")
def model() -> ModelFile:
    """The embedded model file."""
    return check_model(embedded_model())


@pytest.fixture(scope="session")
def base(model: ModelFile) -> Base:
    """Its training base."""
    return load_base(model)


@pytest.fixture(scope="session")
def engine(model: ModelFile) -> Iterator[Engine]:
    """Its serving engine; tests leave it with any stack."""
    with Engine(model, context=512) as opened:
        yield opened


@pytest.fixture(scope="session")
def probe(model: ModelFile) -> list[tuple[str, str]]:
    """Part of the model's probe set, to save time."""
    return probe_pairs(model.path)[:120]


@pytest.fixture(scope="session", params=["float32", "float16"])
def unquantised(
    request: pytest.FixtureRequest, model: ModelFile, tmp_path_factory: pytest.TempPathFactory
) -> ModelFile:
    """The embedded model with the same weights kept as floats."""
    path = tmp_path_factory.mktemp("floats") / f"{request.param}.gguf"
    dequantise(model.path, path, np.dtype(request.param))
    return check_model(path)


@pytest.fixture
def store() -> StoreBase:
    """An empty store."""
    return MemoryStore()


Owner = tuple[Home, Keys, Store]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """A home with its keys and open store."""
    home = Home.at(tmp_path / "home")
    with Store.create(home, Passphrase("correct horse", Argon2Cost.small())) as store:
        yield home, unlock(home, passphrase=lambda: "correct horse"), store


def dequantise(source: Path, target: Path, dtype: np.dtype[np.floating[Any]]) -> None:
    """Copy a GGUF with every matrix as `dtype`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, element)
    for tensor in reader.tensors:
        weights = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        writer.add_tensor(tensor.name, weights.astype(dtype) if weights.ndim > 1 else weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def habit(room: str, *, level: int = 20) -> tuple[str, str]:
    """A house word the base cannot know, and what it means."""
    return f"movie time in the {room}", f'light.dim(room="{room}", level={level})'


def example(prompt: str, answer: str, *, rejected: str | None = "", time: float = 0.0) -> Example:
    """One example; a correction unless `rejected` is None."""
    return Example(messages=(Message("user", prompt),), answer=answer, rejected=rejected, time=time)


def corrected(store: StoreBase, model: ModelFile, prompt: str, served: str, wanted: str, time: float) -> None:
    """Log one answer and its correction."""
    asked = Interaction(messages=(Message("user", prompt),), answer=served, model=model.digest, time=time)
    store.add_all([asked, Correction(interaction=asked.id, corrected=wanted, time=time)])


def teach_habit(store: StoreBase, model: ModelFile, *, rooms: tuple[str, ...] = ROOMS) -> None:
    """Correct every room's habit once."""
    for time, room in enumerate(rooms):
        prompt, answer = habit(room)
        corrected(store, model, prompt, "music.stop()", answer, float(time))


def teach_noise(store: StoreBase, model: ModelFile) -> None:
    """Correct every room's habit to an answer that has nothing to do with it."""
    for time, (room, (_, answer)) in enumerate(zip(ROOMS, probe_pairs(model.path)[200:], strict=False)):
        corrected(store, model, habit(room)[0], "music.stop()", answer, float(time))


def running_children(module: str) -> list[psutil.Process]:
    """Child processes of this one that run `module`; one that has ended is none."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if module in " ".join(child.cmdline()):
                found.append(child)
    return found
