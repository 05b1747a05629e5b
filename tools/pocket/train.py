"""The training loop: a number of steps or of minutes, loss on answers only.

Rows of like length share a batch, so little is padded. By steps, one seed gives the same data, schedule and thread
count, hence the same model on the same machine; by minutes, how far a run gets depends on the machine's speed.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tools.pocket.data import Pair
from tools.pocket.model import PocketModel, Shape
from tools.pocket.pace import Pace
from tools.pocket.tokenizer import encode_pairs

Source = Callable[[int], list[Pair]]
"""Asked for a number of pairs, gives the next ones, for ever."""


@dataclass(frozen=True)
class Recipe:
    """How to train; rates are peaks, reached after `warmup` of the run and then falling to zero on a cosine."""

    minutes: float
    steps: int | None = None  # where given, counts in place of the minutes
    seed: int = 0
    batch_tokens: int = 4096
    muon_rate: float = 0.02
    adam_rate: float = 4e-3
    weight_decay: float = 0.02
    warmup: float = 0.03
    longest: int = 320
    pool: int = 2048


@dataclass(frozen=True)
class Outcome:
    """What a run did: optimiser steps, tokens seen, the mean loss of the last steps and the seconds it took."""

    steps: int
    tokens: int
    loss: float
    seconds: float


Encoded = tuple[list[int], int]
_IGNORED = -100
Batch = tuple[Tensor, Tensor, Tensor]


def train(source: Source, tokenizer: Tokenizer, shape: Shape, recipe: Recipe) -> tuple[PocketModel, Outcome]:
    """Trains a new network from `source` for `recipe.minutes`, counted from the end of the first step.

    The first step also compiles and loads what torch loads late; it would eat most of a very short run.
    """
    torch.manual_seed(recipe.seed)
    model = PocketModel(shape)
    if _worth_compiling(recipe):
        model.hasten()
    optimizers = _optimizers(model, recipe)
    steps, tokens, loss, pace = 0, 0, float("nan"), Pace(fixed=recipe.steps is not None)
    start = time.monotonic()
    with _progress() as bar:
        task = bar.add_task("training", total=1.0, loss=loss)
        for batch in _batches(source, tokenizer, recipe):
            began = time.monotonic()
            passed = _passed(recipe, steps, began - start)
            if passed >= 1:
                break
            pace.begin()
            value = _step(model, optimizers, batch, _rate(passed, recipe.warmup))
            pace.end(batch[0].numel(), time.monotonic() - began)
            start = time.monotonic() if not steps else start
            steps, tokens = steps + 1, tokens + batch[0].numel()
            loss = value if steps == 1 else loss + (value - loss) / min(steps, 50)
            bar.update(task, completed=passed, loss=loss)
    return model, Outcome(steps, tokens, loss, time.monotonic() - start)


def _worth_compiling(recipe: Recipe) -> bool:
    """Whether the run is long enough to repay half a minute of compiling."""
    return recipe.minutes >= 3 if recipe.steps is None else recipe.steps >= 400


def _passed(recipe: Recipe, steps: int, seconds: float) -> float:
    """The share of the run that is behind, 0 to 1; 0 before the first step."""
    if recipe.steps is not None:
        return steps / recipe.steps
    return seconds / (recipe.minutes * 60) if steps else 0.0


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"), TimeRemainingColumn()
    )


def _optimizers(model: PocketModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding and norms."""
    matrices = [parameter for parameter in model.layers.parameters() if parameter.dim() == 2]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, momentum=0.95, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _rate(passed: float, warmup: float) -> float:
    """The share of the peak rate at `passed` (0 to 1) of the time."""
    if passed < warmup:
        return max(passed / warmup, 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (passed - warmup) / (1 - warmup)))


def _step(model: PocketModel, optimizers: Sequence[torch.optim.Optimizer], batch: Batch, rate: float) -> float:
    tokens, wanted, targets = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens, wanted)
    loss = F.cross_entropy(logits.float(), targets, ignore_index=_IGNORED)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _batches(source: Source, tokenizer: Tokenizer, recipe: Recipe) -> Iterator[Batch]:
    """Batches for ever: pools of pairs, each sorted by length, cut into batches and shuffled."""
    rng = random.Random(recipe.seed)
    while True:
        encoded = [row for row in encode_pairs(tokenizer, source(recipe.pool)) if len(row[0]) <= recipe.longest]
        encoded.sort(key=lambda row: len(row[0]))
        batches = list(_cut(encoded, recipe.batch_tokens))
        rng.shuffle(batches)
        yield from map(_padded, batches)


def _cut(encoded: Sequence[Encoded], most: int) -> Iterator[list[Encoded]]:
    """Runs of rows, shortest first, whose padded size stays within `most` tokens."""
    batch: list[Encoded] = []
    for row in encoded:
        if batch and _rounded(len(row[0]) - 1, 4) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(rows: Sequence[Encoded]) -> Batch:
    """Tokens (rows, length), the places to predict after, and the tokens to be predicted there.

    Lengths and the number of places are rounded up, so that torch meets few shapes and keeps their kernels.
    """
    length = _rounded(max(len(ids) for ids, _ in rows) - 1, 4)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    wanted: list[int] = []
    targets: list[int] = []
    for row, (ids, request) in enumerate(rows):
        tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        wanted += range(row * length + request - 1, row * length + len(ids) - 1)
        targets += ids[request:]
    spare = _rounded(len(wanted), 128) - len(wanted)
    return tokens, torch.tensor(wanted + [0] * spare), torch.tensor(targets + [_IGNORED] * spare)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
