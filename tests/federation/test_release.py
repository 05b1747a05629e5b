"""Releases: nothing is accepted that the fleet did not sign, in this order, for this base."""

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import adapter
from federation import release as releases
from federation.pki import public_bytes
from federation.release import CONTEXT, Manifest, Release
from learner.export import to_gguf
from learner.lora import LoraWeights
from store.errors import ReleaseRejected
from store.records import canonical, digest
from tests.federation.desk import BASE, GEOMETRY, make_spec

KEY = Ed25519PrivateKey.generate()
SPEC = make_spec()


def weights(value: float = 0.5) -> LoraWeights:
    """Public A, constant B."""
    start = adapter.empty(SPEC, GEOMETRY)
    return adapter.moved(start, {name: np.full(b.shape, value, np.float32) for name, b in start.b.items()})


def make_release(content: LoraWeights | None = None, *, key: Ed25519PrivateKey = KEY, **changes: object) -> Release:
    """A good release of round 1, with changes to its manifest."""
    content = content or weights()
    data = to_gguf(content, GEOMETRY, BASE)
    manifest = Manifest(
        fleet=releases.fleet_identity(public_bytes(key)),
        base=BASE,
        parent=None,
        round=1,
        cohort=8,
        adapter=digest(data),
        size=len(data),
        max_norm=adapter.norm(content) * 1.000001,
        mechanism=SPEC,
        epsilon=2.0,
        epsilon_total=2.0,
        delta=1e-6,
        time=time.time(),
    )
    return releases.sign(replace(manifest, **changes), data, key)


def forge(value: dict[str, object], key: Ed25519PrivateKey = KEY) -> bytes:
    """An envelope around any JSON, properly signed: what a stolen key or a faulty server could produce."""
    return canonical({"manifest": value, "signature": key.sign(CONTEXT + canonical(value)).hex()})


def check(envelope: bytes, data: bytes, current: Manifest | None = None) -> Release:
    """Verify as a device that pinned KEY and has BASE."""
    return releases.verify(envelope, data, release_key=public_bytes(KEY), base=BASE, current=current)


def test_a_good_release_is_accepted_and_opened() -> None:
    """The bytes come back as the weights that were signed."""
    made = make_release()
    got = adapter.open_release(check(made.envelope, made.adapter), GEOMETRY, max_norm=100)
    assert all(np.array_equal(got.b[name], weights().b[name]) for name in got.b)


def test_accepting_the_same_release_again_is_fine() -> None:
    """A device that restarts sees what it already has."""
    made = make_release()
    assert check(made.envelope, made.adapter, made.manifest).manifest == made.manifest


def refusal(envelope: bytes, data: bytes, current: Manifest | None = None) -> str:
    """The code with which a device refuses."""
    with pytest.raises(ReleaseRejected) as refused:
        check(envelope, data, current)
    return refused.value.code


def test_another_signer_is_refused() -> None:
    """A key that was not pinned signs in vain."""
    made = make_release(key=Ed25519PrivateKey.generate())
    assert refusal(made.envelope, made.adapter) == "signature"


@pytest.mark.parametrize("name", ["round", "cohort", "epsilon", "base", "adapter", "time", "max_norm", "probe"])
def test_a_changed_manifest_is_refused(name: str) -> None:
    """Every field is under the signature."""
    made = make_release()
    value = json.loads(made.envelope)
    value["manifest"][name] = {"base": 1.0} if name == "probe" else "sha256:" + "0" * 64
    assert refusal(json.dumps(value).encode(), made.adapter) == "signature"


def test_changed_adapter_bytes_are_refused() -> None:
    """One flipped bit, a missing byte, an extra byte."""
    made = make_release()
    flipped = bytearray(made.adapter)
    flipped[-1] ^= 1
    for data in (bytes(flipped), made.adapter[:-1], made.adapter + b"\0", b""):
        assert refusal(made.envelope, data) == "adapter"


def test_a_release_for_another_base_is_refused() -> None:
    """An adapter fits one base model only."""
    made = make_release(base=digest(b"another"))
    assert refusal(made.envelope, made.adapter) == "base"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"round": 4}, "rollback"), ({"round": 5}, "fork"), ({"round": 6, "parent": "sha256:" + "1" * 64}, "parent")],
)
def test_a_release_out_of_line_is_refused(changes: dict[str, object], code: str) -> None:
    """No way back, no second release of a round, no foreign parent."""
    made, current = make_release(**changes), make_release(round=5).manifest
    assert refusal(made.envelope, made.adapter, current) == code


def test_a_release_that_continues_the_newest_is_accepted() -> None:
    """Directly, or after releases this device has missed."""
    current = make_release(round=5).manifest
    for changes in ({"round": 6, "parent": current.id}, {"round": 9, "parent": "sha256:" + "1" * 64}):
        made = make_release(**changes)
        assert check(made.envelope, made.adapter, current) == made


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"manifest":{},"signature":"zz"}',
        b"[" * 5000,
        b'{"manifest":[],"signature":""}',
    ],
)
def test_junk_in_place_of_a_manifest_is_refused(envelope: bytes) -> None:
    """Not JSON, not an envelope, nested without end."""
    assert refusal(envelope, b"") in {"format", "signature"}


def test_an_oversized_release_is_refused_before_it_is_read() -> None:
    """The byte cap comes first."""
    assert refusal(b" " * (releases.MANIFEST_LIMIT + 1), b"") == "size"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"round": -1},
        {"round": 1.5},
        {"cohort": "8"},
        {"epsilon": -1.0},
        {"size": None},
        {"surprise": 1},
        {"mechanism": {"steps": 1}},
        {"mechanism": None},
    ],
)
def test_a_signed_manifest_with_nonsense_is_refused(changes: dict[str, object]) -> None:
    """Even the fleet's own key cannot make a device read nonsense."""
    made = make_release()
    assert refusal(forge({**asdict(made.manifest), **changes}), made.adapter) in {"version", "range", "format"}


def test_a_release_whose_a_is_not_public_is_refused() -> None:
    """A is what the seed says; anything else could be a trap."""
    content = weights()
    name = next(iter(content.a))
    other = LoraWeights({**content.a, name: content.a[name] + np.float32(0.1)}, content.b, content.alpha)
    with pytest.raises(ReleaseRejected) as refused:
        adapter.open_release(make_release(other), GEOMETRY, max_norm=100)
    assert refused.value.code == "seed"


def test_a_release_that_is_too_large_is_refused() -> None:
    """Larger than its manifest says, or than this device allows."""
    for made, limit in ((make_release(max_norm=1.0), 100.0), (make_release(), 1.0)):
        with pytest.raises(ReleaseRejected) as refused:
            adapter.open_release(made, GEOMETRY, max_norm=limit)
        assert refused.value.code == "norm"


def test_a_signed_adapter_that_is_not_finite_or_not_an_adapter_is_refused() -> None:
    """NaN inside, and bytes that are no GGUF at all."""
    made = make_release()
    nan = made.adapter[:-64] + np.full(16, math.nan, "<f4").tobytes()
    for data in (nan, b"GGUF" + bytes(100), b"hello"):
        manifest = replace(made.manifest, adapter=digest(data), size=len(data))
        with pytest.raises(ReleaseRejected) as refused:
            adapter.open_release(releases.sign(manifest, data, KEY), GEOMETRY, max_norm=100)
        assert refused.value.code == "content"


def test_a_saved_release_is_loaded_back_and_the_newest_found(tmp_path: Path) -> None:
    """Publishing is two files; the newest has the highest round."""
    for number in (0, 1, 12):
        releases.save(make_release(round=number), tmp_path)
    newest = releases.newest(tmp_path)
    assert newest is not None
    assert releases.load(newest, release_key=public_bytes(KEY), base=BASE).manifest.round == 12
    newest.with_suffix(".gguf").unlink()
    with pytest.raises(ReleaseRejected, match="cannot be read"):
        releases.load(newest, release_key=public_bytes(KEY), base=BASE)
