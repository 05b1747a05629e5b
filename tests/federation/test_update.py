"""The private update: fixed length, unbiased rounding, and a reason for every refusal."""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.update import HEADER, UpdateRefused, decode, privatise
from store.errors import UsageError
from store.records import digest
from tests.federation.desk import COUNT, LAYOUT, make_delta, make_expected, make_spec


def gaussian(seed: int, deviation: float) -> Callable[[tuple[int, int]], np.ndarray]:
    """A filler with normal numbers."""
    generator = np.random.default_rng(seed)
    return lambda shape: generator.normal(0, deviation, shape)


@pytest.mark.parametrize("bits", [8, 16])
def test_an_update_survives_the_wire_within_one_level(bits: int) -> None:
    """What is decoded differs from the delta by less than a quantum everywhere."""
    expected = make_expected(make_spec(bits=bits))
    delta = make_delta(expected.spec, gaussian(1, 0.2))
    got = decode(privatise(delta, expected).encode(), expected).values()
    sent = np.concatenate([delta.b[name].ravel() for name, _, _ in LAYOUT])
    assert np.abs(got - sent).max() < expected.spec.quantum * (1 + 1e-5)


@pytest.mark.parametrize("fill", [0.0, 1e-9, 0.3, -5.0, 1e30])
def test_the_length_depends_on_nothing_private(fill: float) -> None:
    """Updates of very different deltas have the same length and the same header."""
    expected = make_expected()
    data = privatise(make_delta(expected.spec, lambda shape: np.full(shape, fill)), expected).encode()
    assert len(data) == expected.size == HEADER.size + COUNT
    assert data[: HEADER.size] == expected.header


def test_rounding_is_unbiased() -> None:
    """The mean of many rounded copies of 0.3 quanta is 0.3 quanta."""
    expected = make_expected()
    delta = make_delta(expected.spec, lambda shape: np.full(shape, 0.3 * expected.spec.quantum))
    levels = np.concatenate([privatise(delta, expected).levels for _ in range(60)])
    assert set(np.unique(levels)) == {0, 1}
    assert levels.mean() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_huge_delta_is_scaled_into_the_norm_bound(bits: int) -> None:
    """An honest device is never refused for its norm."""
    expected = make_expected(make_spec(bits=bits))
    data = privatise(make_delta(expected.spec, gaussian(2, 1e3)), expected).encode()
    assert np.linalg.norm(decode(data, expected).values()) <= expected.spec.max_norm


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_delta_that_is_not_finite_never_becomes_an_update(poison: float) -> None:
    """NaN and infinity stop on the device."""
    expected = make_expected()
    with pytest.raises(UsageError, match="finite"):
        privatise(make_delta(expected.spec, lambda shape: np.full(shape, poison)), expected)


def test_a_delta_of_another_mechanism_never_becomes_an_update() -> None:
    """Noise calibrated for another round cannot be sent under this one's claim."""
    weaker = make_spec(noise_multiplier=0.1)
    with pytest.raises(UsageError, match="mechanism"):
        privatise(make_delta(weaker, np.zeros), make_expected())


def test_a_delta_of_other_shapes_never_becomes_an_update() -> None:
    """A missing matrix and a wrong shape are refused."""
    expected = make_expected()
    delta = make_delta(expected.spec, np.zeros)
    first = LAYOUT[0][0]
    for b in ({**delta.b, first: np.zeros((3, 3), np.float32)}, {k: v for k, v in delta.b.items() if k != first}):
        with pytest.raises(UsageError, match="layout"):
            privatise(replace(delta, b=b), expected)


def sound() -> bytes:
    """The bytes of a good update."""
    expected = make_expected()
    return privatise(make_delta(expected.spec, gaussian(3, 0.1)), expected).encode()


MALFORMED = {
    "empty": (lambda _: b"", "size"),
    "one byte short": (lambda data: data[:-1], "size"),
    "one byte long": (lambda data: data + b"\0", "size"),
    "a megabyte": (lambda data: data * 2000, "size"),
    "another magic": (lambda data: b"NOPE" + data[4:], "magic"),
    "another version": (lambda data: data[:4] + b"\x02" + data[5:], "version"),
    "another width": (lambda data: data[:5] + b"\x10" + data[6:], "bits"),
    "reserved bytes used": (lambda data: data[:6] + b"\x01\0" + data[8:], "header"),
    "another round": (lambda data: data[:8] + b"\x09\0\0\0" + data[12:], "round"),
    "another count": (lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "count"),
    "another base": (lambda data: data[:16] + bytes(32) + data[48:], "base"),
    "another release": (lambda data: data[:48] + bytes(32) + data[80:], "release"),
    "another spec": (lambda data: data[:80] + bytes(32) + data[112:], "spec"),
    "a level out of range": (lambda data: data[:-1] + b"\x80", "range"),
    "too large a norm": (lambda data: data[: HEADER.size] + b"\x7f" * COUNT, "norm"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_malformed_update_is_refused_with_its_reason(name: str) -> None:
    """The table of what can be wrong with the bytes, each with one word."""
    spoil, reason = MALFORMED[name]
    with pytest.raises(UpdateRefused) as refused:
        decode(spoil(sound()), make_expected())
    assert refused.value.reason == reason


@given(st.binary(max_size=4096))
def test_arbitrary_bytes_are_refused_not_raised_through(data: bytes) -> None:
    """Whatever arrives, the only exception is a refusal."""
    with pytest.raises(UpdateRefused):
        decode(data, make_expected())


def test_random_levels_under_a_right_header_are_parsed_or_refused() -> None:
    """Two hundred random bodies: what passes is within the bound, what does not has one of two reasons."""
    expected, reasons = make_expected(), set()
    for _ in range(200):
        try:
            assert (
                np.linalg.norm(decode(expected.header + os.urandom(COUNT), expected).values()) <= expected.spec.max_norm
            )
        except UpdateRefused as refusal:
            reasons.add(refusal.reason)
    assert reasons <= {"range", "norm"}


def test_an_update_for_one_round_is_refused_in_another() -> None:
    """Base, release, round and spec are all bound."""
    data = sound()
    for changed, reason in (
        ({"base": digest(b"x")}, "base"),
        ({"release": digest(b"x")}, "release"),
        ({"round": 2}, "round"),
        ({"spec": make_spec(learning_rate=0.6)}, "spec"),
    ):
        with pytest.raises(UpdateRefused) as refused:
            decode(data, make_expected(**changed) if "spec" not in changed else make_expected(changed["spec"]))
        assert refused.value.reason == reason
