"""Keys, certificates and memberships: readable by the owner alone, never overwritten, valid for loopback."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation import membership, pki
from federation.deploy import create_server
from federation.spec import Limits, RoundSpec
from store.errors import IntegrityError, NotInitialised, UsageError
from tests.federation.desk import BASE, make_spec


def test_every_private_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600 in a 0700 folder, on server and device."""
    key = create_server(tmp_path / "server")
    membership.join(tmp_path / "device", release_key=key, base=BASE)
    for folder in ("server", "device"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
        for path in (tmp_path / folder).glob("*.key"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_server_or_membership_in_one_folder_is_refused(tmp_path: Path) -> None:
    """Keys are never overwritten."""
    key = create_server(tmp_path / "server")
    membership.join(tmp_path / "device", release_key=key, base=BASE)
    with pytest.raises(UsageError, match="exists already"):
        create_server(tmp_path / "server")
    with pytest.raises(UsageError, match="exists already"):
        membership.join(tmp_path / "device", release_key=key, base=BASE)


def test_the_server_certificate_is_good_for_loopback_under_the_fleets_authority(tmp_path: Path) -> None:
    """Both names, a CA that may sign nothing below itself, and OpenSSL reads the pair."""
    create_server(tmp_path)
    server = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        tmp_path / "server.crt", tmp_path / "server.key"
    )


def test_node_keys_are_what_flower_accepts(tmp_path: Path) -> None:
    """OpenSSH form, NIST curve, no passphrase."""
    pki.create_node_key(tmp_path / "node.key")
    private = serialization.load_ssh_private_key((tmp_path / "node.key").read_bytes(), password=None)
    public = serialization.load_ssh_public_key((tmp_path / "node.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == public


def test_a_membership_survives_a_restart(tmp_path: Path) -> None:
    """What was pinned is what is read."""
    key = create_server(tmp_path / "server")
    joined = membership.join(tmp_path / "device", release_key=key, base=BASE, limits=Limits(epsilon_cap=3.0))
    assert membership.read(tmp_path / "device") == joined
    assert pki.public_bytes(joined.signing_key())


def test_a_missing_or_damaged_membership_is_said_so(tmp_path: Path) -> None:
    """Not joined, junk, a wrong key length, a key of another kind."""
    with pytest.raises(NotInitialised):
        membership.read(tmp_path)
    (tmp_path / "membership.json").write_text('{"release_key": "zz"}')
    with pytest.raises(IntegrityError):
        membership.read(tmp_path)
    with pytest.raises(UsageError, match="32 bytes"):
        membership.join(tmp_path / "device", release_key=b"short", base=BASE)
    pki.create_node_key(tmp_path / "ec.key")
    for name in ("ec.key", "none.key"):
        with pytest.raises(IntegrityError):
            pki.load_signing_key(tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0}, {"steps": 1.5}, {"steps": True}, {"noise_multiplier": 0.0}, {"noise_multiplier": float("nan")},
        {"noise_multiplier": float("inf")}, {"clipping_norm": -1.0}, {"unit": "device"}, {"bits": 4}, {"alpha": "8"},
        {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_spec_with_nonsense_is_not_parsed(changes: dict[str, object]) -> None:
    """Types, ranges and unknown fields."""
    from dataclasses import asdict

    with pytest.raises(UsageError):
        RoundSpec.parse({**asdict(make_spec()), **changes})


def test_a_spec_keeps_its_name_through_json() -> None:
    """The id is that of the canonical form."""
    import json
    from dataclasses import asdict

    spec = make_spec()
    assert RoundSpec.parse(json.loads(json.dumps(asdict(spec)))).id == spec.id
    assert make_spec(steps=11).id != spec.id
