"""Seconds of CPU per training step on the embedded model: PEFT's plain step against ours, interleaved, same batches.

PEFT's plain step is what users write: padded batches with an attention mask, loss over all positions and the whole
vocabulary, float32. Also prints the time of a whole `train` call. Run it alone on the machine:
``python -m bench.learner [GGUF]``.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Base, load_base
from learner.encode import Encoded, collate, encode_all
from learner.lora import Attached, LoraSpec, attached
from learner.recipe import Recipe
from learner.train import answer_log_probs, train
from store.records import Example, Message

ROUNDS = 20


def plain_step(base: Base, items: list[Encoded]) -> torch.Tensor:
    """Forward with a mask and loss over every position, prompts masked out."""
    batch = collate(items)
    lengths = torch.tensor([len(item.tokens) for item in items])
    mask = (torch.arange(batch.tokens.shape[1])[None] < lengths[:, None]).long()
    labels = batch.tokens.clone()
    for row, item in enumerate(items):
        labels[row, : item.answer_from] = -100
    labels[mask == 0] = -100
    loss: torch.Tensor = base.model(input_ids=batch.tokens, attention_mask=mask, labels=labels, use_cache=False).loss
    return loss


def lean_step(base: Base, items: list[Encoded]) -> torch.Tensor:
    """Ours: no mask, head at answer positions only."""
    batch = collate(items)
    return -(answer_log_probs(base, batch).gather(1, batch.targets[:, None])[:, 0] * batch.weights).sum()


def milliseconds(held: Attached, items: list[Encoded], *, lean: bool) -> float:
    """CPU time of one step with its optimiser."""
    optimizer = torch.optim.Adam(held.parameters(), lr=1e-3, fused=lean)
    started = time.process_time()
    (lean_step if lean else plain_step)(held.base, items).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return 1000 * (time.process_time() - started)


def main() -> None:
    """Print the table."""
    model = check_model(Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_model())
    base = load_base(model)
    pairs = probe_pairs(model.path)
    examples = [Example(messages=(Message("user", prompt),), answer=answer, rejected="") for prompt, answer in pairs]
    items = encode_all(base, examples, max_tokens=512)
    items.sort(key=lambda item: len(item.tokens))
    middle = len(items) // 2
    batch = items[middle : middle + 16]
    times: dict[str, list[float]] = {"PEFT float32": [], "ours float32": [], f"ours {base.fast_dtype}": []}
    for _ in range(ROUNDS):
        for name, kept in times.items():
            with attached(base, LoraSpec()) as held:
                lean = name.startswith("ours")
                if lean:
                    held.hasten(torch.float32 if name.endswith("float32") else base.fast_dtype)
                milliseconds(held, batch, lean=lean)
                kept.append(milliseconds(held, batch, lean=lean))
    print(f"{model.name}: batch of 16, {len(batch[-1].tokens)} tokens each at most, CPU time per step")
    for name, kept in times.items():
        print(f"  {name:24} median {statistics.median(kept):7.1f} ms   least {min(kept):7.1f} ms")
    started = time.process_time()
    recipe = Recipe()
    train(base, examples[:50], [], recipe)
    print(f"  train() on 50 corrections, {recipe.steps(50)} steps: {time.process_time() - started:.1f} s CPU")


if __name__ == "__main__":
    main()
