"""Bad adapters on a device, from a server that has the fleet's own key: none may ever be served.

Most are malformed in one of a dozen ways and must be refused before anything is loaded; every fiftieth is well formed
and merely bad, and must be refused by the device's gate through the served path.
"""

import random
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.demo.owners import OWNERS, requests
from federation import adapter, membership, pki
from federation import release as releases
from federation.release import Manifest, Release
from federation.standard import standard_plan
from feedback.engine import Engine
from feedback.models import check_model, embedded_model, probe_pairs
from learner.base import Geometry, load_base
from learner.cycle import judge_release
from learner.export import to_gguf
from learner.lora import LoraWeights
from learner.policy import LearnPolicy
from store.errors import CorrigibleError
from store.memory import MemoryStore
from store.records import Correction, Interaction, Message, canonical, digest
from tools.torture.common import Outcome

GATED = 50  # every so many-th is judged by the gate
Weights = LoraWeights


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Offer `cycles` bad adapters to one device."""
    outcome, rng = Outcome("adapters"), np.random.default_rng(seed)
    model = check_model(embedded_model())
    geometry = load_base(model, hold="blocks").geometry
    plan = standard_plan(model, geometry, rounds=3, devices=3, epsilon=8.0)
    key = pki.create_signing_key(folder / "release.key")
    place = membership.join(folder / "device", release_key=pki.public_bytes(key), base=model.digest)
    store = _store(model.digest)
    start = adapter.empty(plan.spec, geometry)
    kinds = _kinds(geometry, plan.base)
    with Engine(model) as engine:
        for number in range(cycles):
            gated = number % GATED == GATED - 1
            name, spoil = ("harmful", _harmful) if gated else kinds[number % len(kinds)]
            made = _release(key, plan.base, plan.spec, number + 1, *spoil(start, rng), geometry)
            try:
                got = place.accept(made.envelope, made.adapter)
                adapter.open_release(got, geometry, max_norm=place.limits.max_adapter_norm)
                verdict = judge_release(
                    store, engine, got.adapter, got.manifest.id, probe=probe_pairs(model.path), policy=LearnPolicy()
                )
                outcome.add(f"gate said {verdict.decision}")
            except CorrigibleError as error:
                outcome.add(f"refused for {error.code}")
            if store.active("shared") is not None:
                outcome.bad.append(f"{number}: {name} was activated")
                store.activate("shared", None, "torture")
            outcome.cycles += 1
    outcome.add("activated", len(outcome.bad))
    return outcome


Spoilt = tuple[Weights, Callable[[bytes], bytes], dict[str, object]]


def _kinds(geometry: Geometry, base: str) -> list[tuple[str, Callable[[Weights, np.random.Generator], Spoilt]]]:
    """The ways to be malformed."""

    def bytes_(
        change: Callable[[bytes, np.random.Generator], bytes],
    ) -> Callable[[Weights, np.random.Generator], Spoilt]:
        return lambda start, rng: (_moved(start, rng, 0.01), lambda data: change(data, rng), {})

    def numbers(value: float) -> Callable[[Weights, np.random.Generator], Spoilt]:
        return bytes_(lambda data, rng: _one(data, rng, value))

    def says(**changes: object) -> Callable[[Weights, np.random.Generator], Spoilt]:
        return lambda start, rng: (_moved(start, rng, 0.01), _same, changes)

    def other_a(start: Weights, _rng: np.random.Generator) -> Spoilt:
        return Weights({name: a + 0.01 for name, a in start.a.items()}, start.b, start.alpha), _same, {}

    def missing(start: Weights, rng: np.random.Generator) -> Spoilt:
        gone = rng.choice(sorted(start.b))
        a, b, shapes = ({k: v for k, v in one.items() if k != gone} for one in (start.a, start.b, geometry.shapes))
        left = to_gguf(Weights(a, b, start.alpha), replace(geometry, shapes=shapes), base)
        return start, lambda _data: left, {}

    return [
        ("NaN", numbers(float("nan"))),
        ("infinity", numbers(float("inf"))),
        ("huge", numbers(1e9)),
        ("other A", other_a),
        ("a missing matrix", missing),
        ("cut off", bytes_(lambda data, rng: data[: rng.integers(1, len(data))])),
        ("a header of junk", bytes_(lambda data, rng: rng.bytes(64) + data[64:])),
        ("junk", bytes_(lambda data, rng: b"GGUF" + rng.bytes(4096))),
        ("billions of tensors", bytes_(lambda data, rng: data[:8] + b"\xff" * 8 + data[16:])),
        ("an empty file", bytes_(lambda data, rng: b"")),
        ("another base", says(base=digest(b"another"))),
        ("larger than it says", says(max_norm=1e-6)),
        ("an unknown version", says(version=7)),
        ("another fleet's name", says(fleet=digest(b"another fleet"))),
    ]


def _harmful(start: Weights, rng: np.random.Generator) -> Spoilt:
    """Well formed, within every bound, and of no use: noise that drowns what the model knows."""
    return _moved(start, rng, 0.3), _same, {}


def _same(data: bytes) -> bytes:
    return data


def _moved(start: Weights, rng: np.random.Generator, size: float) -> Weights:
    """Random B."""
    return Weights(
        start.a, {k: rng.normal(0, size, b.shape).astype(np.float32) for k, b in start.b.items()}, start.alpha
    )


def _one(data: bytes, rng: np.random.Generator, value: float) -> bytes:
    """One of the last numbers, which are B's, is `value`."""
    at = len(data) - 4 * int(rng.integers(1, 17))
    return data[:at] + struct.pack("<f", value) + data[at + 4 :]


def _release(
    key: Ed25519PrivateKey, base: str, spec: object, number: int, weights: Weights, change: Callable[[bytes], bytes],
    changes: dict[str, object], geometry: Geometry,
) -> Release:  # fmt: skip
    """A release with the fleet's genuine signature over whatever it holds."""
    data = change(to_gguf(weights, geometry, base))
    manifest = Manifest(
        fleet=releases.fleet_identity(pki.public_bytes(key)), base=base, parent=None, round=2 * number, cohort=3,
        adapter=digest(data), size=len(data), max_norm=900.0, mechanism=spec, epsilon=1.0, epsilon_total=1.0,  # type: ignore[arg-type]
        delta=1e-6, time=time.time(),
    )  # fmt: skip
    manifest = replace(manifest, **changes)  # type: ignore[arg-type]
    return Release(manifest, key.sign(releases.CONTEXT + canonical(asdict(manifest))), data)


def _store(base: str) -> MemoryStore:
    """A device with corrections to judge by."""
    store, random_ = MemoryStore(), random.Random(0)
    for one in requests(OWNERS[0], 60, 0):
        asked = Interaction(messages=(Message("user", one.prompt),), answer="?", model=base, time=random_.random())
        store.add_all([asked, Correction(interaction=asked.id, corrected=one.answer, time=asked.time)])
    return store
