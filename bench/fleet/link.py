"""``python -m bench.fleet.link NODES INTERVAL``: one round of our server app on a real SuperLink, with light nodes."""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from bench.fleet.nodes import LightNode, Swarm, connection
from federation import adapter, pki
from federation.control import control
from federation.deploy import _superlink, create_server
from federation.plan import Plan, ServerFolder
from federation.processes import Child
from federation.protocol import SignedOrder, open_order, reply_fields, sign_reply
from federation.spec import Pace
from federation.standard import standard_plan
from federation.state import OPEN, Node
from federation.update import Expected, PrivateUpdate
from feedback.models import check_model, embedded_model
from learner.base import load_base


def virtual_device(plan: Plan, key: pki.Ed25519PrivateKey, release_key: bytes) -> Callable[[Message], Message]:
    """A device that checks the fleet's signature and answers with random levels."""
    layout = adapter.layout(plan.geometry, plan.spec)

    def answer(message: Message) -> Message:
        asked = message.content["order"]
        order = open_order(SignedOrder(asked["body"], asked["signature"]), release_key)
        expected = Expected(plan.base, order.release, order.round, order.spec, layout)
        levels = np.random.default_rng().integers(-8, 9, expected.count).astype(np.int8)
        reply = sign_reply(order, PrivateUpdate(expected, levels).encode(), key)
        return Message(RecordDict({"reply": ConfigRecord(dict(reply_fields(reply)))}), reply_to=message)

    return answer


def cpu(children: list[Child]) -> dict[str, float]:
    """CPU seconds so far and resident MiB of the SuperLink and of the server app."""
    found = {}
    for child in children:
        family = [psutil.Process(child.process.pid), *psutil.Process(child.process.pid).children(recursive=True)]
        found[f"{child.name}_cpu"] = round(sum(sum(each.cpu_times()[:2]) for each in family), 1)
        found[f"{child.name}_mib"] = round(sum(each.memory_info().rss for each in family) / 2**20)
    return found


def main() -> None:
    """Register, connect, hold one round, print one JSON line."""
    count, interval = int(sys.argv[1]), float(sys.argv[2])
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    model = check_model(embedded_model())
    plan = standard_plan(model, load_base(model).geometry, rounds=1, devices=count, epsilon=8.0)
    pace = Pace(quorum=3, expected=count, gather=60.0, deadline=1500.0, poll=1.0)
    plan = replace(plan, pace=pace, probe_items=0)
    with tempfile.TemporaryDirectory() as name:
        release_key = create_server(Path(name))
        server, keys = ServerFolder(Path(name)), Path(name) / "nodes"
        keys.mkdir()
        plan.write(server.plan)
        with (
            _superlink(server) as (address, children, _),
            control(address, server.authority) as operator,
            connection(address, server.authority) as http,
        ):
            state, nodes, begun = server.state(), [], time.monotonic()
            for number in range(count):
                path = keys / f"{number}.key"
                pki.create_node_key(path)
                signing = pki.Ed25519PrivateKey.generate()
                node_id = operator.register(path.with_suffix(".pub"), f"n{number}")
                state.enroll(Node(node_id=node_id, name=f"n{number}", device=pki.public_bytes(signing).hex()))
                nodes.append(LightNode(path, virtual_device(plan, signing, release_key), http))
                nodes[-1].activate()
            registered, before = time.monotonic() - begun, cpu(children)
            swarm, begun = Swarm(nodes, interval), time.monotonic()
            operator.start(server.plan)
            while not any(entry.verdict not in OPEN for entry in state.rounds()):
                time.sleep(1.0)
            swarm.stop()
            after, (report,) = cpu(children), server.read_reports()
            facts = {
                "nodes": count,
                "interval": interval,
                "registered_seconds": round(registered, 1),
                "run_seconds": round(time.monotonic() - begun, 1),
                "requests": sum(node.requests for node in nodes),
                "failures": len(swarm.failures),
                "before": before,
                "after": after,
                "database_mib": round(server.database.stat().st_size / 2**20, 1),
                **{name: report[name] for name in ("asked", "accepted", "rejected", "missing", "seconds", "verdict")},
            }
            print(json.dumps(facts))


if __name__ == "__main__":
    main()
