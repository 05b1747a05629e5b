"""LoRA on the base model: attach, extract, and the public A of a shared adapter. The one home of PEFT.

An adapted linear computes ``y = W x + (alpha / rank) B A x`` (Hu et al. 2021, arXiv 2106.09685). Weights travel
between rooms as plain arrays (`LoraWeights`); files are `export`'s business.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.base import FAMILY, Base, Geometry, hidden_states
from learner.choice import all_log_probs, chosen_log_probs
from learner.encode import Encoded, collate
from learner.fast import fast_forward
from learner.lean import Lean
from learner.packed import parts
from learner.per_example import per_example_forward
from store.errors import IntegrityError

Array = NDArray[np.float32]
OWN, UNDER = "own", "under"


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Size and starting point of an adapter; public."""

    rank: int = 8
    alpha: float = 16.0
    seed: int = 0  # A's starting values, reproducible on every platform
    freeze_a: bool = False  # FFA-LoRA (arXiv 2403.12313): only B learns


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """One adapter: module path -> A [rank, in] and B [out, rank], and the scaling's alpha."""

    a: Mapping[str, Array]
    b: Mapping[str, Array]
    alpha: float

    @property
    def rank(self) -> int:
        """Inner dimension shared by every pair."""
        return int(next(iter(self.a.values())).shape[0])


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model makes of the answers of some items, at every position that predicts an answer token.

    Attributes:
        hidden: the decoder's output float32 [answer tokens, width].
        targets: the answers' tokens int64 [answer tokens].
        weights: their loss weights [answer tokens], one per item in all.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    head: torch.Tensor  # [vocabulary, width]
    cap: float | None

    def log_probs(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return log-probabilities [answer tokens, n] of `chosen` [answer tokens, n]; of the targets by default."""
        return chosen_log_probs(self.hidden, self.head, self.targets[:, None] if chosen is None else chosen, self.cap)

    def every_log_prob(self) -> torch.Tensor:
        """Return log-probabilities [answer tokens, vocabulary], without gradient."""
        return all_log_probs(self.hidden, self.head, self.cap)


@dataclass(slots=True)
class Attached:
    """A base model with an adapter in it; valid inside the `attached` block only."""

    base: Base
    peft: Any
    alpha: float
    lean: Lean | None = None
    head: torch.Tensor | None = None  # in the type of the multiplications, where that is not the model's own

    def answers(self, items: Sequence[Encoded]) -> Answers:
        """Go through `items` once; answers come in their order."""
        weight = self.base.model.get_output_embeddings().weight.detach() if self.head is None else self.head
        cap = getattr(self.base.model.config, "final_logit_softcapping", None)
        if self.lean is not None:
            cut = parts(items, torch.get_num_threads())
            targets, weights = torch.cat([one.targets for one in cut]), torch.cat([one.weights for one in cut])
            return Answers(self.lean.hidden(cut), targets, weights, weight, cap)
        batch = collate(items)
        hidden = hidden_states(self.base, batch.tokens).flatten(0, 1)[batch.at]
        return Answers(hidden, batch.targets, batch.weights, weight, cap)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return what learns: the own adapter's B, and A unless frozen."""
        return [parameter for parameter in self.peft.parameters() if parameter.requires_grad]

    def outputs(self) -> dict[str, torch.nn.Parameter]:
        """Return the own adapter's B [out, rank] of every linear."""
        return {path: layer.lora_B[OWN].weight for path, layer in _lora_layers(self.base).items()}

    def hasten(self, dtype: torch.dtype, *, recompute: bool = False) -> None:
        """Compute `answers` the fast way until the adapter is taken out; not for Opacus' hooks on PEFT's linears.

        Args:
            dtype: of the multiplications.
            recompute: keep one matrix per layer instead of all, for half as much more work; the same bits.
        """
        self._settle(dtype)
        if self.base.model.config.model_type in FAMILY:
            self.lean = Lean(self.base.model, OWN, self._under(), dtype, recompute=recompute)
            return
        for layer in _lora_layers(self.base).values():
            layer.forward = fast_forward(layer, OWN, self._under(), dtype)

    def per_example(self, dtype: torch.dtype = torch.float32) -> None:
        """Keep the gradient of B per example, for private training, until the adapter is taken out."""
        if self.base.model.config.model_type in FAMILY:
            self._settle(dtype)
            self.lean = Lean(self.base.model, OWN, self._under(), dtype, per_example=True)
            return
        for layer in _lora_layers(self.base).values():
            layer.forward = per_example_forward(layer, OWN)

    def plain(self) -> None:
        """Go back to PEFT's own forward."""
        self.lean = self.head = None
        for layer in _lora_layers(self.base).values():
            vars(layer).pop("forward", None)

    def _settle(self, dtype: torch.dtype) -> None:
        """Have the head multiply in `dtype`."""
        self.head = self.base.model.get_output_embeddings().weight.detach().to(dtype)

    def _under(self) -> str | None:
        """The adapter below, where there is one."""
        return UNDER if UNDER in next(iter(_lora_layers(self.base).values())).lora_A else None

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the own adapter is off: the base with only what it was put on top of."""
        layers = _lora_layers(self.base)
        scales = {path: layer.scaling[OWN] for path, layer in layers.items()}
        for layer in layers.values():
            layer.scaling[OWN] = 0.0
        try:
            yield
        finally:
            for path, layer in layers.items():
                layer.scaling[OWN] = scales[path]


@contextmanager
def attached(
    base: Base, spec: LoraSpec, *, start: LoraWeights | None = None, under: LoraWeights | None = None
) -> Iterator[Attached]:
    """Put a trainable adapter into `base`, on top of the frozen `under`; take both out again at the end.

    Args:
        start: weights to continue from; a fresh adapter (B = 0) when None.
        under: an adapter already served below this one; never trained here.
    Raises:
        IntegrityError: `start` or `under` does not fit the base.
    """
    from peft import LoraConfig, get_peft_model

    start = start or fresh(spec, base.geometry)
    config = _config(LoraConfig, base.geometry, start.rank, start.alpha)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(base.model, config, adapter_name=OWN)
    try:
        if under is not None:
            peft.add_adapter(UNDER, _config(LoraConfig, base.geometry, under.rank, under.alpha))
            _load(base, UNDER, under)
            peft.base_model.set_adapter([UNDER, OWN])
        _load(base, OWN, start)
        _set_trainable(peft, freeze_a=spec.freeze_a)
        yield Attached(base, peft, start.alpha)
    finally:
        peft.unload()
        base.model.requires_grad_(False)


def extract(held: Attached) -> LoraWeights:
    """Copy the own adapter's weights out.

    Raises:
        IntegrityError: a weight is NaN or infinite (training diverged).
    """
    layers = _lora_layers(held.base)
    weights = LoraWeights(
        {path: _copy(layer.lora_A[OWN].weight) for path, layer in layers.items()},
        {path: _copy(layer.lora_B[OWN].weight) for path, layer in layers.items()},
        held.alpha,
    )
    require_finite(weights)
    return weights


def fresh(spec: LoraSpec, geometry: Geometry) -> LoraWeights:
    """Return a new adapter that changes nothing yet: A from the seed, B = 0."""
    zeros = {path: np.zeros((out, spec.rank), np.float32) for path, (out, _) in geometry.shapes.items()}
    return LoraWeights(public_a(spec, geometry), zeros, spec.alpha)


def blend(start: LoraWeights, end: LoraWeights, share: float) -> LoraWeights:
    """Return the adapter `share` of the way from `start` to `end`, matrix by matrix (arXiv 2109.01903's idea)."""

    def mix(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, Array]:
        return {path: (a[path] + np.float32(share) * (b[path] - a[path])).astype(np.float32) for path in a}

    return LoraWeights(mix(start.a, end.a), mix(start.b, end.b), end.alpha)


def public_a(spec: LoraSpec, geometry: Geometry) -> dict[str, Array]:
    """Return A [rank, in] of every linear from the public seed, the same on every machine.

    Uniform in ±1/sqrt(in), PEFT's own default, drawn from SHAKE-256 so that it depends on no library's generator.
    """
    return {
        path: _uniform(f"{spec.seed}:{spec.rank}:{path}", (spec.rank, wide)) / np.float32(math.sqrt(wide))
        for path, (_, wide) in geometry.shapes.items()
    }


def layer_of(path: str) -> int:
    """Return the number of the decoder layer a linear belongs to, e.g. 3 for ``model.layers.3.mlp.up_proj``."""
    return int(path.partition(".layers.")[2].partition(".")[0])


def require_finite(weights: LoraWeights) -> None:
    """Raise IntegrityError when any weight is NaN or infinite."""
    for part in (weights.a, weights.b):
        if not all(np.isfinite(array).all() for array in part.values()):
            raise IntegrityError("The adapter holds numbers that are not finite.", code="not_finite")


def require_fit(weights: LoraWeights, geometry: Geometry) -> None:
    """Raise IntegrityError unless `weights` has exactly the shapes that `geometry` asks for."""
    if set(weights.a) != set(geometry.shapes) or set(weights.b) != set(geometry.shapes):
        raise IntegrityError("The adapter was made for another base model.", code="foreign_adapter")
    rank = weights.rank
    for path, (out, wide) in geometry.shapes.items():
        if weights.a[path].shape != (rank, wide) or weights.b[path].shape != (out, rank):
            raise IntegrityError("The adapter was made for another base model.", code="foreign_adapter")


def _config(kind: Any, geometry: Geometry, rank: int, alpha: float) -> Any:  # noqa: ANN401 - PEFT is untyped
    """PEFT's settings for every linear of the decoder."""
    return kind(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(geometry.shapes), bias="none")


def _lora_layers(base: Base) -> dict[str, Any]:
    """Module path -> PEFT layer."""
    return {path: base.model.get_submodule(path) for path in base.geometry.shapes}


def _load(base: Base, name: str, weights: LoraWeights) -> None:
    """Copy `weights` into the adapter called `name`."""
    require_fit(weights, base.geometry)
    with torch.no_grad():
        for path, layer in _lora_layers(base).items():
            layer.lora_A[name].weight.copy_(torch.from_numpy(weights.a[path]))
            layer.lora_B[name].weight.copy_(torch.from_numpy(weights.b[path]))


def _set_trainable(peft: Any, *, freeze_a: bool) -> None:  # noqa: ANN401
    """Let only the own adapter learn."""
    for name, parameter in peft.named_parameters():
        own = f".{OWN}." in name
        parameter.requires_grad_(own and ("lora_B" in name or ("lora_A" in name and not freeze_a)))


def _copy(tensor: torch.Tensor) -> Array:
    """Detach into an own float32 array."""
    copied: Array = tensor.detach().to(torch.float32).numpy().copy()
    return copied


def _uniform(label: str, shape: tuple[int, int]) -> Array:
    """Numbers in [-1, 1) from SHAKE-256 of `label`; 24 bits each, exact in float32."""
    count = shape[0] * shape[1]
    raw = np.frombuffer(hashlib.shake_256(label.encode()).digest(4 * count), dtype="<u4")
    return ((raw >> 8).astype(np.float32) / np.float32(1 << 23) - np.float32(1)).reshape(shape)
