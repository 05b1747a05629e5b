"""What a device, and anybody else, can do to a fleet server from outside: ten verbs, joining, static files."""

import datetime
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation import caller, enrolment, pki
from federation.charter import open_terms
from federation.control import control
from federation.front import VERBS, Buckets
from store.errors import NetworkError, NotEligible, ReleaseRejected, UsageError
from tests.federation.live import Live
from tools.torture.strangers import activation

UNKNOWN = 100  # joins and activations with unknown keys here; a thousand in `python -m tools.torture strangers`


@contextmanager
def client(live: Live) -> Iterator[httpx.Client]:
    """A client that trusts the fleet."""
    with caller.call(live.charter.url, live.folder.authority.read_bytes(), None) as one:
        yield one


@pytest.mark.slow
def test_nothing_of_flower_but_the_ten_verbs_is_reachable(live: Live) -> None:
    """Every path that Flower itself lists is asked for: ten are handed on, all others are not there."""
    with client(live) as outside:
        inside = ssl.create_default_context(cafile=str(live.folder.authority))
        listed = httpx.get(f"https://localhost:{live.charter.superlink}/openapi.json", verify=inside, trust_env=False)
        paths = {*listed.json()["paths"], "/openapi.json", "/docs", "/v1/control/start-run", "/v1/runtime/acquire-task"}
        verbs = {f"/v1/fleet/{verb}" for verb in VERBS}
        assert verbs <= paths
        others = paths - verbs - {"/health"}
        assert any("control" in path for path in others)
        assert {outside.request(method, path).status_code for path in others for method in ("POST", "GET")} == {404}
        assert 404 not in {outside.post(path).status_code for path in verbs}
        assert outside.post("/v1/fleet/../control/list-runs").status_code == 404
        assert outside.post("/v1/fleet/register-node").status_code == 404


@pytest.mark.slow
def test_a_clock_that_is_wrong_is_named(live: Live) -> None:
    """Flower would refuse all that this device signs, and say nothing of the clock."""
    with client(live) as outside:
        for minutes in (4, -4):
            caller.require_clock(outside, time.time() + 60 * minutes)
        for minutes, words in ((8, "8 minutes ahead"), (-90, "90 minutes behind")):
            with pytest.raises(NetworkError, match=words) as refused:
                caller.require_clock(outside, time.time() + 60 * minutes)
            assert refused.value.code == "clock"


@pytest.mark.slow
def test_unknown_keys_neither_connect_nor_join(live: Live, tmp_path: Path) -> None:
    """Strangers with fresh keys and made-up invitations: none is let in, a device with a good one is."""
    before = {node.device for node in live.folder.state().nodes()}
    with client(live) as outside:
        terms = caller.terms(outside, 1 << 16)
        for _ in range(UNKNOWN):
            body, headers = activation(ec.generate_private_key(ec.SECP256R1()))
            assert outside.post("/v1/fleet/activate-node", content=body, headers=headers).status_code == 412
            key = Ed25519PrivateKey.generate()
            pki.create_node_key(node := tmp_path / secrets.token_hex(4))
            request = enrolment.ask(secrets.token_urlsafe(24), terms, node.with_suffix(".pub").read_bytes(), key)
            assert outside.post("/fleet/join", content=request).status_code in (403, 429)
    assert {node.device for node in live.folder.state().nodes()} == before
    with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
        assert len(operator.registered()) == len(before)


@pytest.mark.slow
def test_an_invitation_is_good_once_for_the_terms_it_shows(live: Live, tmp_path: Path) -> None:
    """The same request again is the same device; another device, other terms or a late one is refused."""
    state = live.folder.state()
    link = live.link("ada")
    place = live.join(tmp_path / "ada", link)
    node = next(one for one in state.nodes() if one.name == "ada")
    assert node.device == pki.public_bytes(place.signing_key()).hex()
    with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator, client(live) as outside:
        terms = caller.terms(outside, 1 << 16)
        public = place.node_key.with_suffix(".pub").read_bytes()
        again = enrolment.ask(link.token, terms, public, place.signing_key())
        assert enrolment.admit(state, operator, terms, again) == node
        key = Ed25519PrivateKey.generate()
        pki.create_node_key(tmp_path / "other")
        other = (tmp_path / "other.pub").read_bytes()
        late = enrolment.invite(state, "late", seconds=-1.0)
        for token in (link.token, "nonsense", late):
            with pytest.raises(NotEligible):
                enrolment.admit(state, operator, terms, enrolment.ask(token, terms, other, key))
        token = enrolment.invite(state, "bo")
        with pytest.raises(UsageError, match="terms have changed"):
            enrolment.admit(state, operator, terms, enrolment.ask(token, terms + b" ", other, key))
        forged = json.loads(enrolment.ask(token, terms, other, key)) | {"device": node.device}
        for body in (b"", b"{}", b"[]", b"\xff", b"x" * 9000, json.dumps(forged).encode()):
            with pytest.raises(UsageError):
                enrolment.admit(state, operator, terms, body)


@pytest.mark.slow
def test_a_link_pins_the_server_and_the_terms_are_signed(live: Live) -> None:
    """Another fingerprint is another server; a changed word in the terms is refused."""
    link = live.link()
    assert enrolment.Link.parse(str(link)) == link
    authority, root = caller.anchors(link, None)
    with pytest.raises(NetworkError) as refused:
        caller.anchors(enrolment.Link(link.url, bytes(32), link.token), None)
    assert refused.value.code == "fingerprint"
    with caller.call(link.url, authority, None) as outside:
        data = caller.terms(outside, 1 << 16)
    key = enrolment.release_key(root)
    assert open_terms(data, key).operator == "a test"
    for bad in (data.replace(b"a test", b"a pest"), data[:-1], b"[]", b"[" * 5000, b"x" * (1 << 16)):
        with pytest.raises(ReleaseRejected):
            open_terms(bad, key)


@pytest.mark.slow
def test_the_front_bounds_what_it_takes(live: Live) -> None:
    """A body of nine megabytes is cut off; one key that asks too often waits while another is served."""
    with client(live) as outside:
        body, headers = activation(ec.generate_private_key(ec.SECP256R1()))
        assert outside.post("/v1/fleet/push-object", content=bytes(9 << 20), headers=headers).status_code == 413
        codes = [
            outside.post("/v1/fleet/pull-messages", content=b"", headers={"flwr-public-key": "loud"}).status_code
            for _ in range(live.charter.burst + 80)
        ]
        assert 429 in codes[live.charter.burst :]
        assert 429 not in codes[: live.charter.burst]
        assert outside.post("/v1/fleet/activate-node", content=body, headers=headers).status_code != 429


@pytest.mark.slow
def test_the_console_shows_changes_nothing_and_answers_to_its_own_name_only(live: Live) -> None:
    """Page without script under a strict policy, metrics, health; a rebound name is refused; the front has none."""
    url = f"http://127.0.0.1:{live.charter.console}"
    page = httpx.get(f"{url}/", trust_env=False)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "a test" in page.text
    metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    for name in (
        "corrigible_devices",
        "corrigible_halted",
        "corrigible_rounds_total",
        "corrigible_front_answers_total",
    ):
        assert name in metrics
    assert httpx.get(f"{url}/healthz", trust_env=False).text == "ok"
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    assert httpx.get(f"{url}/", headers={"host": "evil.example"}, trust_env=False).status_code == 400
    assert httpx.post(f"{url}/", trust_env=False).status_code == 405
    with client(live) as outside:
        assert {outside.get(path).status_code for path in ("/", "/metrics", "/state.json", "/readyz")} == {404}
        assert outside.get("/releases/metadata/timestamp.json").status_code == 200
        assert outside.get("/releases/../release.key").status_code == 404


def test_buckets_refill_and_forget() -> None:
    """Two at once, then one every half second."""
    now = [0.0]
    buckets = Buckets(rate=2.0, burst=2, clock=lambda: now[0])
    assert [buckets.allow("a") for _ in range(3)] == [True, True, False]
    assert buckets.allow("b")
    now[0] = 0.5
    assert [buckets.allow("a") for _ in range(2)] == [True, False]


def certificate(folder: Path, *, host: str = "localhost", days: int = 30, signer: Path | None = None) -> None:
    """Write server.{crt,key} into `folder`, valid for `host` until `days` from now, by the authority of `signer`."""
    authority = folder if signer is None else signer
    ca_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=60))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.key").write_bytes(key.private_bytes(pem, form, plain))
    (folder / "server.crt").write_bytes(made.public_bytes(pem))


@contextmanager
def speaking_tls(folder: Path) -> Iterator[str]:
    """A server that does the handshake and hangs up; yields its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            connection, _ = door.accept()
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{door.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("expired", "certificate_expired"),
        ("early", "certificate_early"),
        ("other host", "certificate_host"),
        ("other authority", "certificate"),
        ("good", "network"),
    ],
)
def test_a_certificate_that_is_not_good_is_named_and_nothing_is_sent(tmp_path: Path, case: str, code: str) -> None:
    """Expired, not valid yet, for another host, by another authority; with a good one only the connection fails."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pki.create_authority(tmp_path / name)
    certificate(
        tmp_path / "a",
        host="elsewhere" if case == "other host" else "localhost",
        days={"expired": -1, "early": 90}.get(case, 30),
        signer=tmp_path / "b" if case == "other authority" else None,
    )
    authority = (tmp_path / "a" / "ca.crt").read_bytes()
    with (
        speaking_tls(tmp_path / "a") as url,
        pytest.raises(NetworkError) as refused,
        caller.call(url, authority, None) as outside,
    ):
        outside.get("/")
    assert refused.value.code == code


def test_a_server_that_is_not_there_is_a_network_error(tmp_path: Path) -> None:
    """Nobody listens."""
    pki.create_authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    link = enrolment.Link(f"https://localhost:{port}", bytes(32), "token")
    with pytest.raises(NetworkError) as refused:
        caller.anchors(link, None)
    assert refused.value.code == "network"


@pytest.mark.parametrize(
    "text",
    ["", "https://x", "http://x/#" + "A" * 43 + ".t", "https://x/#short.t", "https:///#" + "A" * 43 + ".t", "x.json"],
)
def test_what_is_no_link_is_refused(text: str) -> None:
    """Exit 2."""
    with pytest.raises(UsageError):
        enrolment.Link.parse(text)
