"""The audit can fail: it passes the product and catches every seeded mutant, by itself or by a direct check."""

import math

import pytest

from cli.main import run
from feedback.models import check_model, embedded_model
from learner.audit import AuditSpec, audit, audited_spec, lower_bound
from learner.base import Base, load_base
from learner.private import SystemNoiseOptimizer
from tools.audit import mutants
from tools.audit.__main__ import Case, direct_cases, product_checks

SLOW = ("accountant", "gdp accountant")  # fifty mechanisms; `make audit` and test_accountant look at them


@pytest.fixture(scope="module")
def base() -> Base:
    """The embedded model, as training sees it."""
    return load_base(check_model(embedded_model()))


def test_the_products_own_run_does_not_refute_its_claim(base: Base) -> None:
    """Claimed epsilon 2 with 2,000 canaries: the lower bound stays below, and clearly above nothing at all."""
    spec = AuditSpec()
    found = audit(base, spec, audited_spec(spec))
    assert 0.2 < found.lower <= spec.epsilon < found.ceiling
    assert found.holds


@pytest.mark.parametrize(
    "mutant", [mutants.NoNoise, mutants.QuarterNoise, mutants.NoClipping], ids=lambda kind: kind.__name__
)
def test_the_audit_catches_missing_noise_and_missing_clipping(base: Base, mutant: type[SystemNoiseOptimizer]) -> None:
    """The lower bound of a mutant exceeds the claim."""
    spec = AuditSpec()
    assert not audit(base, spec, audited_spec(spec), optimizer=mutant).holds


def test_the_bound_is_the_theorems() -> None:
    """All of m guesses right at delta 0: the bound has a closed form; delta lowers it; half right proves nothing."""
    for canaries in (20, 100, 1000):
        rate = 0.05 ** (1 / canaries)
        exact = lower_bound(canaries, canaries, canaries, 0.0, 0.05)
        assert exact == pytest.approx(math.log(rate / (1 - rate)), abs=2e-3)
        assert exact - 1.0 < lower_bound(canaries, canaries, canaries, 1e-5, 0.05) < exact
    assert lower_bound(1000, 1000, 500, 1e-5, 0.05) == 0.0


@pytest.mark.parametrize("name", [name for name in product_checks() if name not in SLOW])
def test_the_product_passes_each_direct_check(name: str) -> None:
    """Noise, sensitivity, sampling, empty batches, neighbours, ledger, message."""
    assert product_checks()[name]() == []


@pytest.mark.parametrize("case", [case for case in direct_cases() if case.name not in SLOW], ids=lambda case: case.name)
def test_each_mutant_fails_its_direct_check(case: Case) -> None:
    """What an audit cannot see, a direct check does."""
    assert case.check() != []


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_noise_at_two_thirds_or_three_halves_is_rejected(factor: float) -> None:
    """The check of the noise scale is tight on both sides."""
    from tools.audit import checks

    class Wrong(mutants.LessNoise):
        share = factor

    assert checks.noise_scale(Wrong) != []


def test_the_command_prints_the_bound_beside_the_claim(capsys: pytest.CaptureFixture[str]) -> None:
    """One command, no store needed, the claim with its unit and the bound with its confidence."""
    assert run(["privacy", "audit", "--canaries", "200"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("epsilon 2", "per correction", "at least", "95% confidence"))
