"""Direct checks: each takes one part and returns what is wrong with it, empty when nothing is.

They catch what no audit can: noise at half the claim, a loader that shuffles, a price that forgets a run.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import torch
from scipy import stats

from federation.budget import Price
from federation.spec import Limits, RoundSpec
from federation.update import Expected, PrivateUpdate, UpdateRefused, decode, privatise
from learner.accountant import MechanismRun, epsilon_prv
from learner.private import Draw, PrivateDelta, PrivateSpec, SystemNoiseOptimizer, run_mechanism
from store.records import Spend, digest
from tools import recount

MILLION = 1_000_000
SIGMA_TOLERANCE = 0.005
CLIP_TOLERANCE = 1e-5
ACCOUNTANT_TOLERANCE = 0.02
SPEC = PrivateSpec(
    clipping_norm=0.5, noise_multiplier=1.5, sampling_rate=0.5, steps=1, divisor=8.0, learning_rate=1.0,
    rank=1, alpha=1.0, seed_a=0, layers=1,
)  # fmt: skip
CONFIGURATIONS = [
    MechanismRun(sigma, rate, steps)
    for sigma, rate, steps in [
        *product((0.8, 1.0, 1.5, 3.0), (0.01, 0.05, 0.25), (10, 40, 100)),  # 36
        *product((1.5, 3.0, 6.0), (1.0,), (1, 3, 9)),  # 9
        (0.8, 0.1, 20), (1.0, 0.016, 188), (4.0, 0.05, 1000), (2.0, 0.5, 40), (6.0, 0.25, 240),
    ]
]  # fmt: skip

Optimizer = type[SystemNoiseOptimizer]
Accountant = Callable[[Sequence[MechanismRun], float], float]
Pricing = Callable[[Iterable[Spend], RoundSpec, Limits, float], Price]
Encoder = Callable[[PrivateUpdate, int], bytes]


def released(kind: Optimizer, gradients: torch.Tensor, spec: PrivateSpec = SPEC) -> np.ndarray:
    """Return the weights' move after the mechanism ran over units with these `gradients` [units, weights]."""
    weights = torch.nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = kind(
        torch.optim.SGD([weights], lr=spec.learning_rate),
        noise_multiplier=spec.noise_multiplier,
        max_grad_norm=spec.clipping_norm,
        expected_batch_size=spec.divisor,
    )

    def accumulate(chosen: Sequence[int]) -> None:
        weights.grad_sample = gradients[list(chosen)].clone()

    run_mechanism(optimizer, len(gradients), accumulate, spec, draw=lambda units, _rate: list(range(units)))
    return weights.detach().numpy().astype(np.float64)


def noise_scale(kind: Optimizer) -> list[str]:
    """A step over zero gradients moves a million weights by normal noise of the public size, within 0.5 %."""
    moved = released(kind, torch.zeros(1, MILLION)) / (SPEC.noise_multiplier * SPEC.clipping_norm / SPEC.divisor)
    bad = []
    if abs(moved.std() - 1) > SIGMA_TOLERANCE:
        bad.append(f"noise is {moved.std():.4f} of the claim")
    if moved.any() and stats.kstest(moved / moved.std(), "norm").pvalue < 1e-4:
        bad.append("noise is not normal")
    return bad


def sensitivity(kind: Optimizer, units: int = 10_000) -> list[str]:
    """No single gradient, however chosen, adds more than the clipping norm to a step's sum."""
    quiet = torch.optim.SGD([torch.nn.Parameter(torch.zeros(24))], lr=1.0)
    optimizer = kind(quiet, noise_multiplier=1.0, max_grad_norm=SPEC.clipping_norm, expected_batch_size=1.0)
    (weights,) = optimizer.params
    worst = 0.0
    for gradient in adversarial(units, 24):
        weights.grad_sample = gradient[None].clone()
        optimizer.accumulate()
        norm = float(weights.summed_grad.double().norm())
        worst = max(worst, norm if np.isfinite(norm) else np.inf)
        weights.summed_grad = None
    limit = SPEC.clipping_norm * (1 + CLIP_TOLERANCE)
    return [] if worst <= limit else [f"one unit adds {worst:.6g}, more than {SPEC.clipping_norm:g}"]


def adversarial(units: int, width: int) -> torch.Tensor:
    """Gradients [units, width] of every size from the smallest float to overflow, in every shape, some not finite."""
    generator = np.random.default_rng(1)
    sizes = 10.0 ** generator.uniform(-45, 38, units)
    shapes = generator.normal(size=(units, width))
    shapes[::3] *= generator.random((len(shapes[::3]), width)) < 0.1  # few coordinates
    shapes[1::5] = 1.0  # all the same
    with np.errstate(over="ignore"):
        rows = (shapes * sizes[:, None]).astype(np.float32)
    near = generator.normal(size=(units // 2, width))  # half of them around the norm itself
    near *= 10.0 ** generator.uniform(-3, 3, (units // 2, 1)) / np.linalg.norm(near, axis=1, keepdims=True)
    rows[: units // 2] = near
    rows[-40:-20, 0], rows[-20:-10, 1], rows[-10:, 2] = np.nan, np.inf, -np.inf
    return torch.from_numpy(rows)


def sampling(draw: Draw) -> list[str]:
    """Batch sizes follow the binomial law: their variance, not only their mean."""
    units, rate, draws = 40, 0.1, 20_000
    sizes = np.array([len(draw(units, rate)) for _ in range(draws)])
    mean, variance = units * rate, units * rate * (1 - rate)
    bad = []
    if abs(sizes.mean() / mean - 1) > 0.02:
        bad.append(f"the mean batch is {sizes.mean():.3f}, not {mean:g}")
    if abs(sizes.var() / variance - 1) > 0.05:
        bad.append(f"batch sizes vary by {sizes.var():.3f}, not {variance:g}: not Poisson sampling")
    return bad


def empty_batches(kind: Optimizer) -> list[str]:
    """Steps in which no unit joins add their noise like the others."""
    spec = PrivateSpec(**{**_fields(SPEC), "steps": 4})
    moved = released(kind, torch.zeros(0, 100_000), spec)
    public = spec.noise_multiplier * spec.clipping_norm / spec.divisor * spec.steps**0.5
    size = moved.std() / public
    return [] if abs(size - 1) < 0.02 else [f"empty steps move by {size:.3f} of the claim"]


def neighbours(kind: Optimizer) -> list[str]:
    """With N and with N + 1 units the noise of a step has one and the same public size."""
    public = SPEC.noise_multiplier * SPEC.clipping_norm / SPEC.divisor
    sizes = {units: released(kind, torch.zeros(units, 100_000)).std() / public for units in (7, 8, 9)}
    wrong = {units: size for units, size in sizes.items() if abs(size - 1) > 0.02}
    return [f"with {units} units noise is {size:.3f} of the claim" for units, size in wrong.items()]


def accountant(epsilon: Accountant) -> list[str]:
    """Opacus' PRV accountant agrees within two percent on fifty mechanisms."""
    bad = []
    for run in CONFIGURATIONS:
        ours, check = epsilon([run], 1e-5), epsilon_prv([run], 1e-5)
        if abs(ours / check - 1) > ACCOUNTANT_TOLERANCE:
            bad.append(f"{run}: {ours:.3f} against {check:.3f}")
    return bad


def ledger(price: Pricing, spec: RoundSpec) -> list[str]:
    """After each of three runs the total written down is what an independent recount finds."""
    limits, spends = Limits(epsilon_cap=1000.0), list[Spend]()
    for number in range(3):
        cost = price(list(spends), spec, limits, float(number))
        spends.append(
            Spend(
                run=str(number), unit=spec.unit, noise_multiplier=spec.noise_multiplier,
                sampling_rate=spec.sampling_rate, steps=spec.steps, clipping_norm=spec.clipping_norm,
                delta=limits.delta, epsilon=cost.epsilon, total=cost.total, time=float(number),
            )
        )  # fmt: skip
    counted = recount.recount([{**_fields(spend)} for spend in spends])
    return [
        f"run {number}: total {spend.total:.3f}, recounted {total:.3f}"
        for number, (spend, (_, total)) in enumerate(zip(spends, counted, strict=True), 1)
        if abs(spend.total - total) > 0.01 * total
    ]


def message(encode: Encoder, spec: RoundSpec) -> list[str]:
    """What N and N + 1 examples send has one length and one header, and the server can read it."""
    layout = (("model.layers.0.mlp.up_proj", 64, spec.rank),)
    expected = Expected(digest(b"base"), digest(b"release"), 1, spec, layout)
    mechanism = PrivateSpec(**{name: getattr(spec, name) for name in _fields(SPEC)})
    rng, bad = np.random.default_rng(2), []
    for examples in (0, 1, 112, 113, 500, 501):
        change = {layout[0][0]: rng.normal(0, spec.quantum * 8, (64, spec.rank)).astype(np.float32)}
        data = encode(privatise(PrivateDelta(change, mechanism), expected), examples)
        try:
            decode(data, expected)
        except UpdateRefused as refused:
            bad.append(f"{examples} examples: {refused.reason}, {len(data)} bytes for {expected.size}")
    return bad


def _fields(value: object) -> dict[str, object]:
    """A dataclass with slots as a dictionary."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}  # type: ignore[attr-defined]
