"""A real fleet server for tests: SuperLink, executor and web process on free loopback ports."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from federation import caller, enrolment
from federation import membership as memberships
from federation.charter import TERMS_LIMIT, Charter
from federation.deploy import create_server
from federation.membership import Membership
from federation.plan import Plan, ServerFolder
from federation.processes import free_ports, healthy, wait_for
from federation.repository import root_of
from federation.up import Server
from feedback.models import check_model, embedded_model
from learner.base import load_base

START = 120.0


@dataclass(frozen=True)
class Live:
    """A running server."""

    folder: ServerFolder
    charter: Charter
    server: Server

    def link(self, name: str = "a device") -> enrolment.Link:
        """An invitation."""
        token = enrolment.invite(self.folder.state(), name)
        pinned = enrolment.fingerprint(self.folder.authority.read_bytes(), root_of(self.folder))
        return enrolment.Link(self.charter.url, pinned, token)

    def join(self, folder: Path, link: enrolment.Link | None = None) -> Membership:
        """Let a device join as the command does."""
        link = link or self.link()
        authority, root = caller.anchors(link, None)
        key = enrolment.release_key(root)
        with caller.call(link.url, authority, None) as client:
            signed = caller.terms(client, TERMS_LIMIT)
            place = memberships.join(
                folder,
                release_key=key,
                base=Plan.read(self.folder.plan).base,
                url=link.url,
                authority=authority,
                root=root,
            )
            request = enrolment.ask(
                link.token, signed, place.node_key.with_suffix(".pub").read_bytes(), place.signing_key()
            )
            caller.send(client, request)
        return place


def make_server(root: Path, plan: Plan) -> tuple[ServerFolder, Charter]:
    """A server's folder with free ports, not running."""
    front, console, superlink = free_ports(3)
    folder = ServerFolder(root)
    create_server(root)
    charter = Charter(
        operator="a test", host="localhost", port=front, console=console, superlink=superlink, interval=1e9, rate=5.0
    )
    charter.write(folder.charter)
    plan.write(folder.plan)
    return folder, charter


def standard(quorum: int = 3) -> Plan:
    """The plan of `fleet init` on the embedded model."""
    from federation.standard import standard_plan

    model = check_model(embedded_model())
    plan = standard_plan(model, load_base(model).geometry, rounds=4, devices=quorum, epsilon=8.0)
    return replace(plan, rounds=1)


@contextmanager
def serving(root: Path, plan: Plan) -> Iterator[Live]:
    """Run a server's processes, without the loop that begins rounds."""
    folder, charter = make_server(root, plan)
    server = Server(folder, charter, lambda _event, _detail: None)
    try:
        server.keeper.tend()
        wait_for(healthy(charter.superlink, folder.authority), [], what="the SuperLink", seconds=START)
        wait_for(lambda: _there(charter), [], what="the front", seconds=START)
        yield Live(folder, charter, server)
    finally:
        server.keeper.close()


def _there(charter: Charter) -> bool:
    """Say whether the front accepts connections."""
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", charter.port)) == 0
