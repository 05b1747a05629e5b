"""Strangers at the door of a real fleet server: fresh SuperNode keys, made-up invitations. None may get in."""

import base64
import datetime
import secrets
import ssl
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from federation import caller, enrolment, pki
from federation.control import control
from tests.federation.live import Live, serving, standard
from tools.torture.common import Outcome

HUNDRED = 100  # strangers that share an address; the front lets one address try 120 times a minute


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Try `cycles` times to connect with an unknown key and as often to join without an invitation."""
    del seed  # keys are fresh
    outcome = Outcome("strangers")
    with serving(folder / "server", standard()) as live:
        for number in range(0, cycles, HUNDRED):
            with _from_elsewhere(live, number // HUNDRED) as outside:
                for _ in range(min(HUNDRED, cycles - number)):
                    _try(outside, folder, outcome)
        with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
            let_in = len(operator.registered()) + len(operator.online()) + len(live.folder.state().nodes())
            key = ec.generate_private_key(ec.SECP256R1())
            form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            operator.register(key.public_key().public_bytes(*form), "known")
            body, headers = activation(key)
            with _from_elsewhere(live, 0) as outside:
                known = outside.post(ACTIVATE, content=body, headers=headers).status_code
    outcome.add("accepted", let_in)
    outcome.add("known key accepted", float(known == 200))
    if let_in:
        outcome.bad.append(f"{let_in} were let in")
    if known != 200:
        outcome.bad.append(f"a known key was refused too ({known}): the refusals prove nothing")
    return outcome


def _try(outside: httpx.Client, folder: Path, outcome: Outcome) -> None:
    """Connect and join once, with fresh keys."""
    body, headers = activation(ec.generate_private_key(ec.SECP256R1()))
    outcome.add(f"activate answered {outside.post(ACTIVATE, content=body, headers=headers).status_code}")
    pki.create_node_key(node := folder / secrets.token_hex(8))
    public = node.with_suffix(".pub").read_bytes()
    terms = caller.terms(outside, 1 << 16)
    request = enrolment.ask(secrets.token_urlsafe(24), terms, public, Ed25519PrivateKey.generate())
    outcome.add(f"join answered {outside.post('/fleet/join', content=request).status_code}")
    outcome.cycles += 1


def _from_elsewhere(live: Live, number: int) -> httpx.Client:
    """A client with an address of its own on loopback: each may try to join a hundred times at once."""
    trusted = ssl.create_default_context(cafile=str(live.folder.authority))
    road = httpx.HTTPTransport(verify=trusted, local_address=f"127.0.1.{1 + number % 250}")
    return httpx.Client(base_url=live.charter.url.replace("localhost", "127.0.0.1"), transport=road, timeout=30)


ACTIVATE = "/v1/fleet/activate-node"


def activation(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of Flower's request to connect as a SuperNode, signed by `key`."""
    public = public_key_to_bytes(key.public_key())
    now = datetime.datetime.now(datetime.UTC).isoformat()
    headers = {
        "content-type": "application/protobuf",
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": now,
        "flwr-signature": base64.b64encode(sign_message(key, now.encode())).decode(),
        "flwr-package-name": "flwr",
        "flwr-package-version": "1.41.0",
        "flwr-component-name": "SuperNode",
    }
    return ActivateNodeRequest(public_key=public, heartbeat_interval=60.0).SerializeToString(), headers
