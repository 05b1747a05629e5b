"""Wrong parts, one mistake each, in the shape of the right ones."""

import secrets
import warnings
from collections.abc import Iterable, Sequence

from opacus.accountants import GaussianAccountant

from federation.budget import Price
from federation.spec import Limits, RoundSpec
from federation.update import PrivateUpdate
from learner.accountant import MechanismRun, epsilon, runs_of
from learner.private import SystemNoiseOptimizer
from store.records import Spend


class NoNoise(SystemNoiseOptimizer):
    """Releases the clipped sum as it is."""

    def add_noise(self) -> None:
        """Divide, nothing else."""
        for parameter in self.params:
            parameter.grad = parameter.summed_grad / self.expected_batch_size


class LessNoise(SystemNoiseOptimizer):
    """Noise at a share of the claim."""

    share = 1.0

    def add_noise(self) -> None:
        """Add too little."""
        claimed = self.noise_multiplier
        self.noise_multiplier = claimed * self.share
        super().add_noise()
        self.noise_multiplier = claimed


class HalfNoise(LessNoise):
    """Noise divided by two."""

    share = 1 / 2


class QuarterNoise(LessNoise):
    """Noise divided by four."""

    share = 1 / 4


class NoClipping(SystemNoiseOptimizer):
    """Sums the gradients as they come."""

    def clip_and_accumulate(self) -> None:
        """Add without looking at the norm."""
        for parameter in self.params:
            whole = parameter.grad_sample.sum(0)
            parameter.summed_grad = whole if parameter.summed_grad is None else parameter.summed_grad + whole


class EmptySkipped(SystemNoiseOptimizer):
    """Takes an empty batch for nothing to do, and counts it all the same."""

    def release(self) -> None:
        """Leave out the noise where no example came."""
        if any(bool(parameter.summed_grad.any()) for parameter in self.params):
            super().release()
            return
        self.released += 1
        for parameter in self.params:
            parameter.summed_grad = None


class OwnDivisor(SystemNoiseOptimizer):
    """Divides by the number of examples that came instead of by the public number."""

    seen = 0

    def clip_and_accumulate(self) -> None:
        """Count, then do the right thing."""
        self.seen += len(self.params[0].grad_sample)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Undo the public divisor."""
        super().add_noise()
        for parameter in self.params:
            parameter.grad *= self.expected_batch_size / max(1, self.seen)
        self.seen = 0


def shuffled(units: int, rate: float) -> list[int]:
    """A batch of always the same size, as a shuffling loader makes it."""
    return secrets.SystemRandom().sample(range(units), round(units * rate))


def not_stepped(spends: Iterable[Spend], spec: RoundSpec, limits: Limits, now: float) -> Price:
    """A price that forgets the run itself: the accountant was not stepped."""
    del now
    before = runs_of(spends)
    run = MechanismRun(spec.noise_multiplier, spec.sampling_rate, spec.steps)
    return Price(epsilon([run], limits.delta), epsilon(before, limits.delta))


def gdp(runs: Sequence[MechanismRun], delta: float) -> float:
    """Opacus' accountant by the central limit theorem, which under-reports."""
    with warnings.catch_warnings():  # it says itself that it underestimates
        warnings.simplefilter("ignore")
        accountant = GaussianAccountant()
        accountant.history = [(run.noise_multiplier, run.sampling_rate, run.steps) for run in runs]
        return float(accountant.get_epsilon(delta))


def with_count(update: PrivateUpdate, examples: int) -> bytes:
    """The message, with the number of examples behind it."""
    return update.encode() + examples.to_bytes(4, "little")
