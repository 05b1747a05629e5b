"""Strangers at the door of a real fleet server: fresh SuperNode keys, made-up invitations. None may get in."""

import base64
import datetime
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from federation import caller, enrolment, pki
from federation.control import control
from tests.federation.live import serving, standard
from tools.torture.common import Outcome


def run(folder: Path, cycles: int, seed: int = 1) -> Outcome:
    """Try `cycles` times to connect with an unknown key and as often to join without an invitation."""
    del seed  # keys are fresh
    outcome = Outcome("strangers")
    with serving(folder / "server", standard()) as live:
        with caller.call(live.charter.url, live.folder.authority.read_bytes()) as outside:
            terms = caller.terms(outside, 1 << 16)
            for number in range(cycles):
                body, headers = activation(ec.generate_private_key(ec.SECP256R1()))
                outcome.add(f"activate answered {outside.post(ACTIVATE, content=body, headers=headers).status_code}")
                pki.create_node_key(node := folder / f"node{number}")
                public = node.with_suffix(".pub").read_bytes()
                request = enrolment.ask(secrets.token_urlsafe(24), terms, public, Ed25519PrivateKey.generate())
                outcome.add(f"join answered {outside.post('/fleet/join', content=request).status_code}")
                outcome.cycles += 1
        with control(f"127.0.0.1:{live.charter.superlink}", live.folder.authority) as operator:
            let_in = len(operator.registered()) + len(operator.online()) + len(live.folder.state().nodes())
    outcome.add("accepted", let_in)
    if let_in:
        outcome.bad.append(f"{let_in} were let in")
    return outcome


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
