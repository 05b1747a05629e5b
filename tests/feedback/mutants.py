"""Opens damaged models or adapters one after another: `python -m tests.feedback.mutants KIND COUNT FOLDER`.

Run as a process of its own, because what it looks for is a file that ends the process. Prints the seed of each mutant
before opening it, so the last line names the culprit.
"""

import random
import sys
from pathlib import Path

from feedback.engine import Engine
from feedback.gguf_header import read_header
from feedback.models import check_model
from store.errors import CorrigibleError
from store.records import Message, digest
from tests.feedback.micro import Shape, adapter, write_model

HELLO = [Message("user", "hello wörld")]


def main(kind: str, count: int, folder: Path) -> None:
    """Open `count` mutants of one kind."""
    base = write_model(folder / "base.gguf", Shape(layers=1))
    sound = base.read_bytes() if kind == "model" else adapter(base)
    head = min(tensor.start for tensor in read_header(sound).tensors.values())
    with Engine(check_model(base), context=64) as engine:
        for seed in range(count):
            print(seed, flush=True)
            mutant = mutate(sound, head, random.Random(seed))
            try:
                open_model(folder / "mutant.gguf", mutant) if kind == "model" else open_adapter(engine, mutant)
            except CorrigibleError:
                continue


def mutate(data: bytes, head: int, choice: random.Random) -> bytes:
    """Flip bits, overwrite numbers or cut, mostly in the header of `head` bytes."""
    changed, place = bytearray(data), choice.randrange(head)
    match choice.randrange(5):
        case 0:
            changed[place] ^= 1 << choice.randrange(8)
        case 1:
            changed[place : place + 4] = choice.choice([b"\0" * 4, b"\xff" * 4, b"\1\0\0\0"])
        case 2:
            changed[place : place + 8] = choice.randbytes(8)
        case 3:
            changed[choice.randrange(len(data))] = choice.randrange(256)
        case _:
            del changed[choice.randrange(len(data)) :]
    return bytes(changed)


def open_model(path: Path, mutant: bytes) -> None:
    """Open a damaged model and answer."""
    path.write_bytes(mutant)
    with Engine(check_model(path), context=64) as engine:
        engine.generate(HELLO, max_tokens=3)


def open_adapter(engine: Engine, mutant: bytes) -> None:
    """Serve a damaged adapter and answer."""
    engine.set_stack([(digest(mutant), mutant)])
    engine.generate(HELLO, max_tokens=3)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
