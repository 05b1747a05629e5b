"""Keys and certificates of a fleet: its own authority, the server's certificate, node keys and signing keys.

Private keys are written once, mode 0600, never overwritten. Revocation lives in the registry, not here.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from store.errors import IntegrityError, UsageError

LOOPBACK = ("localhost", "127.0.0.1")
AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
SUPEREXEC_SECRET_BYTES = 48


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to a new file that only its owner may read.

    Raises:
        UsageError: the file exists already.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError(f"{path.name} exists already", hint="Choose an empty folder.") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def create_authority(folder: Path, hosts: Sequence[str] = LOOPBACK) -> None:
    """Create ``ca.{key,crt}`` and ``server.{key,crt}`` (EC P-256) in `folder`, valid for `hosts`."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("Corrigible fleet authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _builder(_name("Corrigible fleet server"), authority_name, server_key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _pem(authority_key))
    write_private(folder / "server.key", _pem(server_key))
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))


def create_node_key(path: Path) -> None:
    """Create an EC P-256 key in OpenSSH form without passphrase at `path` and its public half at ``path.pub``.

    Flower's SuperNode accepts NIST curves in this form only.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write_private(path, private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b"\n")


def create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Create an Ed25519 key at `path` (PEM, 0600) and return it."""
    key = Ed25519PrivateKey.generate()
    write_private(path, _pem(key))
    return key


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the Ed25519 key at `path`.

    Raises:
        IntegrityError: the file is missing or holds something else.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IntegrityError(f"{path.name} cannot be read as a signing key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IntegrityError(f"{path.name} is not an Ed25519 key")
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 raw bytes of the public half of `key`."""
    return key.public_key().public_bytes_raw()


def signed_by(public: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether `signature` (64 bytes) over `data` was made by the owner of `public` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _name(common: str) -> x509.Name:
    """A distinguished name with only a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    """`host` as an IP address where it is one, else as a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """A certificate valid from an hour ago, against small clock differences."""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Signing certificates for the authority, signing handshakes for the server."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
